"""Training a co-occurrence filter over a frozen network."""

from coocnet.train.checkpoint import CHECKPOINT
from coocnet.train.examples import Examples, hold_out, of_instances, of_training
from coocnet.train.judge import Gate, Trained
from coocnet.train.loop import Progress, Trainer, need_learnable
from coocnet.train.maps import Maps
from coocnet.train.report import facts_of, write_filter, write_report
from coocnet.train.settings import LOSSES, Settings

__all__ = [
    "CHECKPOINT",
    "LOSSES",
    "Examples",
    "Gate",
    "Maps",
    "Progress",
    "Settings",
    "Trained",
    "Trainer",
    "facts_of",
    "hold_out",
    "need_learnable",
    "of_instances",
    "of_training",
    "write_filter",
    "write_report",
]
