"""The fine-tuned baseline of the paper's table 7: a published checkpoint with an exponent and a whitening."""

from __future__ import annotations

import numpy as np

from coocnet.backbones import load_backbone, read_checkpoint
from coocnet.errors import WeightsMismatchError, printable
from coocnet.fetch import Progress
from coocnet.recipe import TUNED_GEM, Recipe
from coocnet.whitening import Whitening

_LEARNED_ON = "retrieval-SfM-120k"


def is_tuned(recipe: Recipe) -> bool:
    """Whether the recipe is of the fine-tuned baseline."""
    return recipe.weights == TUNED_GEM


def tuned(recipe: Recipe, *, progress: Progress | None = None) -> tuple[Recipe, Whitening]:
    """The recipe with GeM's exponent from the checkpoint, and the whitening that lies in it.

    cirtorch averages over scales with the same exponent. The checkpoint's ``meta`` has a whitening for one scale
    ("ss") and for several ("ms").

    Source: Radenović et al. 2018; the layout is that of cnnimageretrieval-pytorch.

    Raises:
        WeightsMissingError: the checkpoint is not here and cannot be downloaded.
        WeightsMismatchError: it has no exponent, or no whitening of the kind.
    """
    place = load_backbone(recipe.backbone, recipe.weights, progress=progress).place
    content = read_checkpoint(place.path)
    try:
        power = float(content["state_dict"]["pool.p"])
        kind = "ms" if len(recipe.scales) > 1 else "ss"
        learned = content["meta"]["Lw"][_LEARNED_ON][kind]
        mean, projection = (np.asarray(learned[key], np.float64) for key in ("m", "P"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsMismatchError(
            f"{printable(place.path)} is not a fine-tuned GeM checkpoint with a whitening learned on {_LEARNED_ON}: "
            f"{error!r}"
        ) from error
    power = round(power, 6)
    chosen = recipe.replace(gem_power=power, scale_power=power if len(recipe.scales) > 1 else 1.0)
    provenance = {
        "kind": "pairs",
        "fitted_on": _LEARNED_ON,
        "row_fingerprint": chosen.row_fingerprint(),
        "weights_sha256": place.sha256,
        "source": place.path.name,
    }
    dim = min(recipe.dim or len(projection), len(projection))
    return chosen, Whitening(mean.reshape(-1).astype(np.float32), projection[:dim].astype(np.float32), provenance)
