"""A process that gets no more memory, at some moment of its work."""

from __future__ import annotations

import resource
from functools import partial
from pathlib import Path

from PIL import Image

from faults.campaign import Ground, must
from faults.commands import PATIENCE_S, Run, coocnet
from faults.looking import Content, content_of, look, rows_are_right

_TRIES = 16
_MEGABYTES = (5, 400)
_LARGE_PX = 4000
_ROUNDING = 1e-6
"""Where memory is wanting for the compiled loops, PyTorch computes the same to float32 rounding."""


def scarce(ground: Ground) -> None:
    """Syncs whose address space may grow by so many megabytes only, with pictures among others that need more."""
    town, calm = ground.town(), ground.folder / "calm.cooc"
    town.add(40)
    for number in range(3):
        _large(town.photos / f"large{number}.jpg", number)
    sync = ("index", town.photos, "--recipe", ground.recipe, "--index")
    coocnet(*sync, calm).ends()
    right = content_of(calm)
    for _ in range(_TRIES):
        with ground.round() as place:
            index = place / "index.cooc"
            run = coocnet(*sync, index, before=partial(_limited, ground.chance.randint(*_MEGABYTES)))
            _ended(ground, run)
            if (index / "index.sqlite").exists():
                left = look(index, deeply=True)
                must(rows_are_right(left, right, within=_ROUNDING), "a row is wrong")
                ground.count(computed_by_pytorch_instead=not rows_are_right(left, right))
                ground.count(with_part_of_the_work_stored=0 < len(left.content) < len(right))
            coocnet(*sync, index).ends()
            mended = look(index, deeply=True)
            must(
                _contents(mended.content) == _contents(right) and rows_are_right(mended, right, within=_ROUNDING),
                "the index differs from the undisturbed one",
            )


def _contents(content: Content) -> dict[str, bytes]:
    return {path: digest for path, (digest, _) in content.items()}


def _ended(ground: Ground, run: Run) -> None:
    """A process without memory may end however it can, but must end."""
    if not run.within(PATIENCE_S):
        run.kill()
        must(False, "a run without memory does not end")
    said = run.text
    ours = run.status == 1 and "Traceback" not in said
    ground.count(
        done=run.status == 0,
        said_so=ours,
        ended_by_a_library=run.status not in {0, 1} or (run.status == 1 and not ours),
    )
    must(run.status != 1 or "memory" in said.lower() or "alloc" in said.lower(), f"it says: {said}")


def _large(path: Path, number: int) -> None:
    picture = Image.linear_gradient("L").resize((_LARGE_PX, _LARGE_PX - number)).convert("RGB")
    picture.save(path, quality=50)


def _limited(megabytes: int) -> None:
    with open("/proc/self/statm") as stream:
        now = int(stream.read().split()[0]) * resource.getpagesize()
    most = now + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
