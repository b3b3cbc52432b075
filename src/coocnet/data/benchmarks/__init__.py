"""The field's benchmarks: fetched, verified, read; or taken from where the user has them.

:func:`open_benchmark` gives the pictures in order and the ground truth; :func:`open_training` pairs to learn from;
:func:`fetch_benchmark` and :func:`check_benchmark` serve both.
"""

from coocnet.data.benchmarks.check import Report
from coocnet.data.benchmarks.opening import (
    OpenedBenchmark,
    check_benchmark,
    fetch_benchmark,
    open_benchmark,
    published_truth,
)
from coocnet.data.benchmarks.place import Progress, data_folder, is_unpacked
from coocnet.data.benchmarks.table import BENCHMARKS, Archive, BenchmarkSource, Pictures, lookup
from coocnet.data.benchmarks.training import Training, TrainingPairs, open_training

__all__ = [
    "BENCHMARKS",
    "Archive",
    "BenchmarkSource",
    "OpenedBenchmark",
    "Pictures",
    "Progress",
    "Report",
    "Training",
    "TrainingPairs",
    "check_benchmark",
    "data_folder",
    "fetch_benchmark",
    "is_unpacked",
    "lookup",
    "open_benchmark",
    "open_training",
    "published_truth",
]
