"""The field's evaluation. Needs no model and no index: ground truth and rankings in, numbers out.

A ground truth says which database pictures are right for each query (:class:`GroundTruth`); its setups turn that into
positives and junk (:class:`Truth`); the measures take a ranking of database positions and one such truth.
"""

from coocnet.evaluate.ground_truth import SETUPS, GroundTruth, Query
from coocnet.evaluate.measures import Interval, Truth, average_precision, mean_with_interval, rank

__all__ = [
    "SETUPS",
    "GroundTruth",
    "Interval",
    "Query",
    "Truth",
    "average_precision",
    "mean_with_interval",
    "rank",
]
