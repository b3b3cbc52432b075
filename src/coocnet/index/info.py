"""What an index holds, in figures and words."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from coocnet.index import kept, layer
from coocnet.index.approximate import ApproximateInfo, Standing
from coocnet.index.database import DATABASE_NAME, DERIVED_NAMES
from coocnet.index.records import SyncedFolder
from coocnet.index.store import Store
from coocnet.recipe import Recipe


@dataclass(frozen=True)
class IndexInfo:
    """What an index holds.

    Attributes:
        location: its folder or its address.
        recipe: how its rows were made.
        pictures: number of files.
        contents: number of different contents, each with one row.
        dim: dimensions of a stored row; 0 before the first sync.
        weights_sha256: weights in use; None before the first sync.
        engines: what its rows were described by, as :class:`coocnet.describe.Describer` names them; rows of several
            agree. Empty before the first sync, and of an index older than engines.
        whitening: provenance of the whitening in force, or None.
        whitening_declined: the user asked for none.
        folders: the folders it was synchronised with.
        size_bytes: of the index on disk, with what is derived from it; on a server the numbers of its rows alone.
        storage: how rows are kept for searching once there are many.
        rows_are_kept: whether there are so many.
        approximate: the approximate search that was built for these rows, or None.
        out_of_force: why searches are exact though an approximate search was built, or was to be; empty where one is
            in force, or there never was one.
        made: when, UTC.
        skipped: files left out at the last sync, with their reasons.
        thumbnails: the folder or URL where small copies of the pictures are kept; empty for none.
        unfinished: of which index it is an unfinished copy; empty where it is none.
    """

    location: str
    recipe: Recipe
    pictures: int
    contents: int
    dim: int
    weights_sha256: str | None
    engines: list[str]
    whitening: dict[str, str] | None
    whitening_declined: bool
    folders: list[SyncedFolder]
    size_bytes: int
    storage: str
    rows_are_kept: bool
    approximate: ApproximateInfo | None
    out_of_force: str
    made: str
    skipped: dict[str, str]
    thumbnails: str
    unfinished: str


def info_of(store: Store, recipe: Recipe) -> IndexInfo:
    """See :meth:`coocnet.index.LocalIndex.info`."""
    with store.snapshot():
        stored = layer.in_force(store, recipe)
        kind = kept.kind_of(store, None if stored is None else stored.whitening)
        standing = Standing.of(store.location, kind, wholly=True)
        state = kept.state_of(store, recipe)
        return IndexInfo(
            location=str(store.location),
            recipe=store.recipe,
            pictures=store.count_pictures(),
            contents=store.count_contents(),
            dim=store.dim,
            weights_sha256=store.weights_sha256,
            engines=store.engines(),
            whitening=None if stored is None else {"version": str(stored.version), **stored.whitening.provenance},
            whitening_declined=store.whitening_declined(),
            folders=store.folders(),
            size_bytes=_size_bytes(store),
            storage=kept.storage_of(store),
            rows_are_kept=store.count_pictures() >= kept.KEEP_FROM,
            approximate=None if standing.built is None else standing.built.info,
            out_of_force=standing.why_not(state, lambda: store.listing()[1]),
            made=store.meta("made") or "",
            skipped=store.skipped(),
            thumbnails=store.meta("thumbnails") or "",
            unfinished=store.copied_from,
        )


def _size_bytes(store: Store) -> int:
    total = 0
    for file in store.location.glob("*"):
        with suppress(FileNotFoundError):  # another process may be making it anew
            total += file.stat().st_size if file.name.startswith((DATABASE_NAME, *DERIVED_NAMES)) else 0
    return total
