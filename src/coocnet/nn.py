"""The learned co-occurrence filters as modules: dense as in the paper, and factorised; their files.

Source: Forcén et al. 2020, section 5: CT = ρ · conv2d(A·ρ, F) / (D − 1) with a filter F that starts as the direct one
and is learned. The factorised form is ours.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from coocnet import ops
from coocnet.errors import UNREADABLE, FilterError, InputError, printable, quoted
from coocnet.ops.checks import need_whole
from coocnet.output import written_whole

__all__ = [
    "FILTERS",
    "CooccurrenceFilter",
    "DenseFilter",
    "FactorisedFilter",
    "load_filter",
    "new_filter",
    "pairs_that_moved",
    "read_filter",
    "read_published_filter",
    "save_filter",
]

_KIND = "coocnet-filter-1"
_UNEVENNESS = 0.3
_PAIRS_SHOWN = 6
_QUOTED = 300
PUBLISHED_ENDING = ".npy"
"""Of a filter's file as the authors publish theirs."""


class CooccurrenceFilter(nn.Module):
    """A filter that makes a co-occurrence tensor of a map; both kinds start as exactly the direct one.

    Attributes:
        kind: its name in :data:`FILTERS`.
        channels: d of the maps it takes.
        radius_cells: r; it looks at (2r+1)² cells.
    """

    kind: str
    channels: int
    radius_cells: int

    def forward(
        self,
        a: Float[Tensor, "b d h w"],
        mask: Float[Tensor, "b d h w"] | Bool[Tensor, "b d h w"] | None = None,
    ) -> Float[Tensor, "b d h w"]:
        """CT of a map (eq. 6 of Forcén et al. 2020); entries may be negative once the filter has learned.

        Args:
            a: feature map of ``channels`` channels.
            mask: ρ; None for the image's mean.

        Raises:
            InputError: no map, one of another number of channels, or a mask of another shape.
            NotImplementedError: here; each kind has its own.
        """
        raise NotImplementedError

    def dense(self) -> Float[Tensor, "d d s s"]:
        """F, to look at: d² (2r+1)² numbers.

        Raises:
            NotImplementedError: here; each kind has its own.
        """
        raise NotImplementedError

    def taps(self, out_channel: int, in_channel: int) -> Float[Tensor, "s s"]:
        """F[out_channel, in_channel]: how the surroundings of a channel count, by another channel.

        Args:
            out_channel: the channel that the tensor is made for.
            in_channel: the channel that is looked at around it.

        Raises:
            IndexError: there is no such channel.
            NotImplementedError: here; each kind has its own.
        """
        raise NotImplementedError

    def distances_from_direct(self) -> Float[Tensor, "d d"]:
        """How far the window of each pair of channels is from the direct filter's: root of the sum of squares.

        Raises:
            NotImplementedError: here; each kind has its own.
        """
        raise NotImplementedError


class DenseFilter(CooccurrenceFilter):
    """The filter of the paper: a weight for every pair of channels and every cell of the window.

    d² (2r+1)² parameters: 21 million at 512 channels and r = 4, 340 million at 2,048.

    Source: Forcén et al. 2020, section 5.

    Args:
        channels: d ≥ 2.
        radius_cells: r ≥ 0.

    Raises:
        InputError: a number out of range.
    """

    kind = "dense"

    def __init__(self, channels: int, *, radius_cells: int) -> None:
        super().__init__()
        self.channels, self.radius_cells = channels, radius_cells
        self.weight = nn.Parameter(ops.direct_filter(channels, radius_cells=radius_cells))

    def forward(self, a: Tensor, mask: Tensor | None = None) -> Tensor:
        """See :meth:`CooccurrenceFilter.forward`."""
        return ops.filtered_cooccurrence(a, self.weight, mask=mask)

    def dense(self) -> Tensor:
        """See :meth:`CooccurrenceFilter.dense`."""
        return self.weight.detach()

    def taps(self, out_channel: int, in_channel: int) -> Tensor:
        """See :meth:`CooccurrenceFilter.taps`."""
        return self.weight.detach()[out_channel, in_channel]

    def distances_from_direct(self) -> Tensor:
        """See :meth:`CooccurrenceFilter.distances_from_direct`."""
        off_diagonal = 1 - torch.eye(self.channels, device=self.weight.device)
        return torch.stack(
            [
                (row - other[:, None, None]).flatten(1).norm(dim=1)
                for row, other in zip(self.weight.detach(), off_diagonal, strict=True)
            ]
        )


