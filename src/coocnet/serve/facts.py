"""What an index holds, as clients are told it: without the places of this machine."""

from __future__ import annotations

import os

from coocnet import __version__
from coocnet.errors import printable
from coocnet.index import Index
from coocnet.recipe import Recipe
from coocnet.serve import models
from coocnet.serve.problems import Places
from coocnet.serve.settings import Settings

_SKIPPED_TOLD = 1000
_WHITENING_TOLD = ("version", "kind", "pictures", "pairs", "rank", "shrinkage", "shipped")


def info_document(index: Index, settings: Settings, places: Places, *, name: str, cut: float | None) -> models.Info:
    """See :meth:`coocnet.index.Index.info`.

    Args:
        index: what is served.
        settings: how.
        places: kept out of what is told.
        name: of the collection.
        cut: the threshold "auto"; None for too few pictures.
    """
    from coocnet.ranking import EXPANSIONS, RERANKINGS  # noqa: PLC0415 - loads scipy, only where needed

    info = index.info()
    approximate = None if info.out_of_force else info.approximate
    can_write = not settings.read_only
    skipped = list(info.skipped.items())[:_SKIPPED_TOLD]
    return models.Info(
        version=__version__,
        name=name,
        pictures=info.pictures,
        contents=info.contents,
        recipe=_recipe_facts(info.recipe, info.dim),
        engines=info.engines,
        whitening=info.whitening and {key: info.whitening[key] for key in _WHITENING_TOLD if key in info.whitening},
        search="exact" if approximate is None else "approximate",
        recall=None if approximate is None else approximate.recall,
        size_bytes=info.size_bytes,
        made=info.made,
        folders=[
            models.Folder(
                number=number,
                name=printable(os.path.basename(one.path) or "/"),
                pictures=one.pictures,
                synchronised=one.synchronised,
            )
            for number, one in enumerate(info.folders)
        ],
        skipped=[models.Skipped(name=index.name_of(path), reason=places.without(why)) for path, why in skipped],
        skipped_total=len(info.skipped),
        auto_threshold=cut,
        expansions=list(EXPANSIONS),
        rerankings=list(RERANKINGS),
        explains=_explains(info.recipe),
        can_add=can_write and bool(settings.add_to),
        can_write=can_write,
        limits=models.Limits(
            upload_bytes=settings.upload_bytes, upload_megapixels=settings.upload_px / 1e6, hits=settings.hits
        ),
    )


def _recipe_facts(recipe: Recipe, dim: int) -> models.RecipeFacts:
    return models.RecipeFacts(
        name=recipe.name,
        fingerprint=recipe.fingerprint(),
        row_fingerprint=recipe.row_fingerprint(),
        backbone=recipe.backbone,
        tap=recipe.tap,
        size_px=recipe.size_px,
        pooling=recipe.pooling,
        dim=dim,
    )


def _explains(recipe: Recipe) -> bool:
    from coocnet.explain import EXPLAINED  # noqa: PLC0415 - loads torch, only where needed

    return recipe.pooling in EXPLAINED and (recipe.scale_power == 1 or len(recipe.scales) == 1)
