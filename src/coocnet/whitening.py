"""Whitening of unit rows, by PCA or from pairs: fitted in float64, saved with its provenance, refused for others."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load, save

from coocnet.errors import WhiteningError, printable
from coocnet.output import written_whole
from coocnet.shipped import SHIPPED

_KIND = "coocnet-whitening-1"
_SHRINKAGE_OF_FEW_PAIRS = 0.1
_AT_ONCE = 4096
_FARTHEST = 1e18
"""No number of a whitened row of unit length may be farther from 0: squares have to fit into float32."""


@dataclass(frozen=True)
class Whitening:
    """y = P (x − m), then unit length; a zero row stays zero.

    Attributes:
        mean: m, (d,).
        projection: P, (dim, d); rows by falling variance.
        provenance: what it was fitted on; "row_fingerprint" and "weights_sha256" say which rows it takes.
    """

    mean: Float[np.ndarray, " d"]
    projection: Float[np.ndarray, "dim d"]
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """Dimensions of a whitened row."""
        return int(self.projection.shape[0])

    def first(self, dim: int) -> Whitening:
        """The whitening to its first dimensions: as if fitted with this ``dim``, where there was no shrinkage.

        Raises:
            WhiteningError: more than there are, or none.
        """
        asked: object = dim
        if isinstance(asked, bool) or not isinstance(asked, int | np.integer) or not 1 <= asked <= self.dim:
            raise WhiteningError(f"this whitening has 1 to {self.dim} dimensions to keep, got {dim!r}")
        return Whitening(self.mean, self.projection[:dim], self.provenance)

    def apply(self, rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n dim"]:
        """Whitened rows of unit length, float32, in blocks so that memory stays bounded.

        Raises:
            WhiteningError: no array (n, d) of numbers, or rows of another dimension.
        """
        given: object = rows
        if not isinstance(given, np.ndarray) or given.ndim != 2 or given.dtype.kind not in "fiu":
            what = f"{given.dtype} of shape {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
            raise WhiteningError(f"a whitening takes an array (n, d) of numbers, got {what}")
        if rows.shape[1] != self.mean.shape[0]:
            raise WhiteningError(f"this whitening takes rows of {self.mean.shape[0]} dimensions, got {rows.shape[1]}")
        projection, mean = self.projection.astype(np.float32), self.mean.astype(np.float32)
        out = np.empty((len(rows), self.dim), np.float32)
        for start in range(0, len(rows), 8192):
            block = rows[start : start + 8192]
            described = block.any(1, keepdims=True)
            out[start : start + len(block)] = unit_rows(((block - mean) @ projection.T) * described)
        return out

    def check_fits(self, row_fingerprint: str, weights_sha256: str, dim: int = 0) -> None:
        """Refuses rows it was not fitted for.

        Args:
            row_fingerprint: of the rows' recipe.
            weights_sha256: of the network that made them.
            dim: their dimensions; 0 where these are not known.

        Raises:
            WhiteningError: the provenance names another recipe or other weights, or none; or other dimensions.
        """
        if dim and dim != len(self.mean):
            raise WhiteningError(f"this whitening takes rows of {len(self.mean)} dimensions, these have {dim}")
        theirs = (self.provenance.get("row_fingerprint"), self.provenance.get("weights_sha256"))
        if theirs != (row_fingerprint, weights_sha256):
            raise WhiteningError(
                f"this whitening was fitted on rows of recipe {theirs[0]} with weights {str(theirs[1])[:12]}, "
                f"but these rows are of recipe {row_fingerprint} with weights {weights_sha256[:12]}. "
                "Fit one on rows of this recipe, or use none."
            )

    def equals(self, other: Whitening) -> bool:
        """Whether the other has the same numbers and the same provenance."""
        arrays = ((self.mean, other.mean), (self.projection, other.projection))
        return self.provenance == other.provenance and all(np.array_equal(one, two) for one, two in arrays)

    def to_bytes(self) -> bytes:
        """The whitening as a safetensors file's bytes."""
        tensors = {"mean": self.mean, "projection": self.projection}
        provenance = json.dumps(self.provenance)
        digest = _digest_of(self.mean, self.projection, provenance)
        return save(tensors, metadata={"kind": _KIND, "provenance": provenance, "sha256": digest})

    @classmethod
    def from_bytes(cls, content: bytes) -> Whitening:
        """Reads what :meth:`to_bytes` wrote.

        Raises:
            WhiteningError: something else.
        """
        try:
            arrays = load(content)
            length = int.from_bytes(content[:8], "little")
            metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
            if metadata.get("kind") != _KIND:
                raise WhiteningError(f"a safetensors file of kind {metadata.get('kind')!r} is not a whitening")
            mean, projection = arrays["mean"], arrays["projection"]
            if mean.ndim != 1 or projection.shape[1:] != mean.shape or not len(projection):
                raise WhiteningError(f"shapes {mean.shape} and {projection.shape} do not make a whitening")
            if not all((abs(one) <= np.finfo(np.float32).max).all() for one in (mean, projection)):
                raise WhiteningError("a whitening whose numbers are not all finite")
            lengths = [float(np.abs(one).sum(dtype=np.float64)) for one in (mean, projection)]
            if (1 + lengths[0]) * lengths[1] > _FARTHEST:
                raise WhiteningError("a whitening whose numbers are too large to compute with")
            if metadata["sha256"] != _digest_of(mean, projection, metadata["provenance"]):
                raise WhiteningError("the file is damaged: its numbers are not those that were written")
            provenance = json.loads(metadata["provenance"])
            if not isinstance(provenance, dict) or not all(isinstance(value, str) for value in provenance.values()):
                raise WhiteningError(f"a provenance is a table of texts, got {str(provenance)[:80]}")
            return cls(mean, projection, provenance)
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise WhiteningError(f"these bytes are not a whitening: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a safetensors file, whole or not at all.

        Raises:
            InputError: it cannot be written there.
        """
        with written_whole(path) as unfinished:
            Path(unfinished).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Whitening:
        """Reads a file.

        Raises:
            WhiteningError: not there, or not a whitening.
        """
        try:
            return cls.from_bytes(Path(path).read_bytes())
        except (OSError, ValueError, WhiteningError) as error:
            reason = getattr(error, "strerror", None) or error
            raise WhiteningError(f"{printable(path)}: {reason}") from error


def shipped_whitening(row_fingerprint: str, weights_sha256: str) -> Whitening | None:
    """The whitening that comes with the package for rows of this recipe and these weights, or None."""
    wanted = {"row_fingerprint": row_fingerprint, "weights_sha256": weights_sha256}
    return next((one for one in _shipped() if one.provenance.items() >= wanted.items()), None)


@cache
def _shipped() -> tuple[Whitening, ...]:
    return tuple(Whitening.load(path) for path in sorted(SHIPPED.glob("*-whitening.safetensors")))


def fit_pca(
    rows: Float[np.ndarray, "n d"] | Iterator[Float[np.ndarray, "b d"]],
    *,
    dim: int = 0,
    at_most: bool = False,
    shrinkage: float = 0.0,
    provenance: dict[str, str] | None = None,
) -> Whitening:
    """PCA-whitening of unit rows.

    m is the mean of the rows; P holds the eigenvectors of their covariance by falling eigenvalue, each divided
    by the square root of it (``eigh`` in float64). With a shrinkage s, s times the mean of the kept eigenvalues is
    added to each before the root: directions in which the rows hardly vary are then not blown up to the length of
    the others. Zero rows, of pictures without any activation, are left out.

    Args:
        rows: descriptors of unit length, n ≥ 2 of them not zero; or an iterator of parts of these, which need not
            fit into memory together: of more than d rows, sums of d² numbers are kept.
        dim: dimensions to keep; 0 for all that the rows determine.
        at_most: keep fewer than ``dim`` where the rows determine fewer, instead of refusing.
        shrinkage: s ≥ 0; 0 is plain PCA-whitening, a large s only centres and turns the rows.
        provenance: goes into the file, with n, the rank and the date added.

    Raises:
        WhiteningError: fewer than two rows, rows that are not finite, or more dimensions asked for than the
            rows determine; the message states how many they do. n rows determine at most n − 1.
    """
    _check_numbers(dim, shrinkage)
    count, mean, (values, vectors) = _spread(_in_parts(rows))
    rank = int((values > values.max(initial=0) * 1e-10).sum())
    if rank == 0:
        raise WhiteningError("the rows to fit a whitening on are all equal: they have no directions")
    keep = min(dim or rank, rank) if at_most else dim or rank
    if keep > rank:
        raise WhiteningError(
            f"{count} pictures determine {rank} dimensions, {keep} were asked for: "
            f"ask for at most {rank}, or fit on more pictures"
        )
    scales = values[:keep] + shrinkage * values[:keep].mean()
    projection = vectors[:, :keep].T / np.sqrt(scales[:, None])
    facts = {"kind": "pca", "pictures": str(count), "rank": str(rank), "shrinkage": str(shrinkage)}
    return _made(mean, projection, facts, provenance)


def fit_pairs(
    rows: Float[np.ndarray, "n d"],
    queries: Int[np.ndarray, " m"],
    positives: Int[np.ndarray, " m"],
    *,
    dim: int = 0,
    at_most: bool = False,
    shrinkage: float | None = None,
    provenance: dict[str, str] | None = None,
) -> Whitening:
    """Learned whitening: from pairs of rows that show the same thing.

    With S = Σ (q − p)(q − p)ᵀ / m over the pairs and m̄ the mean of the query rows, P = Vᵀ S^(−1/2), where V holds
    the eigenvectors of the covariance of S^(−1/2) (x − m̄) over all rows, by falling eigenvalue: what varies within a
    pair is evened out, and the directions in which different things differ most are kept. ``eigh`` in float64. A
    shrinkage s adds s times the mean eigenvalue of S to each before the root.

    Source: Mikolajczyk and Matas 2007; for retrieval Radenović, Tolias and Chum 2018, section 3.4 (which uses a
    Cholesky factor in place of S^(−1/2): the same up to a rotation that V undoes). Zero rows, of pictures without any
    activation, are left out, and so are their pairs.

    Args:
        rows: descriptors of unit length.
        queries: position of the first row of each pair.
        positives: position of the second.
        dim: dimensions to keep; 0 for all that the rows determine.
        at_most: keep fewer than ``dim`` where the rows determine fewer, instead of refusing.
        shrinkage: s ≥ 0; above 0 it is needed where the pairs determine fewer directions than the rows have. If not
            given 0, or 0.1 where there are no more pairs than dimensions.
        provenance: goes into the file, with m, n and the date added.

    Raises:
        WhiteningError: positions outside the rows, rows that are not finite, pairs that leave directions of S
            undetermined without a shrinkage, or more dimensions asked for than the rows determine.
    """
    _check_numbers(dim, shrinkage or 0)
    data = _checked_rows(rows)
    q, p = _positions(queries, len(data)), _positions(positives, len(data))
    described = np.any(data != 0, axis=1)
    if len(q) == len(p):
        whole = described[q] & described[p]
        q, p = q[whole], p[whole]
    if len(q) != len(p) or not len(q):
        raise WhiteningError(f"a learned whitening needs pairs: got {len(q)} queries and {len(p)} positives")
    if shrinkage is None:
        shrinkage = 0.0 if len(q) > data.shape[1] else _SHRINKAGE_OF_FEW_PAIRS
    d = data.shape[1]
    mean = data[q].mean(0)
    # Nothing varies outside the span of the rows: with few rows the work is done within it.
    basis = _span(data[described] - mean) if described.sum() < d else None
    within, centred = data[q] - data[p], data[described] - mean
    if basis is not None:
        within, centred = within @ basis, centred @ basis
    values, vectors = np.linalg.eigh(within.T @ within / len(within))
    rank = int((values > values.max(initial=0) * 1e-10).sum())
    if rank < d and not (shrinkage and rank):
        raise WhiteningError(
            f"{len(q)} pairs determine {rank} of {d} directions: give more pairs, or a shrinkage such as 0.1"
        )
    even = vectors / np.sqrt(np.maximum(values, 0) + shrinkage * values.sum() / d)
    spread, turned = _principal_axes(centred @ even)
    most = int((spread > spread.max(initial=0) * 1e-10).sum())
    keep = min(dim or most, most) if at_most else dim or most
    if not most or keep > most:
        raise WhiteningError(f"{len(data)} rows determine {most} dimensions, {dim} were asked for")
    projection = turned[:, :keep].T @ even.T
    if basis is not None:
        projection = projection @ basis.T
    facts = {"kind": "pairs", "pictures": str(len(data)), "pairs": str(len(q)), "rank": str(most)}
    facts["shrinkage"] = str(shrinkage)
    return _made(mean, projection, facts, provenance)


def _in_parts(rows: np.ndarray | Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Parts in float64, all with as many numbers a row."""
    if isinstance(rows, Iterator):
        width = -1
        for part in map(_checked_rows, rows):
            width = part.shape[1] if width < 0 else width
            if part.shape[1] != width:
                raise WhiteningError(f"a whitening is fitted on rows of one length, got {width} and {part.shape[1]}")
            yield part
        return
    if getattr(rows, "ndim", 0) != 2:  # lists are taken too
        rows = _checked_rows(rows)
    for start in range(0, len(rows), _AT_ONCE):
        yield _checked_rows(rows[start : start + _AT_ONCE])


def _spread(parts: Iterable[np.ndarray]) -> tuple[int, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """How many rows are not zero, their mean, and the eigenvalues and eigenvectors of their covariance.

    As soon as there are as many as dimensions only sums are kept: of the rows, and of their products with each other,
    both about the mean of the first ones, which is near enough to the mean that nothing is lost.
    """
    described = (rows[rows.any(1)] for rows in parts)
    first, count = [], 0
    for rows in described:
        first.append(rows)
        count += len(rows)
        if count >= rows.shape[1]:
            break
    if count < 2:
        raise WhiteningError(f"a whitening is fitted on at least 2 described pictures, got {count}")
    held = np.concatenate(first)
    about = held.mean(0)
    if count < held.shape[1]:
        return count, about, _principal_axes(held - about)
    total, products = np.zeros_like(about), np.zeros((len(about), len(about)))
    for rows in chain([held], described):
        centred = rows - about
        total += centred.sum(0)
        products += centred.T @ centred
        count += len(rows) if rows is not held else 0
    beside = total / count
    return count, about + beside, _falling(products / count - np.outer(beside, beside))


def _check_numbers(dim: object, shrinkage: object) -> None:
    if not (isinstance(shrinkage, int | float | np.number) and 0 <= shrinkage < math.inf):
        raise WhiteningError(f"shrinkage is a number of 0 or more, got {shrinkage!r}")
    if not (isinstance(dim, int | np.integer) and dim >= 0):
        raise WhiteningError(f"a whitening keeps 0 (for all) or more dimensions, got {dim!r}")


def _checked_rows(rows: np.ndarray) -> np.ndarray:
    try:
        data = np.asarray(rows, np.float64)
    except (ValueError, TypeError) as error:
        raise WhiteningError(f"a whitening is fitted on rows of numbers: {error}") from error
    if data.ndim != 2:
        raise WhiteningError(f"a whitening is fitted on rows (n, d), got an array of shape {data.shape}")
    if not np.isfinite(data).all():
        raise WhiteningError("the rows to fit a whitening on are not all finite")
    return data


def _digest_of(mean: np.ndarray, projection: np.ndarray, provenance: str) -> str:
    content = b"".join((mean.tobytes(), projection.tobytes(), provenance.encode()))
    return hashlib.sha256(content).hexdigest()


def _positions(given: np.ndarray, count: int) -> np.ndarray:
    positions = np.asarray(given)
    if positions.ndim != 1 or (positions.size and not np.issubdtype(positions.dtype, np.integer)):
        raise WhiteningError(
            f"positions of pairs are a list of whole numbers, got {positions.dtype} {positions.shape}"
        )
    if positions.size and (positions.min() < 0 or positions.max() >= count):
        raise WhiteningError(
            f"positions of pairs lie from 0 to {count - 1}, got {positions.min()} to {positions.max()}"
        )
    return positions.astype(np.int64)


def _made(
    mean: np.ndarray, projection: np.ndarray, facts: dict[str, str], provenance: dict[str, str] | None
) -> Whitening:
    made = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    facts = {**(provenance or {}), **facts, "made": made}
    return Whitening(mean.astype(np.float32), np.ascontiguousarray(projection, np.float32), facts)


def _principal_axes(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the covariance, falling, and its eigenvectors as columns; through the smaller Gram matrix."""
    n, d = centred.shape
    values, vectors = _falling((centred.T @ centred if n >= d else centred @ centred.T) / n)
    if n >= d:
        return values, vectors
    lengths = np.sqrt(np.maximum(values, np.finfo(np.float64).tiny) * n)
    return values, centred.T @ vectors / lengths


def _falling(symmetric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, falling, and eigenvectors as columns."""
    values, vectors = np.linalg.eigh(symmetric)
    # A product with a reversed matrix goes past the fast routines: 30 times slower.
    return values[::-1], np.ascontiguousarray(vectors[:, ::-1])


def _span(centred: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the directions of the rows, (d, r)."""
    values, axes = _principal_axes(centred)
    kept = np.ascontiguousarray(axes[:, values > values.max(initial=0) * 1e-13])
    return np.linalg.qr(kept)[0]


def unit_rows(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of unit L2 norm, float32; a zero row stays zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: np.ndarray = (rows / np.where(norms > 0, norms, 1)).astype(np.float32)
    return scaled