class FactorisedFilter(CooccurrenceFilter):
    """A filter of low rank: F[k, w] = Σ_q U_kq V_wq G_q − [k = w] o_k with positive factors (ours).

    2·d·rank + rank·(2r+1)² + d parameters, which are the logarithms of the factors: they learn by what they are
    multiplied with, so channels and cells of the window gain or lose weight but never change sign. V, G and o start
    at 1, and each row of U is drawn such that it sums to 1: the start is the direct filter, of any rank.

    Args:
        channels: d ≥ 2.
        radius_cells: r ≥ 0.
        rank: components, ≥ 1.
        seed: of the drawing of U.

    Raises:
        InputError: a number out of range.
    """

    kind = "factorised"

    def __init__(self, channels: int, *, radius_cells: int, rank: int, seed: int = 0) -> None:
        super().__init__()
        need_whole("channels", channels, 2)
        need_whole("radius_cells", radius_cells, 0)
        need_whole("rank", rank, 1)
        self.channels, self.radius_cells, self.rank = channels, radius_cells, rank
        s = 2 * radius_cells + 1
        drawn = torch.randn(channels, rank, generator=torch.Generator().manual_seed(seed)) * _UNEVENNESS
        self.log_out = nn.Parameter(torch.log_softmax(drawn, dim=1))
        self.log_in = nn.Parameter(torch.zeros(channels, rank))
        self.log_windows = nn.Parameter(torch.zeros(rank, s, s))
        self.log_own = nn.Parameter(torch.zeros(channels))

    def factors(self) -> dict[str, Tensor]:
        """U, V, G and o, by the names of :func:`coocnet.ops.factorised_cooccurrence`."""
        return {
            "out_factors": self.log_out.exp(),
            "in_factors": self.log_in.exp(),
            "windows": self.log_windows.exp(),
            "own_factors": self.log_own.exp(),
        }

    def forward(self, a: Tensor, mask: Tensor | None = None) -> Tensor:
        """See :meth:`CooccurrenceFilter.forward`."""
        return ops.factorised_cooccurrence(a, **self.factors(), mask=mask)

    def dense(self) -> Tensor:
        """See :meth:`CooccurrenceFilter.dense`."""
        with torch.no_grad():
            return ops.factorised_filter(**self.factors())

    def taps(self, out_channel: int, in_channel: int) -> Tensor:
        """See :meth:`CooccurrenceFilter.taps`."""
        with torch.no_grad():
            u, v, g, own = self.factors().values()
            taps = torch.einsum("q,q,qij->ij", u[out_channel], v[in_channel], g)
            return taps - own[out_channel] if out_channel == in_channel else taps

    def distances_from_direct(self) -> Tensor:
        """See :meth:`CooccurrenceFilter.distances_from_direct`; without building the filter."""
        with torch.no_grad():
            u, v, g, own = self.factors().values()
            cells = g.flatten(1)
            mean, rest = cells.mean(1), cells - cells.mean(1, keepdim=True)
            # The part of each window that is constant, where the direct filter has all of its own, and the rest.
            constant = (u * mean) @ v.T - 1 - torch.diag(own - 1)
            squares = constant**2 * cells.shape[1]
            for cell in rest.T:  # one (d, d) product at a time: rank and window add no memory
                squares += ((u * cell) @ v.T) ** 2
            return squares.sqrt()


FILTERS = (DenseFilter.kind, FactorisedFilter.kind)
"""The kinds of filters by name."""


def new_filter(kind: str, channels: int, *, radius_cells: int, rank: int, seed: int = 0) -> CooccurrenceFilter:
    """The direct filter, ready to learn.

    Args:
        kind: one of :data:`FILTERS`.
        channels: d ≥ 2.
        radius_cells: r ≥ 0.
        rank: components of a factorised filter, ≥ 1.
        seed: of the drawing of a factorised filter.

    Raises:
        InputError: no such kind, or a number out of range.
    """
    if kind == DenseFilter.kind:
        return DenseFilter(channels, radius_cells=radius_cells)
    if kind == FactorisedFilter.kind:
        return FactorisedFilter(channels, radius_cells=radius_cells, rank=rank, seed=seed)
    raise InputError(f"a filter is one of {', '.join(FILTERS)}, got {kind!r}")


