"""Pictures for people: heat maps, explanations, and a query with what it found. Arrays in, images out."""

from coocnet.viz.drawing import Labelled, checked_target, decimals, save
from coocnet.viz.explanation import explanation
from coocnet.viz.sheets import BELOW_ZERO, blank, heat_over, heatmap, montage

__all__ = [
    "BELOW_ZERO",
    "Labelled",
    "blank",
    "checked_target",
    "decimals",
    "explanation",
    "heat_over",
    "heatmap",
    "montage",
    "save",
]
