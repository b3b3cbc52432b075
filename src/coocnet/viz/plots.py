"""Plots, which need matplotlib: an extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from coocnet.errors import InputError
from coocnet.output import written_whole


def pyplot() -> Any:
    """Matplotlib's drawing interface, without a screen.

    Raises:
        InputError: it is not installed.
    """
    try:
        import matplotlib  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("figures and reports need an extra: pip install 'coocnet[reproduce]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - an extra

    return plt


def draw_taps(taps: Sequence[Float[np.ndarray, "s s"]], names: Sequence[str], target: Path) -> None:
    """Windows of a filter side by side, on one scale that has white at 0.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    plt = pyplot()
    largest = max(1e-9, *(float(np.abs(one).max()) for one in taps))
    figure, axes = plt.subplots(
        1, len(taps), figsize=(1.5 * len(taps) + 1.6, 2.4), constrained_layout=True, squeeze=False
    )
    for axis, window, name in zip(axes[0], taps, names, strict=True):
        axis.imshow(window, cmap="PuOr_r", vmin=-largest, vmax=largest)
        axis.set_title(name, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(axes[0][0].images[0], ax=axes, shrink=0.8)
    with written_whole(target) as unfinished:
        figure.savefig(unfinished, dpi=120, format="png")
    plt.close(figure)
