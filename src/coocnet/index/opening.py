"""Opening an index, wherever it is."""

from __future__ import annotations

import os

from coocnet.errors import InputError
from coocnet.index.collection import Index
from coocnet.index.local import LocalIndex
from coocnet.index.milvus.address import Address, is_in_milvus
from coocnet.index.store import Store
from coocnet.recipe import Recipe


def open_index(location: str | os.PathLike[str], recipe: Recipe | None = None) -> Index:
    """Opens the index at ``location``; makes it if a recipe is given and there is none.

    Args:
        location: the index's own folder, not that of the photographs; or ``milvus://HOST:PORT/NAME``, with the extra
            "milvus", on a server of Milvus, see :class:`coocnet.index.milvus.address.Address`.
        recipe: how pictures are described; may be left out for an index that exists. One that differs only above
            the rows (whitening, name of the weights) is used in place of the stored one, and stored by the next
            sync.

    Raises:
        InputError: a location that is not a path, or a recipe that is none.
        IndexMissingError: no index there, and no recipe to make one with.
        IndexFileError: not one that can be opened; see :mod:`coocnet.errors`.
        RecipeMismatchError: the index holds rows of another recipe.
    """
    place: object = location
    if not isinstance(place, str | os.PathLike) or "\0" in os.fspath(place):
        raise InputError(f"an index is a folder on this machine or milvus://HOST:PORT/NAME, got {place!r}")
    if recipe is not None and not isinstance(recipe, Recipe):
        raise InputError(f"a recipe is a Recipe, got {recipe!r}; load one with Recipe.load({str(recipe)!r})")
    name = os.fspath(location)
    if is_in_milvus(name):
        from coocnet.index.milvus.index import MilvusIndex  # noqa: PLC0415 - an extra
        from coocnet.index.milvus.records import MilvusRecords  # noqa: PLC0415

        return MilvusIndex(MilvusRecords.open(Address.of(name), recipe), recipe)
    if "://" in name:
        raise InputError(f"an index is a folder on this machine or milvus://HOST:PORT/NAME, got {location!r}")
    return LocalIndex(Store.open(location, recipe), recipe)
