"""Two and more who write at once, and others who read and repair beside them."""

from __future__ import annotations

from faults.campaign import Ground, must
from faults.commands import coocnet
from faults.looking import content_of
from faults.town import Town

_TRIES = 12


def together(ground: Ground) -> None:
    """Syncs of one index begun at the same time, beside searches and repairs: one writes, the others are told."""
    for _ in range(_TRIES):
        with ground.round() as place:
            town = Town(place / "photos", ground.chance)
            town.add(60)
            query = sorted(town.photos.iterdir())[0]
            index, calm = place / "index.cooc", place / "calm.cooc"
            if ground.chance.random() < 0.5:
                coocnet("index", town.photos, "--index", index, "--recipe", ground.recipe).ends()
                town.change(20)
                town.add(20)
            sync = ("index", town.photos, "--index", index, "--recipe", ground.recipe)
            others: list[tuple[object, ...]] = [
                ("search", query, "--index", index),
                ("info", "--index", index),
                ("repair", index),
                ("repair", index, "--check"),
                ("remove", query, "--index", index),
                sync,
            ]
            runs = [coocnet(*sync) for _ in range(ground.chance.randint(2, 3))]
            runs += [coocnet(*ground.chance.choice(others)) for _ in range(2)]
            for run in runs:
                said = run.ends(0, 1)
                told = ("another process", "no index", "taken out", "not in this collection", "in use")
                must(run.status == 0 or any(text in said for text in told), f"{run.what} says: {said}")
                ground.count(refused=run.status == 1, done=run.status == 0)
            coocnet(*sync).ends()
            if not any(run.what.startswith("coocnet remove") and run.status == 0 for run in runs):
                coocnet("index", town.photos, "--index", calm, "--recipe", ground.recipe).ends()
                must(content_of(index) == content_of(calm), "the index differs from one with a single writer")
            else:
                content_of(index)
