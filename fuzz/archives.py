"""Downloaded archives."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import warnings
import zipfile
import zlib
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from coocnet.data.benchmarks.unpack import unpack
from fuzz.target import Reads, Target

_MOST_BYTES = 1 << 27
_FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def _tar(members: list[tuple[str, bytes, bytes, str]], form: int, packed: bool) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, content, kind, target in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname, info.mode = len(content), kind, target, 0o6777
            try:
                tar.addfile(info, io.BytesIO(content))
            except (ValueError, UnicodeError):
                continue
    return gzip.compress(out.getvalue(), 1, mtime=0) if packed else out.getvalue()


def _zip(members: list[tuple[str, bytes, int]], method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names that are there twice
        for name, content, mode in members:
            info = zipfile.ZipInfo(name[:60] or "x")
            info.external_attr, info.compress_type = mode << 16, method
            try:
                made.writestr(info, content)
            except (ValueError, UnicodeError):
                continue
    return out.getvalue()


@cache
def seeds() -> list[bytes]:
    """Small archives of every kind that is unpacked."""
    members = [("jpg/1.jpg", b"one" * 9, b"0", ""), ("jpg", b"", b"5", ""), ("n" * 120 + "/é.txt", b"", b"0", "")]
    tars = [_tar(members, form, packed) for form in _FORMS for packed in (False, True)]
    zipped = [("jpg/1.jpg", b"one" * 9, 0o100644), ("jpg/", b"", 0o40755), ("é.txt", b"x", 0)]
    return [*tars, *(_zip(zipped, method) for method in _METHODS)]


def resealed(data: bytes) -> bytes:
    """Tar headers whose checksums fit; a compressed one is changed within."""
    if data[:2] == b"\x1f\x8b":
        try:
            return gzip.compress(resealed(_changed(gzip.decompress(data[:65536])[:65536])), 1, mtime=0)
        except Exception:
            return data
    made = bytearray(data)
    for at in range(0, len(made) - 511, 512):
        block = made[at : at + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            made[at + 148 : at + 156] = f"{sum(block):06o}\0 ".encode()
    return bytes(made)


def _changed(data: bytes) -> bytes:
    made, at = bytearray(data), zlib.crc32(data)
    for shift in range(at % 3 + 1):
        made[(at >> 4 * shift) % min(2048, len(made))] = at >> 8 * shift & 0xFF
    return bytes(made)


def _prepared(folder: Path) -> Reads:
    inside = folder / "inside"
    target = inside / "unpacked"

    def reads(data: bytes) -> None:
        at = zlib.crc32(data)
        if not data.startswith(b"PK") and at & 3:
            data = resealed(data)
        name = "a.zip" if data.startswith(b"PK") else "a.tgz" if data[:2] == b"\x1f\x8b" else "a.tar"
        (folder / name).write_bytes(data)
        inside.mkdir(exist_ok=True)
        try:
            count = unpack(folder / name, target)
            files = [path for path in target.rglob("*") if not path.is_dir()]
            assert len(files) == count
            assert all(path.is_file() and not path.is_symlink() for path in files)
            assert sum(path.stat().st_size for path in files) <= _MOST_BYTES
            assert all(path.stat().st_mode & 0o7000 == 0 for path in files)
        finally:
            assert {path.name for path in inside.iterdir()} <= {"unpacked", "unpacked.unfinished"}
            assert {path.name for path in folder.iterdir()} <= {"inside", "a.zip", "a.tgz", "a.tar"}
            shutil.rmtree(inside)

    return reads


_names = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "a",
            "a/b",
            "../x",
            "/x",
            "a/../../x",
            "..",
            ".",
            "",
            "C:x",
            "a\\..\\x",
            "a//b",
            "A",
            "é",
            "e\u0301",
            "x" * 300,
        ]
    ),
)
_contents = st.one_of(st.binary(max_size=40), st.integers(0, 2000).map(bytes))
_kinds = st.sampled_from([bytes([kind]) for kind in b"01234567SLKxgVDM?\0"])
_tars = st.builds(
    _tar,
    st.lists(st.tuples(_names, _contents, _kinds, _names), max_size=5),
    st.sampled_from(_FORMS),
    st.booleans(),
)
_modes = st.sampled_from([0, 0o100644, 0o40755, 0o120777, 0o60666, 0o104777])
_zips = st.builds(_zip, st.lists(st.tuples(_names, _contents, _modes), max_size=5), st.sampled_from(_METHODS))
ARCHIVES = Target(
    "archives (tar, gzip, zip)", _prepared, seeds, st.one_of(_tars, _zips), time_s=5, longest_bytes=1 << 16
)
