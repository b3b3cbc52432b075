"""Plots, which need matplotlib: an extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def draw_taps(rows: Mapping[str, Sequence[Float[np.ndarray, "s s"]]], names: Sequence[str], target: Path) -> None:
    """Windows of filters, a row for each filter on a scale of its own that has white at 0.

    Args:
        rows: by the name of the filter; each has a window for each of the names.
        names: of the pairs of channels.
        target: the PNG to write.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    plt = pyplot()
    size = (1.5 * len(names) + 1.6, 2 * len(rows) + 0.4)
    figure, axes = plt.subplots(len(rows), len(names), figsize=size, constrained_layout=True, squeeze=False)
    for line, (label, windows) in zip(axes, rows.items(), strict=True):
        largest = max(1e-9, *(float(np.abs(one).max()) for one in windows))
        for axis, window, name in zip(line, windows, names, strict=True):
            axis.imshow(window, cmap="PuOr_r", vmin=-largest, vmax=largest)
            axis.set_title(name, fontsize=10)
            ends = dict.fromkeys(f"{end:.6g}" for end in (window.min(), window.max()))
            axis.set_xlabel(" to ".join(ends), fontsize=7)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(label, fontsize=10)
        figure.colorbar(line[0].images[0], ax=list(line), shrink=0.8)
    with written_whole(target) as unfinished:
        figure.savefig(unfinished, dpi=120, format="png")
    plt.close(figure)
