"""Pictures that are written, cut, replaced and deleted while a sync reads them."""

from __future__ import annotations

import os

from faults.campaign import Ground, must
from faults.commands import coocnet
from faults.looking import content_of, look
from faults.town import Town

_TRIES = 12


def pictures(ground: Ground) -> None:
    """A sync beside somebody who works in the same folder; then one in peace."""
    for _ in range(_TRIES):
        with ground.round() as place:
            town = Town(place / "photos", ground.chance)
            town.add(80)
            index, calm = place / "index.cooc", place / "calm.cooc"
            if ground.chance.random() < 0.5:
                coocnet("index", town.photos, "--index", index, "--recipe", ground.recipe).ends()
                town.add(60)
            run = coocnet("index", town.photos, "--index", index, "--recipe", ground.recipe)
            while not run.within(0.002):
                ground.tally[_meddled(ground, town)] += 1
            run.ends(0, 1)
            look(index, deeply=True)
            for path in town.photos.glob("*.half"):
                path.rename(path.with_suffix(".jpg"))
            coocnet("index", town.photos, "--index", index, "--recipe", ground.recipe).ends()
            coocnet("index", town.photos, "--index", calm, "--recipe", ground.recipe).ends()
            must(content_of(index) == content_of(calm), "the index differs from one made in peace")


def _meddled(ground: Ground, town: Town) -> str:
    present = sorted(town.photos.iterdir())
    what = ground.chance.choice(("written", "cut", "replaced", "deleted", "emptied", "made_a_folder"))
    path = ground.chance.choice(present) if present else town.photos / "first.jpg"
    if path.is_dir():
        path.rmdir()
    elif not path.exists():
        path.write_bytes(town.content())
    elif what == "written":  # in place, in two parts
        content = town.content()
        with open(path, "wb") as stream:
            stream.write(content[: len(content) // 2])
            stream.flush()
            stream.write(content[len(content) // 2 :])
    elif what == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif what == "emptied":
        os.truncate(path, 0)
    elif what == "replaced":
        other = path.with_suffix(".part")
        other.write_bytes(town.content())
        other.replace(path)
    elif what == "deleted":
        path.unlink()
        (town.photos / f"again{ground.chance.randrange(10**6)}.jpg").write_bytes(town.content())
    else:
        path.unlink()
        path.mkdir()
    return what