def save_filter(learned: CooccurrenceFilter, path: str | os.PathLike[str], provenance: dict[str, str]) -> None:
    """Writes a safetensors file, whole or not at all: the weights, and where they come from.

    The same filter of the same provenance is the same bytes, so that its digest names it.

    Args:
        learned: the filter.
        path: where to.
        provenance: at least what :func:`load_filter` is asked to check, and the verdict of the gate.

    Raises:
        InputError: it cannot be written there.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in learned.state_dict().items()}
    metadata = {"kind": _KIND, "filter": learned.kind, "provenance": json.dumps(provenance)}
    with written_whole(path) as unfinished:
        Path(unfinished).write_bytes(_in_order(save(tensors, metadata)))


def load_filter(path: str | os.PathLike[str]) -> tuple[CooccurrenceFilter, dict[str, str]]:
    """Reads what :func:`save_filter` wrote, with its provenance.

    Raises:
        FilterError: it cannot be read, or is something else.
    """
    name = printable(path)
    try:
        content = Path(path).read_bytes()
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        if metadata.get("kind") != _KIND:
            kind = quoted(metadata.get("kind"))
            raise FilterError(f"{name} is no learned filter, but a safetensors file of kind {kind}")
        tensors = load(content)
        provenance = json.loads(metadata["provenance"])
        learned = _of_tensors(metadata["filter"], tensors)
        if not isinstance(provenance, dict) or not all(isinstance(value, str) for value in provenance.values()):
            raise FilterError(f"{name} is damaged: its provenance is no table of texts")
    except OSError as error:
        raise FilterError(f"{name} cannot be read: {error.strerror}") from error
    except (SafetensorError, *UNREADABLE) as error:
        raise FilterError(
            f"{name} is no learned filter, or a damaged one: {printable(str(error))[:_QUOTED]}"
        ) from error
    return learned, provenance


def read_published_filter(path: str | os.PathLike[str]) -> DenseFilter:
    """A dense filter as the authors publish theirs: a NumPy file (d, d, s, s).

    The first axis is the channel that the tensor is made for, as in their convolution. Their values are those of
    ours over (2r+1)², a constant factor that the descriptor's norm takes away; they are kept as they are.

    Raises:
        FilterError: it cannot be read, or holds something else.
    """
    name = printable(path)
    try:
        with open(path, "rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers that Python 2 wrote
            array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise FilterError(f"{name} cannot be read: {error.strerror}") from error
    except UNREADABLE as error:
        raise FilterError(f"{name} is no NumPy file of a filter: {printable(str(error))[:_QUOTED]}") from error
    if array.ndim != 4 or array.dtype.kind != "f" or not (abs(array) <= np.finfo(np.float32).max).all():
        raise FilterError(
            f"{name} holds {array.dtype} {array.shape}; a filter is (d, d, s, s), s odd, of finite floats of 32 bits"
        )
    return _dense_of(torch.from_numpy(array.astype(np.float32)), name)


def read_filter(path: str | os.PathLike[str]) -> tuple[CooccurrenceFilter, dict[str, str]]:
    """A filter of either kind of file: ours with its provenance, or the authors' NumPy file, which has none.

    Raises:
        FilterError: it cannot be read, or is something else.
    """
    if os.fspath(path).lower().endswith(PUBLISHED_ENDING):
        return read_published_filter(path), {}
    return load_filter(path)


def pairs_that_moved(learned: CooccurrenceFilter, most: int = _PAIRS_SHOWN) -> list[tuple[int, int]]:
    """The pairs of two channels whose windows are the farthest from the direct filter's, no channel twice.

    Args:
        learned: the filter.
        most: pairs, at most.
    """
    far = learned.distances_from_direct().fill_diagonal_(-1)
    found: list[tuple[int, int]] = []
    for at in far.flatten().argsort(descending=True).tolist():
        one, other = divmod(at, learned.channels)
        if not any({one, other} & {*pair} for pair in found):
            found.append((one, other))
        if len(found) == min(most, learned.channels // 2):
            break
    return found


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its header sorted: the library writes the metadata in another order each time."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def _of_tensors(kind: object, tensors: dict[str, Tensor]) -> CooccurrenceFilter:
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise ValueError("its numbers are not all finite")
    if kind == DenseFilter.kind:
        return _dense_of(tensors["weight"], "this file")
    if kind == FactorisedFilter.kind:
        (rank, side, _), (channels, _) = tensors["log_windows"].shape, tensors["log_out"].shape
        with torch.device("meta"):  # the file may say any size
            learned = FactorisedFilter(channels, radius_cells=side // 2, rank=rank)
        learned.load_state_dict(tensors, assign=True)
        return learned
    raise ValueError(f"a filter is one of {', '.join(FILTERS)}, got {quoted(kind)}")


def _dense_of(weight: Tensor, name: str) -> DenseFilter:
    d, s = weight.shape[0], weight.shape[-1]
    if weight.shape != (d, d, s, s) or d < 2 or s % 2 == 0:
        raise FilterError(f"{name} holds a filter {tuple(weight.shape)}; one is (d, d, s, s), d at least 2, s odd")
    with torch.device("meta"):
        learned = DenseFilter(d, radius_cells=s // 2)
    learned.weight = nn.Parameter(weight)
    return learned
