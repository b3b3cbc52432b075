"""The field's evaluation. Needs no model and no index: ground truth and rankings in, numbers out.

A ground truth says which database pictures are right for each query (:class:`GroundTruth`); its setups turn that into
positives and junk (:class:`Truth`); the measures take a ranking of database positions and one such truth. Whoever
made the rankings or the rows, they are scored alike, and the numbers are kept with what stands behind them::

    truth = GroundTruth.load("roxford5k.json")
    rows = read_descriptors("theirs.mat", truth)
    scores = score_rows(rows.database, rows.queries, truth)
    said = manifest(truth, rows=made_elsewhere("theirs.mat"), seconds=1.0)
    Result(Benchmark.of(truth), scores, said).save("theirs.json")
"""

from coocnet.evaluate.ground_truth import SETUPS, GroundTruth, Query
from coocnet.evaluate.measures import (
    MEASURES,
    Difference,
    Interval,
    Truth,
    average_precision,
    mean_with_interval,
    measure_named,
    paired_difference,
    places,
    precision_at,
    rank,
    right_among_four,
)
from coocnet.evaluate.provenance import (
    NOT_KNOWN,
    NOTHING_DECLARED,
    OVERLAPS,
    made_by_recipe,
    made_elsewhere,
    manifest,
    overlap_notes,
    picture_set,
)
from coocnet.evaluate.readers import LAYOUTS, Descriptors, read_descriptors, read_rankings
from coocnet.evaluate.result import Benchmark, Compared, Comparison, Result, compare
from coocnet.evaluate.scoring import LENGTHS, Score, score, score_rows

__all__ = [
    "LAYOUTS",
    "LENGTHS",
    "MEASURES",
    "NOTHING_DECLARED",
    "NOT_KNOWN",
    "OVERLAPS",
    "SETUPS",
    "Benchmark",
    "Compared",
    "Comparison",
    "Descriptors",
    "Difference",
    "GroundTruth",
    "Interval",
    "Query",
    "Result",
    "Score",
    "Truth",
    "average_precision",
    "compare",
    "made_by_recipe",
    "made_elsewhere",
    "manifest",
    "mean_with_interval",
    "measure_named",
    "overlap_notes",
    "paired_difference",
    "picture_set",
    "places",
    "precision_at",
    "rank",
    "read_descriptors",
    "read_rankings",
    "right_among_four",
    "score",
    "score_rows",
]
