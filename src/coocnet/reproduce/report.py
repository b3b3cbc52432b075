"""A report of what was reproduced: published, ours, difference; as Markdown and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

import coocnet
from coocnet.document import Part, write_document
from coocnet.reproduce.figures import Figure
from coocnet.reproduce.published import Table
from coocnet.reproduce.tables import Outcome
from coocnet.reproduce.timing import Measured

_MOST_SAID = 240


@dataclass
class Report:
    """What stands in a report, in order.

    Attributes:
        said: about the whole: what was used in place of what, what was never tried.
        tables: name, table and outcomes of each.
        timings: rows of table 6.
        figures: what was drawn.
    """

    said: list[str] = field(default_factory=list)
    tables: list[tuple[str, Table, list[Outcome]]] = field(default_factory=list)
    timings: list[Measured] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


def write_report(report: Report, folder: Path) -> None:
    """Writes ``report.md`` and ``report.html`` beside the pictures that they show.

    Raises:
        InputError: they cannot be written.
    """
    write_document(_parts(report), folder, "report")


def rows_of(table: Table, outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """A line for each figure: row, benchmark, setup, published, ours with its interval, difference, note."""
    lines: list[tuple[str, ...]] = []
    for outcome in outcomes:
        for (of, setup), value in zip(table.columns, outcome.row.published, strict=True):
            if of != outcome.benchmark or value is None:
                continue
            ours = outcome.measured(setup)
            note = "; ".join(filter(None, (outcome.row.note, _incomplete(outcome))))
            lines.append(
                (
                    outcome.row.label,
                    of,
                    setup or "all",
                    f"{value:.2f}",
                    "" if ours is None else f"{ours:.2f} {_interval(outcome, setup)}",
                    "" if ours is None else f"{ours - value:+.2f}",
                    note,
                )
            )
    return lines


def _parts(report: Report) -> list[Part]:
    parts = [Part(f"Reproduction of Forcén et al. 2020 by coocnet {coocnet.__version__}", 1, tuple(report.said))]
    for name, table, outcomes in report.tables:
        made = [outcome for outcome in outcomes if outcome.result]
        head = ("row", "benchmark", "setup", "published", "ours [95 %]", "difference", "note")
        counted = f"{len(made)} of {len(outcomes)} rows were made. mAP in percent."
        doubts = tuple(f"Doubt: {doubt}" for doubt in table.doubts)
        said = (counted, *_benchmarks_here(made), *doubts)
        parts.append(Part(f"{name}: {table.title}", 2, said, (head, *rows_of(table, made)) if made else ()))
        missing: dict[str, list[str]] = {}
        for outcome in outcomes:
            if outcome.result is None:
                missing.setdefault(outcome.missing, []).append(f"{outcome.row.label} on {outcome.benchmark}")
        if missing:
            gone = tuple((str(len(rows)), reason, "; ".join(rows)) for reason, rows in missing.items())
            parts.append(Part("Missing", 3, (), (("rows", "reason", "which"), *gone)))
    if report.timings:
        parts.append(_timings(report.timings))
    parts += [Part(one.title, 3, (one.said,), (), one.file) for one in report.figures]
    return parts


def _benchmarks_here(outcomes: Sequence[Outcome]) -> list[str]:
    """What of each benchmark was here, where it was not all."""
    said = dict[str, None]()
    for outcome in outcomes:
        about = outcome.result.benchmark if outcome.result else None
        amiss = str(outcome.result.manifest.get("incomplete", "no")) if outcome.result else "no"
        if about is not None and amiss != "no":
            short = amiss if len(amiss) <= _MOST_SAID else f"{amiss[:_MOST_SAID]} …"
            said[
                f"Not {outcome.benchmark} as published: {about.pictures:,} of its pictures, {about.queries} of "
                f"its queries: {short}"
            ] = None
    return list(said)


def _timings(measured: Sequence[Measured]) -> Part:
    head = ("map", "direct", "Shih et al.", "ratio", "ours: direct", "ours: Shih et al.", "ours: ratio")
    rows = []
    for one in measured:
        size = f"{one.of.height} × {one.of.width} × {one.of.channels}"
        for count, theirs, ours in (
            ("", (one.of.direct_ms, one.of.shih_ms), (one.direct_ms, one.shih_ms)),
            (", five", (one.of.direct_five_ms, one.of.shih_five_ms), (one.direct_five_ms, one.shih_five_ms)),
        ):
            cells = (*_pair(*theirs, "out of memory"), *_pair(*ours, "not tried"))
            rows.append((size + count, *cells))
    said = (
        "Milliseconds. Published on a GTX 1080 Ti; the first figure exceeds what that card computes for r = 4. "
        f"Ours on this machine's processor ({torch.get_num_threads()} threads), medians, closed form: ratios can "
        "be compared, the times cannot. Where a call of Shih et al. would have taken minutes it was not tried."
    )
    return Part("table6: time", 2, (said,), (head, *rows))


def _pair(direct_ms: float, shih_ms: float | None, without: str) -> tuple[str, str, str]:
    if shih_ms is None:
        return f"{direct_ms:.3f}", without, ""
    return f"{direct_ms:.3f}", f"{shih_ms:.1f}", f"{shih_ms / direct_ms:.0f}"


def _interval(outcome: Outcome, setup: str) -> str:
    scores = outcome.result.scores if outcome.result else ()
    interval = next((one.interval for one in scores if (one.setup, one.measure) == (setup, "map")), None)
    return "" if interval is None else f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def _incomplete(outcome: Outcome) -> str:
    said = str(outcome.result.manifest.get("incomplete", "no")) if outcome.result else "no"
    whitening = outcome.result.manifest.get("whitening") if outcome.result else None
    fewer = whitening.get("dim") if isinstance(whitening, dict) and "dim_asked_for" in whitening else None
    own = whitening.get("pictures_scored_too") if isinstance(whitening, dict) else 0
    notes = [
        "" if said == "no" else "benchmark incomplete",
        f"whitened to {fewer}" if fewer else "",
        f"whitened on {own} of the pictures that are scored" if isinstance(own, int) and own else "",
    ]
    return "; ".join(filter(None, notes))
