"""Ways in which bytes are no longer those that were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faults.campaign import Ground
from faults.looking import DATABASE

_PAGE = 4096


def _write(path: Path, at: int, content: bytes) -> None:
    with open(path, "rb+") as stream:
        stream.seek(at)
        stream.write(content)


def _somewhere(ground: Ground, path: Path, unit: int = 1) -> int:
    return unit * ground.chance.randrange(max(1, path.stat().st_size // unit))


def _bytes(ground: Ground, path: Path) -> None:
    for _ in range(ground.chance.choice((1, 1, 3, 20))):
        _write(path, _somewhere(ground, path), ground.chance.randbytes(ground.chance.choice((1, 4, 16, 64))))


def _bits(ground: Ground, path: Path) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(ground.chance.choice((1, 5, 50))):
        content[ground.chance.randrange(len(content))] ^= 1 << ground.chance.randrange(8)
    path.write_bytes(content)


def _zeros(ground: Ground, path: Path) -> None:
    for _ in range(ground.chance.choice((1, 1, 5))):
        _write(path, _somewhere(ground, path, _PAGE), bytes(_PAGE))


def _noise(ground: Ground, path: Path) -> None:
    for _ in range(ground.chance.choice((1, 1, 5))):
        _write(path, _somewhere(ground, path, _PAGE), ground.chance.randbytes(_PAGE))


def _swapped(ground: Ground, path: Path) -> None:
    one, other = (_somewhere(ground, path, _PAGE) for _ in range(2))
    content = path.read_bytes()
    _write(path, one, content[other : other + _PAGE])
    _write(path, other, content[one : one + _PAGE])


def _cut(ground: Ground, path: Path) -> None:
    with open(path, "rb+") as stream:
        stream.truncate(_somewhere(ground, path))


def _head(ground: Ground, path: Path) -> None:
    _write(path, ground.chance.randrange(100), ground.chance.randbytes(ground.chance.choice((1, 8, 100))))


def _early(ground: Ground, path: Path) -> None:
    """Zeroes one of the first pages, where the facts and the roots of all tables are."""
    _write(path, _PAGE * ground.chance.randrange(16), bytes(_PAGE))


HOW: dict[str, Callable[[Ground, Path], None]] = {
    "bytes": _bytes,
    "bits": _bits,
    "zeros": _zeros,
    "noise": _noise,
    "swapped": _swapped,
    "cut": _cut,
    "head": _head,
    "early": _early,
}
"""What is done to a file."""


def _database(how: str) -> Callable[[Ground, Path], None]:
    return lambda ground, index: HOW[how](ground, index / DATABASE)


def _derived(ground: Ground, index: Path) -> None:
    files = sorted(file for file in index.iterdir() if file.name.startswith(("gallery", "approx", "neighbours")))
    for file in ground.chance.sample(files, ground.chance.randint(1, len(files))):
        HOW[ground.chance.choice(list(HOW))](ground, file)


def _exchanged(ground: Ground, index: Path) -> None:
    """Two of the derived files change their places."""
    files = sorted(file for file in index.iterdir() if file.name.startswith(("gallery", "approx", "neighbours")))
    one, other = ground.chance.sample(files, 2)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _emptied(ground: Ground, index: Path) -> None:
    del ground
    (index / DATABASE).write_bytes(b"")


def _deleted(ground: Ground, index: Path) -> None:
    del ground
    (index / DATABASE).unlink()


OF_DATABASE: dict[str, Callable[[Ground, Path], None]] = {f"database, {how}": _database(how) for how in HOW}
GONE: dict[str, Callable[[Ground, Path], None]] = {"database, emptied": _emptied, "database, deleted": _deleted}
DAMAGES: dict[str, Callable[[Ground, Path], None]] = {
    **OF_DATABASE,
    **GONE,
    "derived": _derived,
    "derived, exchanged": _exchanged,
}
"""What is done to an index."""
