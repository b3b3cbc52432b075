"""Archives of strangers: what is in them arrives whole, and nothing of them lands anywhere else."""

from __future__ import annotations

import gzip
import io
import random
import shutil
import stat
import tarfile
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from coocnet.data.benchmarks import unpack as module
from coocnet.data.benchmarks.unpack import unpack
from coocnet.errors import ArchiveError, BenchmarkError

FILES = {"jpg/100000.jpg": b"one" * 700, "jpg/deep/er/100001.jpg": b"", "readme.txt": b"words"}


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def zip_of(path: Path, files: dict[str, bytes], mode: int = 0, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = compression
            archive.writestr(info, content)
    return path


def archive_of(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        return zip_of(path, files)
    return tar_of(path, *(member(name, content) for name, content in files.items()))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(archive: Path, folder: Path) -> str:
    """The message of an archive that is not unpacked, after a look that nothing of it stayed, nor changed, around."""
    around = folder.parents[1]
    before = tree(around)
    with pytest.raises(ArchiveError, match=archive.name) as caught:
        unpack(archive, folder)
    assert tree(around) == before
    assert not list(folder.parent.glob("*"))
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "here"


@pytest.mark.parametrize("name", ["a.tgz", "a.tar.gz", "a.tar", "a.zip"])
def test_what_is_in_an_archive_arrives_whole(name: str, tmp_path: Path, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    archive = archive_of(tmp_path / name, FILES)
    assert unpack(archive, folder, progress=lambda done, of: told.append((done, of))) == len(FILES)
    assert tree(folder) == FILES
    assert told == sorted(told)
    assert {of for _, of in told} == {archive.stat().st_size}
    assert [path.name for path in folder.parent.iterdir()] == ["here"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_arrive_in_every_form_of_tar(form: int, tmp_path: Path, folder: Path) -> None:
    name = "/".join(["folder" * 7] * 3) + "/" + "n" * 90 + ".jpg"
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        tar.addfile(member(name, b"x")[0], io.BytesIO(b"x"))
    unpack(tmp_path / "a.tar", folder)
    assert tree(folder) == {name: b"x"}


ESCAPES = ["../out.jpg", "jpg/../../out.jpg", "/tmp/out.jpg", "..", "jpg\\..\\..\\out.jpg", "C:out.jpg", "C:/out.jpg"]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("kind", ["a.tgz", "a.zip"])
def test_a_path_that_leads_out_is_refused(name: str, kind: str, tmp_path: Path, folder: Path) -> None:
    archive = archive_of(tmp_path / kind, {"good.jpg": b"good", name: b"bad"})
    assert "leads out" in refusal(archive, folder)


def test_a_folder_that_leads_out_is_refused(tmp_path: Path, folder: Path) -> None:
    assert "leads out" in refusal(tar_of(tmp_path / "a.tgz", member("../out", type=tarfile.DIRTYPE)), folder)
    assert "leads out" in refusal(zip_of(tmp_path / "a.zip", {"../out/": b""}), folder)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_what_is_no_file_is_refused(kind: bytes, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    link = member("link", type=kind, linkname="../../secret")
    through = member("link/out.jpg", b"bad")
    assert "not a regular file" in refusal(tar_of(tmp_path / "a.tgz", link, through), folder)


def test_a_link_in_a_zip_is_refused(tmp_path: Path, folder: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"link": b"../../secret"}, mode=stat.S_IFLNK | 0o777)
    assert "not a regular file" in refusal(archive, folder)


def test_modes_are_not_honoured(tmp_path: Path, folder: Path) -> None:
    unpack(tar_of(tmp_path / "a.tgz", member("a.jpg", b"a", mode=0o4777)), folder)
    assert not (folder / "a.jpg").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


@pytest.mark.parametrize("kind", ["a.tgz", "a.zip"])
def test_an_archive_that_grows_without_bound_is_refused(
    kind: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GROWTH_FREE_BYTES", 1 << 20)
    archive = archive_of(tmp_path / kind, {f"{n}.jpg": bytes(1 << 20) for n in range(2)})
    assert archive.stat().st_size < 1 << 14
    assert "grows to more than" in refusal(archive, folder)


def test_what_follows_the_end_of_a_tar_is_bounded_too(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GROWTH_FREE_BYTES", 1 << 20)
    tar = tar_of(tmp_path / "a.tar", member("a.jpg", b"a")).read_bytes()
    (tmp_path / "a.tgz").write_bytes(gzip.compress(tar + bytes(4 << 20)))
    assert "grows to more than" in refusal(tmp_path / "a.tgz", folder)


def test_a_huge_file_is_refused_before_it_is_written(tmp_path: Path, folder: Path) -> None:
    info = tarfile.TarInfo("huge.jpg")
    info.size = 1 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(1024))
    assert "larger than 512 MiB" in refusal(tmp_path / "a.tar", folder)


def test_a_header_of_absurd_size_is_refused(tmp_path: Path, folder: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "absurd size" in refusal(tmp_path / "a.tar", folder)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["a.tgz", "a.zip"])
def test_a_name_that_is_there_twice_is_refused(kind: str, tmp_path: Path, folder: Path) -> None:
    if kind == "a.zip":
        archive = tmp_path / kind
        with zipfile.ZipFile(archive, "w") as twice:
            twice.writestr("a.jpg", b"1")
            twice.writestr("a.jpg", b"2")
    else:
        archive = tar_of(tmp_path / kind, member("a.jpg", b"1"), member("a.jpg", b"2"))
    assert "twice" in refusal(archive, folder)


@pytest.mark.parametrize("name", ["a\n.jpg", "\x1b[31m.jpg", "n" * 300 + ".jpg", "/".join("abcdefghijklmnopqr")])
def test_names_that_no_picture_has_are_refused(name: str, tmp_path: Path, folder: Path) -> None:
    said = refusal(tar_of(tmp_path / "a.tgz", member(name, b"1")), folder)
    assert "no name that a picture has" in said
    assert said.isprintable()


def test_more_files_than_any_benchmark_has_are_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_FILES", 2)
    assert "more than 2 files" in refusal(archive_of(tmp_path / "a.tgz", FILES), folder)


@pytest.mark.parametrize("kind", ["a.tgz", "a.zip", "a.tar"])
@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda _: b"<html>gone</html>", id="web page"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: random.Random(1).randbytes(4096), id="noise"),
    ],
)
def test_a_damaged_archive_is_named(
    kind: str, damaged: Callable[[bytes], bytes], tmp_path: Path, folder: Path
) -> None:
    archive = archive_of(tmp_path / kind, {"a.jpg": random.Random(0).randbytes(100_000)})
    archive.write_bytes(damaged(archive.read_bytes()))
    said = refusal(archive, folder)
    assert "damaged" in said
    assert ("web page" in said) == (damaged(b"") == b"<html>gone</html>")


@pytest.mark.parametrize("kind", ["a.tgz", "a.zip"])
def test_flipped_bytes_are_noticed_or_harmless(kind: str, tmp_path: Path, folder: Path) -> None:
    files = {f"{n}.jpg": random.Random(n).randbytes(2000) for n in range(4)}
    archive = archive_of(tmp_path / kind, files)
    content = archive.read_bytes()
    for seed in range(60):
        flipped = bytearray(content)
        flipped[random.Random(seed).randrange(len(content))] ^= 1 << seed % 8
        archive.write_bytes(flipped)
        try:
            unpack(archive, folder)
        except ArchiveError:
            assert not folder.exists()
        else:
            assert set(tree(folder).values()) <= set(files.values())
            shutil.rmtree(folder)


def test_what_an_interruption_left_is_begun_anew(tmp_path: Path, folder: Path) -> None:
    left = folder.with_name("here.unfinished")
    left.mkdir()
    (left / "half.jpg").write_bytes(b"half")
    unpack(archive_of(tmp_path / "a.tgz", FILES), folder)
    assert tree(folder) == FILES
    assert not left.exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(BenchmarkError, match="is there already"):
        unpack(archive_of(tmp_path / "a.tgz", FILES), folder)
    assert tree(folder) == {"mine.jpg": b"mine"}


def test_a_disk_that_is_nearly_full_is_said(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 30, (1 << 30) - 100, 100))
    with pytest.raises(BenchmarkError, match="nearly full"):
        unpack(archive_of(tmp_path / "a.tgz", FILES), folder)


def test_another_kind_of_archive_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    assert ".tar.gz, .tgz, .tar, .zip" in refusal(tmp_path / "a.rar", folder)
