"""What is left of a training: the filter and a recipe for it, and a page with the curves, the gate, the windows."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import coocnet
from coocnet.document import Part, write_document
from coocnet.errors import InputError, printable
from coocnet.nn import pairs_that_moved, save_filter
from coocnet.output import written_whole
from coocnet.recipe import Recipe
from coocnet.train.judge import Trained
from coocnet.train.settings import Settings
from coocnet.viz.plots import draw_taps, pyplot

NAME = "report"


def facts_of(
    trained: Trained, recipe: Recipe, weights_sha256: str, sources: Sequence[str], pictures: str
) -> dict[str, str]:
    """What goes into a filter's file, and on the first table of the report.

    Args:
        trained: the training.
        recipe: that it was for.
        weights_sha256: of the network.
        sources: where the pictures to learn from came from; their last names are kept.
        pictures: how many of what, in words.
    """
    return {
        "gate": trained.verdict,
        "gate_judged": str(trained.gate),
        "backbone": recipe.backbone,
        "tap": recipe.tap,
        "weights_sha256": weights_sha256,
        "pooling": recipe.pooling,
        "recipe": recipe.replace(weights=os.path.basename(recipe.weights)).to_toml(),
        "learned_from": ", ".join(printable(os.path.basename(os.path.normpath(one))) for one in sources),
        "pictures": pictures,
        "epoch": str(trained.best_epoch),
        "parameters": str(trained.parameters),
        "coocnet": coocnet.__version__,
        "date": datetime.date.today().isoformat(),
    }


def write_filter(
    trained: Trained, settings: Settings, facts: Mapping[str, str], recipe: Recipe, target: Path
) -> Path | None:
    """Writes what was learned: under the name that was asked for, with a recipe beside it, only if it may be used.

    A filter that its gate refused goes to ``NAME.refused.safetensors``, and what an earlier training left under the
    name stays. Where no epoch was better than the direct filter there is nothing to write.

    Args:
        trained: the training.
        settings: how it was done.
        facts: what the file says of itself, as :func:`facts_of` gives it.
        recipe: that it was for.
        target: the file that was asked for.

    Returns:
        The file that was written; None for none.

    Raises:
        InputError: it cannot be written.
    """
    content = dict(facts) | {"settings": json.dumps(settings.table())}
    if trained.verdict == "unchanged":
        return None
    if trained.verdict == "refused":
        refused = target.with_suffix(".refused.safetensors")
        save_filter(trained.learned, refused, content)
        return refused
    save_filter(trained.learned, target, content)
    named = recipe.with_filter(target)
    beside = dataclasses.replace(named.cooccurrence, filter=target.name)
    with written_whole(target.with_suffix(".toml")) as unfinished:
        Path(unfinished).write_text(named.replace(name=target.stem, cooccurrence=beside).to_toml(), encoding="utf-8")
    return target


def write_report(trained: Trained, settings: Settings, facts: Mapping[str, str], folder: Path) -> None:
    """Writes ``report.md`` and ``report.html``, with curves where matplotlib is installed, and ``history.json``.

    Args:
        trained: the training.
        settings: how it was done.
        facts: as for :func:`write_filter`.
        folder: holds them.

    Raises:
        InputError: they cannot be written.
    """
    with written_whole(folder / "history.json") as unfinished:
        document = {"settings": settings.table(), "facts": dict(facts), "epochs": trained.history}
        Path(unfinished).write_text(json.dumps(document, indent=1), encoding="utf-8")
    told = {name: value for name, value in facts.items() if name != "recipe"}
    parts = [
        Part(
            f"A co-occurrence filter learned by coocnet {coocnet.__version__}",
            1,
            (f"The gate: {trained.verdict}, {trained.gate}.",),
        ),
        Part("What it was learned from", rows=(("", ""), *told.items())),
        Part("How", rows=(("setting", "value"), *((name, str(value)) for name, value in settings.table().items()))),
    ]
    try:
        _draw_curves(trained, folder / "curves.png")
        parts.append(Part("Curves", picture="curves.png"))
        shown = pairs_that_moved(trained.learned)
        draw_taps(
            {"": [trained.learned.taps(*pair).cpu().numpy() for pair in shown]},
            [f"{one} – {other}" for one, other in shown],
            folder / "filter.png",
        )
        said = ("The window of six pairs of channels that the filter has moved away from its start the most.",)
        parts.append(Part("The filter", 2, said, picture="filter.png"))
    except InputError as error:
        parts.append(Part("Curves", 2, (str(error),)))
    parts.append(Part("Epochs", rows=(_HEAD, *map(_line, trained.history))))
    write_document(parts, folder, NAME)


_HEAD = ("epoch", "mean loss", "held-out mAP, in use", "held-out mAP, raw", "moved", "seconds")


def _line(record: Mapping[str, float]) -> tuple[str, ...]:
    loss = f"{record['loss']:.4f}" if record["epoch"] else ""
    return (
        f"{record['epoch']:.0f}",
        loss,
        f"{100 * record['map']:.2f}",
        f"{100 * record['map_raw']:.2f}",
        f"{record['moved']:.4f}",
        f"{record['time_s']:.0f}",
    )


def _draw_curves(trained: Trained, target: Path) -> None:
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    epochs = [record["epoch"] for record in trained.history]
    left.plot(epochs[1:], [record["loss"] for record in trained.history[1:]], color="#b5541c")
    left.set(xlabel="epoch", ylabel="mean loss of its steps")
    for key, label, colour in (("map", "as in use", "#1f6fb2"), ("map_raw", "raw rows", "#8a8f99")):
        values: Sequence[float] = [100 * record[key] for record in trained.history]
        right.plot(epochs, values, color=colour, label=label)
        right.axhline(values[0], color=colour, linewidth=0.8, linestyle=":")
    right.axvline(trained.best_epoch, color="#3a3e47", linewidth=0.8)
    right.set(xlabel=f"epoch (kept: {trained.best_epoch}; dotted: the direct filter)", ylabel="held-out mAP, %")
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    with written_whole(target) as unfinished:
        figure.savefig(unfinished, dpi=120, format="png")
    plt.close(figure)
