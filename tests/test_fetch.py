"""Downloads, against a real server on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from coocnet.errors import FetchError, InputError
from coocnet.fetch import fetch, sha256_of
from serving import CONTENT, Mirror, Server

SHA256 = hashlib.sha256(CONTENT).hexdigest()
ATTEMPTS = 3


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def mirror(server: Server) -> Mirror:
    return server.mirror()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.bin"


def failure(urls: list[str], target: Path, **options: object) -> str:
    with pytest.raises(FetchError) as caught:
        fetch(urls, target, pause_s=0, **options)
    return str(caught.value)


# ---- arriving ----


def test_a_file_arrives_whole(mirror: Mirror, target: Path) -> None:
    assert fetch([mirror.url], target, sha256=SHA256, pause_s=0) == target
    assert target.read_bytes() == CONTENT
    assert mirror.requests == [None]
    assert {path.name for path in target.parent.iterdir()} <= {"file.bin", "file.bin.lock"}


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    assert sha256_of(tmp_path / "a") == SHA256


@pytest.mark.parametrize("digits", [8, 63, 64])
def test_the_leading_digits_of_a_checksum_are_enough(mirror: Mirror, target: Path, digits: int) -> None:
    fetch([mirror.url], target, sha256=SHA256[:digits], pause_s=0)
    assert target.read_bytes() == CONTENT


def test_a_file_that_is_there_and_agrees_is_not_fetched_again(mirror: Mirror, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    for sha256 in (SHA256, SHA256[:8], None):
        assert fetch([mirror.url], target, sha256=sha256) == target
    assert mirror.requests == []


def test_a_file_that_is_there_and_disagrees_is_replaced(mirror: Mirror, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    fetch([mirror.url], target, sha256=SHA256, pause_s=0)
    assert target.read_bytes() == CONTENT


def test_progress_only_grows_and_ends_with_the_whole(mirror: Mirror, target: Path) -> None:
    mirror.cuts = [400_000]
    seen: list[tuple[int, int | None]] = []
    fetch([mirror.url], target, progress=lambda done, total: seen.append((done, total)), pause_s=0)
    done = [step[0] for step in seen]
    assert len(done) > 2
    assert done == sorted(set(done))
    assert {step[1] for step in seen} == {len(CONTENT)}
    assert done[-1] == len(CONTENT)


# ---- resuming ----


@pytest.mark.parametrize("validator", [("ETag", '"one"'), ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")])
def test_a_cut_download_goes_on_where_it_stopped(mirror: Mirror, target: Path, validator: tuple[str, str]) -> None:
    mirror.validator = validator
    mirror.cuts = [300_000, 100_000]
    fetch([mirror.url], target, sha256=SHA256, pause_s=0)
    assert target.read_bytes() == CONTENT
    assert mirror.requests == [None, "bytes=300000-", "bytes=400000-"]
    assert mirror.bytes_served == len(CONTENT)


def test_a_reset_connection_is_tried_again(mirror: Mirror, target: Path) -> None:
    mirror.cuts, mirror.reset = [300_000], True
    fetch([mirror.url], target, sha256=SHA256, pause_s=0)
    assert target.read_bytes() == CONTENT
    assert len(mirror.requests) == 2


def test_a_later_call_goes_on_where_the_first_stopped(mirror: Mirror, target: Path) -> None:
    mirror.cuts = [100_000] * ATTEMPTS
    failure([mirror.url], target, sha256=SHA256)
    assert not target.exists()
    fetch([mirror.url], target, sha256=SHA256, pause_s=0)
    assert target.read_bytes() == CONTENT
    assert mirror.requests[-1] == "bytes=300000-"
    assert mirror.bytes_served == len(CONTENT)


@pytest.mark.parametrize("validator", [None, ("ETag", 'W/"weak"')])
def test_nothing_is_resumed_without_a_strong_validator(
    mirror: Mirror, target: Path, validator: tuple[str, str] | None
) -> None:
    mirror.validator, mirror.cuts = validator, [300_000]
    fetch([mirror.url], target, sha256=SHA256, pause_s=0)
    assert target.read_bytes() == CONTENT
    assert mirror.requests == [None, None]


@pytest.mark.parametrize(
    "knows_if_range",
    [
        True,
        pytest.param(
            False,
        ),
    ],
)
def test_a_file_that_changed_meanwhile_starts_over(mirror: Mirror, target: Path, knows_if_range: bool) -> None:
    mirror.if_range = knows_if_range
    mirror.cuts = [100_000] * ATTEMPTS
    failure([mirror.url], target)
    mirror.content, mirror.validator = CONTENT[::-1], ("ETag", '"two"')
    fetch([mirror.url], target, pause_s=0)
    assert target.read_bytes() == CONTENT[::-1]


def test_a_server_that_ignores_ranges_starts_over(mirror: Mirror, target: Path) -> None:
    mirror.ranges, mirror.cuts = False, [300_000]
    fetch([mirror.url], target, sha256=SHA256, pause_s=0)
    assert target.read_bytes() == CONTENT
    assert mirror.requests == [None, "bytes=300000-"]


def test_a_server_that_resumes_elsewhere_is_not_believed(mirror: Mirror, target: Path) -> None:
    mirror.range_starts_at, mirror.cuts = 299_999, [300_000]
    assert "resumed at another place" in failure([mirror.url], target)
    assert not target.exists()


def test_a_range_that_cannot_be_had_starts_over(mirror: Mirror, target: Path) -> None:
    mirror.cuts = [200_000] * ATTEMPTS
    failure([mirror.url], target)
    mirror.statuses = [416]
    fetch([mirror.url], target, sha256=SHA256, pause_s=0)
    assert target.read_bytes() == CONTENT
    assert mirror.requests[-2:] == ["bytes=600000-", None]


def test_another_mirror_does_not_resume_what_the_first_began(server: Server, target: Path) -> None:
    first, second = server.mirror("first"), server.mirror("second")
    first.cuts, second.content = [100_000] * ATTEMPTS, CONTENT[::-1]
    fetch([first.url, second.url], target, pause_s=0)
    assert target.read_bytes() == CONTENT[::-1]
    assert second.requests == [None]


# ---- failing ----


def test_a_server_error_is_tried_again(mirror: Mirror, target: Path) -> None:
    mirror.statuses = [500, 503]
    fetch([mirror.url], target, sha256=SHA256, pause_s=0)
    assert target.read_bytes() == CONTENT


def test_what_is_not_found_is_sought_at_the_next_mirror_at_once(server: Server, target: Path) -> None:
    first, second = server.mirror("first"), server.mirror("second")
    first.statuses = [404] * ATTEMPTS
    fetch([first.url, second.url], target, sha256=SHA256, pause_s=0)
    assert target.read_bytes() == CONTENT
    assert (len(first.requests), len(second.requests)) == (1, 1)


def test_a_wrong_checksum_sends_to_the_next_mirror(server: Server, target: Path) -> None:
    first, second = server.mirror("first"), server.mirror("second")
    first.content = CONTENT[:-1] + b"x"
    fetch([first.url, second.url], target, sha256=SHA256, pause_s=0)
    assert target.read_bytes() == CONTENT
    assert first.requests
    assert second.requests == [None]


def test_a_wrong_checksum_leaves_nothing_under_the_name(mirror: Mirror, target: Path) -> None:
    wrong = "0" * 64
    message = failure([mirror.url], target, sha256=wrong)
    assert f"the file has SHA-256 {SHA256}, expected {wrong}" in message
    assert not target.exists()
    assert not target.with_name("file.bin.part").exists()


def test_a_failed_replacement_leaves_the_old_file(mirror: Mirror, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    mirror.statuses = [404]
    failure([mirror.url], target, sha256=SHA256)
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("stated_length", ["768001", "767999"])
def test_a_wrong_length_never_gives_a_file(mirror: Mirror, target: Path, stated_length: str) -> None:
    mirror.stated_length = stated_length
    failure([mirror.url], target, sha256=SHA256)
    assert not target.exists()


def test_a_length_above_the_truth_is_noticed_without_a_checksum(mirror: Mirror, target: Path) -> None:
    mirror.stated_length = "768001"
    failure([mirror.url], target)
    assert not target.exists()


def test_a_length_that_is_no_number_is_the_mirrors_failure(mirror: Mirror, target: Path) -> None:
    mirror.stated_length = "many"
    with suppress(FetchError):
        fetch([mirror.url], target, sha256=SHA256, pause_s=0)


def test_when_all_mirrors_fail_each_is_listed_with_its_reason(server: Server, target: Path) -> None:
    gone, busy, wrong = (server.mirror(name) for name in ("gone", "busy", "wrong"))
    gone.statuses, busy.statuses, wrong.content = [404], [503] * ATTEMPTS, b"other"
    closed = "http://127.0.0.1:1/closed"
    message = failure([gone.url, busy.url, closed, wrong.url], target, sha256=SHA256)
    lines = message.splitlines()
    assert lines[0] == "file.bin could not be downloaded:"
    reasons = ["HTTP 404", "HTTP 503", "refused", "SHA-256"]
    for line, url, reason in zip(lines[1:], [gone.url, busy.url, closed, wrong.url], reasons, strict=True):
        assert url in line
        assert reason in line
    assert (len(gone.requests), len(busy.requests)) == (1, ATTEMPTS)
    assert not target.exists()


def test_a_destination_below_a_file_cannot_be_written(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "file.bin"
    assert f"{target} cannot be written: " in failure([mirror.url], target)


def test_a_destination_that_is_a_folder_cannot_be_written(mirror: Mirror, tmp_path: Path) -> None:
    assert f"{tmp_path} cannot be written: " in failure([mirror.url], tmp_path)


# ---- what is fetched at all ----


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "weights.pth", "data:,x"])
def test_only_http_is_fetched(mirror: Mirror, target: Path, url: str) -> None:
    with pytest.raises(InputError) as caught:
        fetch([mirror.url, url], target)
    assert str(caught.value) == f"only http and https URLs are fetched, written in ASCII, got {url!r}"
    assert mirror.requests == []
    assert not target.parent.exists()


def test_no_url_at_all_is_refused(target: Path) -> None:
    with pytest.raises(InputError, match="no URL"):
        fetch([], target)


@pytest.mark.parametrize("url", ["http://[broken/x", "http://127.0.0.1:1/größe"])
def test_a_url_that_cannot_be_asked_for_is_quoted(target: Path, url: str) -> None:
    with pytest.raises((InputError, FetchError), match=re.escape(url)):
        fetch([url], target, pause_s=0)


def test_a_redirection_is_followed(server: Server, target: Path) -> None:
    first, second = server.mirror("first"), server.mirror("second")
    first.location = second.url
    fetch([first.url], target, sha256=SHA256, pause_s=0)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "scheme",
    ["file", "ftp"],
)
def test_a_redirection_away_from_http_is_refused(mirror: Mirror, target: Path, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    mirror.location = f"{scheme}://127.0.0.1:1{quote(str(tmp_path / 'secret'))}"
    assert "not allowed" in failure([mirror.url], target)
    assert not target.exists()


# ---- two at once ----

FETCH_IN_A_PROCESS = """
import sys
from coocnet.fetch import fetch
url, target, sha256 = sys.argv[1:]
print("ready", flush=True)
fetch([url], target, sha256=sha256, pause_s=0)
"""


def test_of_two_threads_one_downloads(mirror: Mirror, target: Path) -> None:
    mirror.may_answer.clear()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetch, [mirror.url], target, sha256=SHA256, pause_s=0) for _ in range(2)]
        assert mirror.asked.wait(20)
        time.sleep(0.2)  # long enough for the other to ask too, if it did not wait
        mirror.may_answer.set()
        assert [each.result(20) for each in both] == [target, target]
    assert target.read_bytes() == CONTENT
    assert mirror.requests == [None]


def test_of_two_processes_one_downloads(mirror: Mirror, target: Path) -> None:
    mirror.may_answer.clear()
    command = [sys.executable, "-c", FETCH_IN_A_PROCESS, mirror.url, str(target), SHA256]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    assert mirror.asked.wait(20)
    time.sleep(0.2)  # long enough for the other to ask too, if it did not wait
    mirror.may_answer.set()
    for process in both:
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert target.read_bytes() == CONTENT
    assert mirror.requests == [None]
