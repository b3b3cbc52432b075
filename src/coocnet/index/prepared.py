"""What re-ranking needs of a collection, kept beside the index: derived from its rows, and made anew at any time."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from coocnet.index.derived import UNREADABLE, array_of
from coocnet.output import written_whole
from coocnet.ranking import Diffusion, Ranked, neighbours

NEIGHBOURS = 51
"""Length of the neighbour lists: each picture itself and 50 others, the longest that a re-ranking asks for."""
_TRUNCATION = 1000
_NAME = "neighbours.npz"


@dataclass(frozen=True)
class Prepared:
    """The nearest pictures of each picture, and the solutions of diffusion where these were asked for.

    Attributes:
        graph: of :data:`NEIGHBOURS` rows, or of as many as there are.
        solved: see :meth:`coocnet.ranking.Diffusion.build`.
    """

    graph: Ranked
    solved: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(
        cls,
        rows: Float[np.ndarray, "n d"],
        *,
        offline: bool,
        whitened: bool,
        progress: Callable[[int, int], None] | None = None,
    ) -> Prepared:
        """Finds the neighbours, and solves for every row where ``offline``; ``progress`` counts the first.

        Raises:
            InputError: ``offline`` and scipy is not installed, or the rows were never whitened.
        """
        graph = neighbours(rows, k=max(NEIGHBOURS, _TRUNCATION if offline else 0), progress=progress)
        short = Ranked(graph.positions[:, :NEIGHBOURS].copy(), graph.scores[:, :NEIGHBOURS].copy())
        if not offline:
            return cls(short)
        made = Diffusion.build(rows, truncation=_TRUNCATION, offline=True, graph=graph, whitened=whitened)
        return cls(short, made.solved)

    def known_by(self, reranking: str) -> dict[str, Any]:
        """What the making of a re-ranking in ``coocnet.ranking.RERANKINGS`` need not find out anew."""
        solved = {"truncation": _TRUNCATION, "solved": self.solved} if reranking == "diffusion" else {}
        return {"graph": self.graph, **solved}

    def save(self, folder: Path, key: str) -> None:
        """Writes it beside an index, in place of what was there.

        Raises:
            InputError: it cannot be written.
        """
        arrays = {"positions": self.graph.positions, "scores": self.graph.scores}
        if self.solved is not None:
            arrays |= {"columns": self.solved[0], "values": self.solved[1]}
        with written_whole(folder / _NAME) as unfinished:
            np.savez(unfinished, allow_pickle=False, key=np.frombuffer(key.encode(), np.uint8), **arrays)

    @classmethod
    def load(cls, folder: Path, key: str) -> Prepared | None:
        """What was saved under this key; None where there is nothing, of another key, or damaged."""
        try:
            with open(folder / _NAME, "rb") as stream, zipfile.ZipFile(stream) as held:
                if array_of(held, "key").tobytes().decode() != key:
                    return None
                solves = "columns.npy" in held.namelist()
                solved = (array_of(held, "columns"), array_of(held, "values")) if solves else None
                return cls(Ranked(array_of(held, "positions"), array_of(held, "scores")), solved)
        except UNREADABLE:
            return None


def damage(folder: Path) -> str:
    """What is damaged of what was saved; empty where nothing is, or nothing was."""
    if not (folder / _NAME).exists():
        return ""
    try:
        with open(folder / _NAME, "rb") as stream, zipfile.ZipFile(stream) as held:
            for name in {"key", "positions", "scores", *(one.removesuffix(".npy") for one in held.namelist())}:
                array_of(held, name)
    except UNREADABLE as error:
        return f"the neighbours that were prepared cannot be read ({type(error).__name__}: {error})"
    return ""
