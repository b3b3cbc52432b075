"""The paper's figures that show data: drawn from whatever pictures of the benchmarks are here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from coocnet import ops, viz
from coocnet.backbones import lookup
from coocnet.data.benchmarks import OpenedBenchmark
from coocnet.describe import Describer
from coocnet.errors import CoocnetError, InputError, printable
from coocnet.nn import CooccurrenceFilter, pairs_that_moved
from coocnet.output import written_whole
from coocnet.poolings import learned_cooccurrence, map_cooccurrence, recipe_filter
from coocnet.recipe import Recipe
from coocnet.reproduce.published import Table
from coocnet.reproduce.tables import NEEDS_FILTER, Bench, Outcome
from coocnet.viz.plots import draw_taps, pyplot

_DRAWN = "paper-chco-sct"
_MAPS_SHOWN = 6
_FILTER_PAIRS = ((5, 5), (12, 8), (5, 9), (1, 9))


class Figure(NamedTuple):
    """A figure that was drawn, or the reason why not.

    Attributes:
        title: what it shows.
        file: its name in the report's folder; empty where it could not be drawn.
        said: what it says, or what is missing.
    """

    title: str
    file: str
    said: str


def figure2(bench: Bench, folder: Path) -> list[Figure]:
    """Correlation of the co-occurrence vectors of the queries, sorted by landmark: figure 2."""
    found = []
    for name in ("oxford5k", "paris6k"):
        title = f"Figure 2, {name}: correlation of the co-occurrence vectors of the queries"
        try:
            benchmark, describer = bench.world.benchmark(name), _describer(bench)
            order = sorted(range(len(benchmark.queries)), key=lambda at: _landmark(benchmark, at))
            paths = dict.fromkeys(benchmark.queries[at][0] for at in order)
            vectors = [cooccurrence_vector(describer, path, upright=benchmark.source.upright) for path in paths]
            landmarks = [_landmark(benchmark, at) for at in order]
            if len(vectors) != len(landmarks):  # several queries on one picture
                vectors = [vectors[list(paths).index(benchmark.queries[at][0])] for at in order]
            file = f"figure2-{name}.png"
            names = [benchmark.queries[at][0].stem.rpartition("_")[0] for at in order]
            within, across = _draw_correlation(np.array(vectors), landmarks, names, folder / file)
        except CoocnetError as error:
            found.append(Figure(title, "", str(error)))
            continue
        same = "no two of one landmark" if np.isnan(within) else f"{within:.2f} within a landmark"
        said = f"{len(vectors)} queries. Mean correlation: {same}, {across:.2f} across."
        found.append(Figure(title, file, said))
    return found


def figure5(bench: Bench, folder: Path) -> list[Figure]:
    """Spatial weights α of equation 9 over queries of Oxford: figure 5."""
    return _maps(bench, folder, "figure5", "Figure 5: spatial weights α of eq. 9", {"map": _spatial})


def figure7(bench: Bench, folder: Path) -> list[Figure]:
    """The filters of four pairs of channels, direct and learned, and of those that learning moved most: figure 7."""
    title = "Figure 7: co-occurrence filters of four pairs of channels"
    direct = "The direct filter: 1 between two channels, 0 within one."
    try:
        if bench.filter is None:
            _draw_windows(None, _FILTER_PAIRS, folder / "figure7.png")
            said = f"{direct} The learned ones of the paper's figure are missing: {NEEDS_FILTER}."
            return [Figure(title, "figure7.png", said)]
        learned = _learned(bench, torch.device("cpu"))
        moved = pairs_that_moved(learned)
        _draw_windows(learned, _FILTER_PAIRS, folder / "figure7.png")
        _draw_windows(learned, moved, folder / "figure7-moved.png")
    except CoocnetError as error:
        return [Figure(title, "", str(error))]
    far = float(learned.distances_from_direct()[moved[0]])
    said = f"The windows that learning moved the farthest from the direct filter, the first of them by {far:.3g}."
    return [
        Figure(title, "figure7.png", f"{direct} Under each, the learned one and its range."),
        Figure("Figure 7: the pairs of channels that moved most", "figure7-moved.png", said),
    ]


def figure8(bench: Bench, folder: Path) -> list[Figure]:
    """Co-occurrence, summed over channels, over queries, the learned one beside the direct one: figure 8."""
    title = "Figure 8: co-occurrence, sum over channels"
    if bench.filter is None:
        made = _maps(bench, folder, "figure8", title, {"map": _summed})
        return [
            one._replace(said=f"{one.said} The learned co-occurrence beside it is missing: {NEEDS_FILTER}.")
            for one in made
        ]
    try:
        learned = _learned(bench, _describer(bench).device)
    except CoocnetError as error:
        return [Figure(title, "", str(error))]
    drawn = {"direct": _summed, "learned": lambda a, recipe: _sum_of(learned_cooccurrence(a, recipe, learned))}
    return _maps(bench, folder, "figure8", title, drawn)


FIGURES: dict[str, Callable[[Bench, Path], list[Figure]]] = {
    "figure2": figure2,
    "figure5": figure5,
    "figure7": figure7,
    "figure8": figure8,
}
"""The figures by name."""


def cooccurrence_vector(describer: Describer, path: Path, *, upright: bool = False) -> Float[np.ndarray, " d"]:
    """CV(k) = Σ_ij CT(i, j, k) of a whole picture: equation 4 of Forcén et al. 2020.

    Raises:
        ImageError: it cannot be described.
    """
    ct = map_cooccurrence(describer.map_of(describer.load(path, upright=upright).pixels), describer.recipe)
    vector: np.ndarray = ct[0].double().sum((1, 2)).cpu().numpy()
    return vector


def agreement(name: str, table: Table, outcomes: Sequence[Outcome], folder: Path) -> Figure:
    """Published against ours, a point for each figure of a table."""
    title = f"{name}: published and ours"
    points = [
        (of, setup, value, ours)
        for outcome in outcomes
        for (of, setup), value in zip(table.columns, outcome.row.published, strict=True)
        if of == outcome.benchmark and value is not None and (ours := outcome.measured(setup)) is not None
    ]
    if not points:
        return Figure(title, "", "nothing was measured")
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(5.2, 5), constrained_layout=True)
    axis.plot([0, 100], [0, 100], color="#999999", linewidth=1)
    for column in dict.fromkeys((of, setup) for of, setup, _, _ in points):
        here = [(value, ours) for of, setup, value, ours in points if (of, setup) == column]
        axis.scatter(*zip(*here, strict=True), s=26, label=" ".join(column).strip())
    axis.set(xlim=(0, 100), ylim=(0, 100), xlabel="published mAP, %", ylabel="ours, %", aspect="equal")
    axis.legend(fontsize=8, loc="upper left")
    _save(figure, folder / f"{name}.png")
    return Figure(title, f"{name}.png", f"{len(points)} figures; on the line they agree.")


def _maps(
    bench: Bench,
    folder: Path,
    file: str,
    title: str,
    drawn: Mapping[str, Callable[[torch.Tensor, Recipe], np.ndarray]],
) -> list[Figure]:
    """Photographs of queries, each with maps drawn over it, by the titles of these."""
    try:
        benchmark, describer = _first_benchmark(bench), _describer(bench)
        chosen = dict.fromkeys(path for path, _ in benchmark.queries)
        step = max(1, len(chosen) // _MAPS_SHOWN)
        groups, least = list[list[tuple[str, np.ndarray]]](), 0.0
        for path in list(chosen)[::step][:_MAPS_SHOWN]:
            pixels = describer.load(path, upright=benchmark.source.upright).pixels
            a = describer.map_of(pixels)
            heats = {name: draw(a, describer.recipe) for name, draw in drawn.items()}
            least = min(least, *(float(heat.min()) for heat in heats.values()))
            shown = [(name, viz.heat_over(pixels, heat)) for name, heat in heats.items()]
            groups.append([(printable(path.stem), pixels), *shown])
        _draw_groups(groups, folder / f"{file}.png")
    except CoocnetError as error:
        return [Figure(title, "", str(error))]
    maps = " beside ".join(drawn)
    said = f"Queries of {benchmark.ground_truth.name}: photograph and {maps}. Dark is least, pale yellow most."
    return [Figure(title, f"{file}.png", f"{said} {viz.BELOW_ZERO}" if least < 0 else said)]


def _draw_groups(groups: Sequence[Sequence[tuple[str, np.ndarray]]], path: Path) -> None:
    """Photographs with their maps beside them, two to a row."""
    plt = pyplot()
    rows, wide = -(-len(groups) // 2), max(map(len, groups))
    size = (5 * wide, 2.1 * rows)
    figure, axes = plt.subplots(rows, 2 * wide, figsize=size, constrained_layout=True, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    for group, line in zip(groups, axes.reshape(-1, wide), strict=False):
        for axis, (name, picture) in zip(line, group, strict=True):
            axis.imshow(picture)
            axis.set_title(name, fontsize=8)
    _save(figure, path)


def _draw_windows(learned: CooccurrenceFilter | None, pairs: Sequence[tuple[int, int]], path: Path) -> None:
    """The windows of pairs of channels of the direct filter, and of the learned one under them."""
    radius = learned.radius_cells if learned else Recipe.preset(_DRAWN).cooccurrence.radius_cells
    direct = ops.direct_filter(2, radius_cells=radius)
    rows = {"direct": [direct[0, int(one != other)].numpy() for one, other in pairs]}
    if learned:
        rows["learned"] = [learned.taps(*pair).numpy() for pair in pairs]
    draw_taps(rows, [f"{one} – {other}" for one, other in pairs], path)


def _learned(bench: Bench, device: torch.device) -> CooccurrenceFilter:
    """The filter of the bench for the network that is drawn, to look at: also one that its gate refused."""
    recipe = bench.with_filter(Recipe.preset(_DRAWN))
    _, tap = lookup(recipe.backbone, recipe.tap)
    return recipe_filter(recipe, tap.channels, device, even_refused=True)


def _spatial(a: torch.Tensor, recipe: Recipe) -> np.ndarray:
    weights: np.ndarray = ops.sct_weights(map_cooccurrence(a, recipe))[0].float().cpu().numpy()
    return weights


def _summed(a: torch.Tensor, recipe: Recipe) -> np.ndarray:
    return _sum_of(map_cooccurrence(a, recipe))


def _sum_of(ct: torch.Tensor) -> np.ndarray:
    total: np.ndarray = ct[0].sum(0).float().cpu().numpy()
    return total


def _first_benchmark(bench: Bench) -> OpenedBenchmark:
    """Oxford as in the paper, Paris where there is no Oxford."""
    try:
        return bench.world.benchmark("oxford5k")
    except CoocnetError:
        return bench.world.benchmark("paris6k")


def _describer(bench: Bench) -> Describer:
    return bench.describer(bench.change.of(Recipe.preset(_DRAWN)))


def _landmark(benchmark: OpenedBenchmark, at: int) -> str:
    """What a query shows, told by its right pictures: queries of one landmark share them."""
    labels = benchmark.ground_truth.queries[at].labels
    return ",".join(map(str, sorted(frozenset[int]().union(*labels.values()))))


def _draw_correlation(
    vectors: Float[np.ndarray, "n d"], landmarks: Sequence[str], names: Sequence[str], path: Path
) -> tuple[float, float]:
    """Draws the matrix, a name at each landmark; returns the mean correlation within landmarks and across."""
    if len(vectors) < 2:
        raise InputError(f"{len(vectors)} queries are here: a correlation needs two")
    matrix = np.corrcoef(vectors)
    same = np.array([[one == other for other in landmarks] for one in landmarks])
    apart = ~np.eye(len(vectors), dtype=bool)
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(6.6, 5), constrained_layout=True)
    shown = axis.imshow(matrix, cmap="viridis")
    sizes = np.array([len(list(group)) for _, group in groupby(landmarks)])
    ends = np.cumsum(sizes)
    for edge in ends[:-1] - 0.5:
        axis.axhline(edge, color="white", linewidth=0.8)
        axis.axvline(edge, color="white", linewidth=0.8)
    axis.set_xticks([])
    axis.set_yticks(ends - sizes / 2 - 0.5, [printable(names[end - 1]) for end in ends], fontsize=8)
    axis.set_title("Co-occurrence vectors of the queries", fontsize=9)
    figure.colorbar(shown, ax=axis, label="correlation", shrink=0.8)
    _save(figure, path)
    return _mean_of(matrix[same & apart]), _mean_of(matrix[~same])


def _mean_of(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _save(figure: Any, path: Path) -> None:
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, dpi=150, bbox_inches="tight", metadata={"Software": "coocnet"})
    pyplot().close(figure)
