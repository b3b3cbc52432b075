"""coocnet finds the same building, object or scene in a collection of photographs.

>>> import coocnet as cn                                          # doctest: +SKIP
>>> index = cn.open_index("photos.cooc", cn.Recipe())             # doctest: +SKIP
>>> index.sync("~/Pictures")                                      # doctest: +SKIP
>>> describer = cn.Describer(index.recipe)                        # doctest: +SKIP
>>> index.search(describer.describe(["query.jpg"]), k=10)         # doctest: +SKIP

Importing this does nothing but define names: torch is loaded with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from coocnet import errors, ops
    from coocnet.backbones import BACKBONES
    from coocnet.describe import Describer
    from coocnet.errors import CoocnetError
    from coocnet.index import Hit, LocalIndex, SyncReport, open_index
    from coocnet.poolings import POOLINGS
    from coocnet.recipe import PRESETS, Cooccurrence, Recipe
    from coocnet.whitening import Whitening, fit_pairs, fit_pca

_HOMES = {
    "BACKBONES": "coocnet.backbones",
    "Cooccurrence": "coocnet.recipe",
    "CoocnetError": "coocnet.errors",
    "Describer": "coocnet.describe",
    "Hit": "coocnet.index",
    "LocalIndex": "coocnet.index",
    "POOLINGS": "coocnet.poolings",
    "PRESETS": "coocnet.recipe",
    "Recipe": "coocnet.recipe",
    "SyncReport": "coocnet.index",
    "Whitening": "coocnet.whitening",
    "errors": "coocnet.errors",
    "fit_pairs": "coocnet.whitening",
    "fit_pca": "coocnet.whitening",
    "open_index": "coocnet.index",
    "ops": "coocnet.ops",
}

__all__ = [
    "BACKBONES",
    "POOLINGS",
    "PRESETS",
    "Cooccurrence",
    "CoocnetError",
    "Describer",
    "Hit",
    "LocalIndex",
    "Recipe",
    "SyncReport",
    "Whitening",
    "errors",
    "fit_pairs",
    "fit_pca",
    "open_index",
    "ops",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'coocnet' has no attribute {name!r}")
    home = import_module(_HOMES[name])
    value = home if _HOMES[name] == f"coocnet.{name}" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
