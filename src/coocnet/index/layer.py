"""The whitening as a layer above the stored rows: where it comes from, when, and which one counts."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from coocnet.errors import WhiteningError, printable
from coocnet.index.facts import StoredWhitening
from coocnet.index.records import Records
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening, fit_pairs, fit_pca, shipped_whitening

WHITEN_FROM_PICTURES = 1024
"""A collection of fewer described pictures is too small to learn a whitening on (see docs/design.md)."""
_SHIPPED = "shipped"


def in_force(store: Records, recipe: Recipe) -> StoredWhitening | None:
    """One that was given or asked for always; one that was learned unasked where the recipe wants it."""
    stored = store.whitening()
    if stored is None or (stored.learned_here and recipe.whitening == "none"):
        return None
    return stored


def fit(
    store: Records,
    recipe: Recipe,
    *,
    dim: int | None = None,
    shrinkage: float | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> Whitening:
    """See :meth:`coocnet.index.LocalIndex.fit_whitening`."""
    with store.snapshot():
        store.check_recipe(recipe)
        provenance = {
            "row_fingerprint": recipe.row_fingerprint(),
            "weights_sha256": store.weights_sha256 or "",
            "fitted_on": ", ".join(printable(os.fsdecode(folder)) for folder in store.folder_paths()),
            "asked_for": _asked_for(recipe),
        }
        if pairs is not None:
            paths, _, rows = store.matrix()
            queries, positives = _positions(paths, pairs)
            return fit_pairs(
                rows,
                queries,
                positives,
                dim=recipe.dim if dim is None else dim,
                at_most=dim is None,
                shrinkage=shrinkage,
                provenance=provenance,
            )
        stored = int(store.meta("dim") or 0)
        # At most half as many directions as pictures: the last ones of a small collection are noise.
        most = min(recipe.dim or stored, stored, max(1, store.count_contents() // 2))
        return fit_pca(
            store.each_row(),
            dim=most if dim is None else dim,
            at_most=dim is None,
            shrinkage=recipe.shrinkage if shrinkage is None else shrinkage,
            provenance=provenance,
        )


def _positions(paths: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Where the pictures of each pair stand among the paths of the index."""
    place = {path: at for at, path in enumerate(paths)}
    found = []
    for pair in pairs:
        for path in pair:
            known = next((one for one in (path, os.path.realpath(path)) if one in place), None)
            if known is None:
                raise WhiteningError(f"{printable(path)} is not in this index: index its folder first")
            found.append(place[known])
    positions = np.array(found, np.int64).reshape(-1, 2)
    return positions[:, 0], positions[:, 1]


def take_shipped(store: Records, recipe: Recipe) -> bool:
    """Puts the one that comes with the package in force, where it fits the rows and nothing else is; for the writer.

    It counts as one that the recipe wants, and stays however large the collection grows, and where a later package
    has none for these rows. Of the recipe it takes the dimensions; its shrinkage is its own.

    Returns:
        Whether it is in force.
    """
    if recipe.whitening != "pca" or store.whitening_declined():
        return False
    stored = store.whitening()
    if stored is not None and not (stored.learned_here and _SHIPPED in stored.whitening.provenance):
        return False
    shipped = shipped_whitening(recipe.row_fingerprint(), store.weights_sha256 or "")
    if shipped is None:
        return stored is not None
    dim = min(recipe.dim or shipped.dim, shipped.dim)
    if stored is None or stored.whitening.dim != dim:
        store.put_whitening(shipped.first(dim), learned_here=True)
    return True


def learn_if_due(store: Records, recipe: Recipe) -> str:
    """Learns one where the recipe and the collection call for it; says what became of it, to the sole writer."""
    if recipe.whitening != "pca" or store.whitening_declined() or take_shipped(store, recipe):
        return ""
    if not _is_due(store.whitening(), store.count_contents(), recipe):
        return ""
    try:
        fitted = fit(store, recipe)
    except (WhiteningError, np.linalg.LinAlgError, MemoryError) as error:
        return f"no whitening learned: {str(error) or 'it does not fit into memory'}"
    store.put_whitening(fitted, learned_here=True)
    return f"whitening to {fitted.dim} dimensions learned on {fitted.provenance['pictures']} pictures"


def _is_due(stored: StoredWhitening | None, contents: int, recipe: Recipe) -> bool:
    if stored is None:
        return contents >= WHITEN_FROM_PICTURES
    if not stored.learned_here:
        return False
    facts = stored.whitening.provenance
    doubled = contents >= max(WHITEN_FROM_PICTURES, 2 * int(facts["pictures"]))
    return doubled or facts["asked_for"] != _asked_for(recipe)


def _asked_for(recipe: Recipe) -> str:
    """What of a recipe decides a learned whitening, to tell when it is to be learned anew."""
    return f"{recipe.dim} dimensions, shrinkage {recipe.shrinkage}"
