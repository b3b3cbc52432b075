"""Engines: how a processor computes a network. Choices are entries of ``ENGINES``.

Rows of any two engines agree within the tolerance that :class:`coocnet.describe.Describer` states. An engine is
chosen by itself only for weights that this was measured for, whose record names it (``Weights.engines``), and only
where the processor has the instructions; elsewhere it is float32, the same to the bit as without engines.
"""

from coocnet.engines.calibration import Calibration, calibrated
from coocnet.engines.int8 import InInt8
from coocnet.engines.memory import channels_first
from coocnet.engines.table import ENGINES, PLAIN, Engine, chosen_engine, need_engine

__all__ = [
    "ENGINES",
    "PLAIN",
    "Calibration",
    "Engine",
    "InInt8",
    "calibrated",
    "channels_first",
    "chosen_engine",
    "need_engine",
]
