"""The only module that opens URLs: mirrors, resume, checksum, atomic arrival."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from filelock import FileLock

from coocnet.errors import FetchError, InputError

Progress = Callable[[int, int | None], None]
"""Called with bytes so far and bytes in all (None where the server does not say)."""

_BLOCK_BYTES = 1 << 18
_ATTEMPTS_PER_MIRROR = 3
_TIMEOUT_S = 30.0


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_listens(host: str, port: int, *, within_s: float) -> None:
    """Fails where nobody listens, for what would take minutes to find out by itself.

    Raises:
        OSError: no such host, nobody listens there, or no answer in this time.
    """
    socket.create_connection((host, port), within_s).close()


def fetch(
    urls: Sequence[str],
    destination: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    pause_s: float = 1.0,
) -> Path:
    """Downloads one file, from the first mirror that gives it whole.

    What has arrived is kept in ``destination`` + ``.part``; the next attempt, in this process or a later one,
    goes on from there if the server still has the same file. The file appears under its name only when it is
    complete and its checksum agrees. Processes that want the same file wait for one another.

    Args:
        urls: mirrors in order of preference, http or https.
        destination: where the file is to be; its folder is made.
        sha256: the digest, or its leading digits; None to accept what comes.
        progress: called as bytes arrive.
        pause_s: first pause before a mirror is tried again; doubles each time.

    Returns:
        The path of the file. A file that is there already and agrees is not fetched again.

    Raises:
        InputError: no URL, or one that is neither http nor https.
        FetchError: every mirror failed; the message lists each with its reason.
    """
    if not urls:
        raise InputError("there is no URL to fetch from")
    for url in urls:
        if not _is_web_address(url):
            raise InputError(f"only http and https URLs are fetched, written in ASCII, got {url!r}")
    target = Path(destination)
    failures = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if target.is_file() and _agrees(target, sha256):
                return target
            for url in urls:
                reason = _try_mirror(url, target, sha256, progress, pause_s)
                if reason is None:
                    return target
                failures.append(f"  {url}: {reason}")
    except OSError as error:
        raise FetchError(f"{target} cannot be written: {error}. Free the place or choose another folder.") from error
    raise FetchError(f"{target.name} could not be downloaded:\n" + "\n".join(failures))


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and url.isascii()


def _agrees(path: Path, sha256: str | None) -> bool:
    return sha256 is None or sha256_of(path).startswith(sha256.lower())


def _try_mirror(url: str, target: Path, sha256: str | None, progress: Progress | None, pause_s: float) -> str | None:
    """None on success, else why not."""
    part = target.with_name(target.name + ".part")
    reason = ""
    for attempt in range(_ATTEMPTS_PER_MIRROR):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            resumed = _download(url, part, progress)
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 416, 429):
                return reason
            if error.code == 416:
                part.unlink(missing_ok=True)
            continue
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            continue
        if _agrees(part, sha256):
            part.replace(target)
            _validator_file(part).unlink(missing_ok=True)
            return None
        reason = f"the file has SHA-256 {sha256_of(part)}, expected {sha256}"
        part.unlink()
        if not resumed:
            return reason
    return reason


def _download(url: str, part: Path, progress: Progress | None) -> bool:
    """Fills ``part``, from where it stands if the server has the same file, else from the start; True if resumed."""
    have = part.stat().st_size if part.is_file() else 0
    validator = _saved_validator(part, url) if have else None
    request = urllib.request.Request(url, headers={"User-Agent": "coocnet"})
    if validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    with _web().open(request, timeout=_TIMEOUT_S) as answer:
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise http.client.HTTPException("the server resumed at another place than it was asked for")
        if resumed and _validator(answer.headers) not in (None, validator):
            part.unlink()
            raise http.client.HTTPException("the file changed on the server while it was being downloaded")
        length = answer.headers.get("Content-Length", "")
        done = have if resumed else 0
        total = done + int(length) if length.isdecimal() else None
        if not resumed:
            _save_validator(part, url, _validator(answer.headers))
        with part.open("ab" if resumed else "wb") as stream:
            while block := _received(answer):
                stream.write(block)
                done += len(block)
                if progress:
                    progress(done, total)
            stream.flush()
            os.fsync(stream.fileno())
    if total is not None and done != total:
        raise http.client.HTTPException(f"the connection ended after {done} of {total} bytes")
    return bool(resumed)


def _received(answer: http.client.HTTPResponse) -> bytes:
    """The next block; what fails on the network is told apart from what fails on the disk."""
    try:
        return answer.read(_BLOCK_BYTES)
    except OSError as error:
        raise http.client.HTTPException(f"the connection failed: {error}") from error


def _web() -> urllib.request.OpenerDirector:
    """Opens http and https, through proxies and redirections, and nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        _WebRedirects,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(  # noqa: PLR0917 - the base class's signature
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Follows to web addresses alone."""
        if not _is_web_address(newurl):
            raise urllib.error.HTTPError(newurl, code, f"redirection to {newurl!r} is not allowed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _validator(headers: http.client.HTTPMessage) -> str | None:
    """What the server calls this version of the file."""
    return headers.get("ETag") or headers.get("Last-Modified")


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _save_validator(part: Path, url: str, validator: str | None) -> None:
    usable = validator if validator and not validator.startswith("W/") else None
    _validator_file(part).write_text(json.dumps({"url": url, "validator": usable}), encoding="utf-8")


def _saved_validator(part: Path, url: str) -> str | None:
    """What the server called the version that ``part`` began with; None if it cannot be resumed from ``url``."""
    try:
        saved = json.loads(_validator_file(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return saved.get("validator") if isinstance(saved, dict) and saved.get("url") == url else None
