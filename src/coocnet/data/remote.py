"""Files at URLs, by whatever fsspec has a file system for: ``s3://bucket/photos``, ``gs://…``, ``file:///…``.

The only module that uses fsspec. It does for a URL what ``os`` does for a path: what goes wrong is an OSError,
whatever errors the driver of the file system has. Drivers (s3fs for ``s3://``, gcsfs for ``gs://``) are for the user
to install; they find credentials and addresses in the environment, never in a URL.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import posixpath
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeGuard

from coocnet.errors import InputError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/]*)")
_WITHOUT_PASSWORD = re.compile(r"([^:@]*@)?(\[[^\]]*\]|[^:@]*)(:\d*)?")
LINKED_FOLDER = "a link to a folder"
_TAGS = ("ETag", "etag", "md5Hash", "checksum")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "modification_time", "created")
# Where there are no folders, all that is below one is listed at once, a thousand at a time.
_OBJECT_STORES = frozenset(("s3", "s3a", "gs", "gcs"))


@dataclass(frozen=True)
class Entry:
    """What is at a URL.

    Attributes:
        url: of it.
        kind: "file", "directory", or why it is neither.
        size_bytes: of a file; 0 where it is not told.
        changed: a number that is another once the file was written again: made of its tag where it has one, since
            times are often told in whole seconds, else its time in nanoseconds; 0 where neither is told.
    """

    url: str
    kind: str
    size_bytes: int
    changed: int


def is_url(path: object) -> TypeGuard[str]:
    """Whether this names a file or folder by a URL."""
    return isinstance(path, str) and _URL.match(path) is not None


def canonical(url: str) -> str:
    """The URL under which a file or folder is known, however it was written: without "/" at its end.

    Raises:
        InputError: a URL with a password, of no bucket, of a file system that is not known, or without its driver.
    """
    _, before, path = _opened(url)
    return before + path


def status(url: str) -> Entry:
    """What is there now.

    Raises:
        InputError: as :func:`canonical`.
        FileNotFoundError: nothing is.
        OSError: it cannot be told.
    """
    files, before, path = _opened(url)
    with _as_os_errors():
        files.invalidate_cache()
        return _entry(files, files.info(path), before)


def content(url: str) -> bytes:
    """The bytes of a file.

    Raises:
        InputError: as :func:`canonical`.
        FileNotFoundError: there is none.
        OSError: it cannot be read.
    """
    files, _, path = _opened(url)
    with _as_os_errors():
        found: bytes = files.cat_file(path)
        return found


def has_folders(url: str) -> bool:
    """Whether the folders of this file system are more than parts of names."""
    return url.partition("://")[0].lower() not in _OBJECT_STORES


def listed(url: str, *, deep: bool = False) -> list[Entry]:
    """What is in a folder; ``deep``, all files below it.

    Raises:
        InputError: as :func:`canonical`.
        FileNotFoundError: there is no such folder.
        OSError: it cannot be listed.
    """
    files, before, path = _opened(url)
    with _as_os_errors():
        found = list(files.find(path, detail=True).values()) if deep else files.ls(path, detail=True)
        files.invalidate_cache()
        return [_entry(files, facts, before) for facts in found if facts["name"].rstrip("/") != path]


def put(url: str, content: bytes) -> None:
    """Stores a file, whole or not at all, with the folders above it.

    Raises:
        InputError: as :func:`canonical`.
        OSError: it cannot be stored.
    """
    files, _, path = _opened(url)
    with _as_os_errors():
        if not has_folders(url):
            files.pipe_file(path, content)
            return
        files.makedirs(posixpath.dirname(path), exist_ok=True)
        unfinished = f"{path}.{secrets.token_hex(8)}"
        try:
            files.pipe_file(unfinished, content)
            files.mv(unfinished, path)
        except BaseException:
            with suppress(OSError):
                files.rm_file(unfinished)
            raise


def delete(urls: Collection[str]) -> None:
    """Deletes files; those that are not there are no error.

    Raises:
        InputError: as :func:`canonical`.
        OSError: one cannot be deleted.
    """
    for url in urls:
        files, _, path = _opened(url)
        with _as_os_errors(), suppress(FileNotFoundError):
            files.rm_file(path)


def _opened(url: str) -> tuple[Any, str, str]:
    """A URL's file system; what stands before its names where these are URLs; and the name that is meant."""
    found = _URL.match(url)
    assert found is not None, url
    protocol, authority = found[1].lower(), found[2]
    if _WITHOUT_PASSWORD.fullmatch(authority) is None:
        raise InputError(
            f"{protocol}:// is followed by a bucket or a host and nothing else; a password or key is never part of a "
            "URL here: give credentials through the environment, as the driver of the file system reads them"
        )
    files = _driver(protocol)
    try:
        options = files._get_kwargs_from_urls(url)
        path: str = files._strip_protocol(url)
        opened = _connected(protocol, tuple(sorted(options.items())), os.getpid())
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"{url} cannot be used: {error}") from error
    if not path.strip("/") and protocol != "file":
        raise InputError(f"{url} names no bucket or folder: give one, as {protocol}://BUCKET/FOLDER")
    whole = url.rstrip("/")
    before = whole[: -len(path)] if whole.endswith(path) else opened.unstrip_protocol(path)[: -len(path)]
    return opened, before, path


def _driver(protocol: str) -> Any:
    import fsspec  # noqa: PLC0415 - only where something is at a URL

    try:
        return fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise InputError(
            f"no file system is known for {protocol}://: give a folder, s3://, gs:// or the like"
        ) from error
    except ImportError as error:
        raise InputError(f"{protocol}:// needs a driver: {error}") from error


@lru_cache(64)
def _connected(protocol: str, options: tuple[tuple[str, Any], ...], process: int) -> Any:  # noqa: ARG001 - the key
    """One connection for all threads of a process; a process that was forked off makes its own."""
    import fsspec  # noqa: PLC0415

    return fsspec.filesystem(protocol, skip_instance_cache=True, **dict(options))


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """What a driver raises, as an OSError."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error


def _entry(files: Any, facts: Mapping[str, Any], before: str) -> Entry:
    name = facts["name"].rstrip("/")
    kind = facts["type"]
    if facts.get("islink"):
        try:
            facts = files.info(name)
        except OSError:
            kind = "a link to a file that is gone"
        else:
            kind = LINKED_FOLDER if facts["type"] == "directory" else facts["type"]
    return Entry(
        before + name, "not a regular file" if kind == "other" else kind, facts.get("size") or 0, _changed(facts)
    )


def _changed(facts: Mapping[str, Any]) -> int:
    told = next((facts[name] for name in (*_TAGS, *_TIMES) if facts.get(name)), 0)
    if isinstance(told, datetime.datetime):
        told = told.timestamp()
    if isinstance(told, int | float):
        return int(told * 1e9)
    return int.from_bytes(hashlib.blake2b(str(told).encode(), digest_size=8).digest(), "big", signed=True)
