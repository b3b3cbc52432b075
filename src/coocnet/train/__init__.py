"""Training a co-occurrence filter over a frozen network."""

from coocnet.train.checkpoint import CHECKPOINT
from coocnet.train.examples import Examples, hold_out, of_instances, of_training
from coocnet.train.judge import Gate
from coocnet.train.loop import Progress, Trained, Trainer
from coocnet.train.maps import Maps
from coocnet.train.report import write_report
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
    "hold_out",
    "of_instances",
    "of_training",
    "write_report",
]
