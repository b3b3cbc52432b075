"""What a collection of some size takes, on paper: machines, hours and bytes, from what was measured on small ones.

Every number is one of :data:`FIGURES`, which says where it comes from, or arithmetic on them that a docstring here
shows. Nothing is measured when a plan is made. A collection of more than a million pictures was never made.
"""

from coocnet.planning.describing import rate_per_core
from coocnet.planning.figures import FIGURES, LIMITS, Figure
from coocnet.planning.planner import CLUSTER, FOLDER, FOLDER_APPROXIMATE, NOTHING, STANDALONE, Plan, count_of, plan
from coocnet.planning.storage import KIND, database_row_bytes

__all__ = [
    "CLUSTER",
    "FIGURES",
    "FOLDER",
    "FOLDER_APPROXIMATE",
    "KIND",
    "LIMITS",
    "NOTHING",
    "STANDALONE",
    "Figure",
    "Plan",
    "count_of",
    "database_row_bytes",
    "plan",
    "rate_per_core",
]
