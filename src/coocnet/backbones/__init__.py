"""Backbones: convolutional trunks, their records, and how their weights are found and loaded."""

from coocnet.backbones.loading import (
    LoadedBackbone,
    WeightsPlace,
    find_weights,
    load_backbone,
    locate_weights,
    lookup,
    need_weights,
    read_checkpoint,
    weights_cache,
)
from coocnet.backbones.record import Backbone, Step, Tap, Trunk, Weights
from coocnet.backbones.table import BACKBONES

__all__ = [
    "BACKBONES",
    "Backbone",
    "LoadedBackbone",
    "Step",
    "Tap",
    "Trunk",
    "Weights",
    "WeightsPlace",
    "find_weights",
    "load_backbone",
    "locate_weights",
    "lookup",
    "need_weights",
    "read_checkpoint",
    "weights_cache",
]
