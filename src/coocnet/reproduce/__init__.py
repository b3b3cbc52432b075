"""The paper's tables and figures as data, and what drives them: recipes on benchmarks, resumed, reported honestly.

::

    laboratory = Laboratory("~/benchmarks")
    benchmark = open_benchmark("roxford5k", place="~/benchmarks")
    result = evaluated(benchmark, Describer(Recipe.preset("paper-chco-sct-td")), laboratory)
"""

from coocnet.reproduce.experiment import (
    Laboratory,
    Learned,
    evaluated,
    given_whitening,
    learned_on,
    whitening_of,
    whitening_of_pairs,
)
from coocnet.reproduce.figures import FIGURES
from coocnet.reproduce.filters import given_filter
from coocnet.reproduce.published import PAIRS, TABLES, TIMINGS, published, whitened_on
from coocnet.reproduce.report import Report, write_report
from coocnet.reproduce.tables import SCALED_DOWN_PX, Bench, Change, Outcome
from coocnet.reproduce.timing import Measured, measure
from coocnet.reproduce.tuned import is_tuned, tuned
from coocnet.reproduce.world import Published, Rendered, World

__all__ = [
    "FIGURES",
    "PAIRS",
    "SCALED_DOWN_PX",
    "TABLES",
    "TIMINGS",
    "Bench",
    "Change",
    "Laboratory",
    "Learned",
    "Measured",
    "Outcome",
    "Published",
    "Rendered",
    "Report",
    "World",
    "evaluated",
    "given_filter",
    "given_whitening",
    "is_tuned",
    "learned_on",
    "measure",
    "published",
    "tuned",
    "whitened_on",
    "whitening_of",
    "whitening_of_pairs",
    "write_report",
]
