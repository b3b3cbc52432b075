"""How good a filter is on pictures that it did not learn from, and the gate that it must pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from coocnet.errors import TrainingError
from coocnet.evaluate import Difference, Interval, average_precision, mean_with_interval, paired_difference, rank
from coocnet.nn import CooccurrenceFilter
from coocnet.recipe import Recipe
from coocnet.train.examples import Examples
from coocnet.whitening import fit_pca

_LEAST_DESCRIBED = 0.5


@dataclass(frozen=True)
class Gate:
    """The learned filter against the direct one on pictures that nothing was chosen by, mAP.

    Attributes:
        direct: of the direct filter.
        learned: of the learned one.
        difference: paired, learned minus direct.
    """

    direct: Interval
    learned: Interval
    difference: Difference

    @classmethod
    def of(cls, direct: list[float], learned: list[float]) -> Gate:
        """The judgement of two filters.

        Args:
            direct: average precision of each query under the direct one.
            learned: the same under the learned one, in the same order.

        Raises:
            InputError: not as many of the one as of the other, or none.
        """
        return cls(mean_with_interval(direct), mean_with_interval(learned), paired_difference(learned, direct))

    @property
    def passed(self) -> bool:
        """Whether the learned filter is not worse."""
        return self.difference.interval.mean >= 0

    def __str__(self) -> str:
        """In one line."""
        d = self.difference.interval
        return (
            f"mAP {100 * self.learned.mean:.2f} against "
            f"{100 * self.direct.mean:.2f} of the direct filter, {100 * d.mean:+.2f} "
            f"[{100 * d.low:+.2f}, {100 * d.high:+.2f}]"
        )


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        learned: the filter of the best epoch.
        history: a record of every epoch: its number, mean loss, held-out mAP in use and of raw rows, time in seconds.
        best_epoch: the epoch it is of.
        gate: its judgement.
        parameters: numbers that were learned.
    """

    learned: CooccurrenceFilter
    history: list[dict[str, float]]
    best_epoch: int
    gate: Gate
    parameters: int

    @property
    def verdict(self) -> str:
        """Passed, refused, or unchanged, where no epoch was better than the direct filter."""
        if self.best_epoch == 0:
            return "unchanged"
        return "passed" if self.gate.passed else "refused"


def precisions(
    examples: Examples,
    rows: Float[np.ndarray, "n d"],
    recipe: Recipe,
    fit_rows: Float[np.ndarray, "m d"] | None,
) -> list[float]:
    """Average precision of every query among all the pictures.

    Args:
        examples: the pictures.
        rows: theirs.
        recipe: if it whitens, rows are compared whitened, as in use.
        fit_rows: rows of other pictures that the whitening is fitted on; None to compare the rows as they are. With
            the recipe's shrinkage and to at most half as many dimensions as there are pictures, as an index does.

    Raises:
        TrainingError: rows that are no numbers, or mostly zero: the filter has lost its way.
    """
    for some in (rows, *(() if fit_rows is None else (fit_rows,))):
        if not np.isfinite(some).all() or not some.any(1).mean() > _LEAST_DESCRIBED:
            raise TrainingError(
                "under this filter most pictures have no row any more: begin anew with a lower learning rate "
                "(--lr, --restart)"
            )
    if fit_rows is not None and recipe.whitening == "pca":
        most = max(1, len(fit_rows) // 2)
        fitted = fit_pca(fit_rows, dim=min(recipe.dim or most, most), at_most=True, shrinkage=recipe.shrinkage)
        rows = fitted.apply(rows)
    return [average_precision(rank(rows @ rows[query]), truth) for query, truth in examples.truths()]
