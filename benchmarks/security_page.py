"""The table of docs/security.md, from the results of fuzzing.

python benchmarks/security_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pages

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "fuzz.json"
PAGE = ROOT / "docs" / "security.md"


def runs(document: dict[str, Any]) -> str:
    """How many inputs of each kind there were, what they took at most, and how they ended."""
    lines = pages.head(
        ["target", "reads", "inputs", "led by coverage", "time, most of", "memory, most of", "ended in"]
    )
    for name, found in document["targets"].items():
        bounds = found["bounds"]
        ended = ", ".join(f"{told} {count:,}" for told, count in found["outcomes"].items())
        cells = [f"{found['runs']:,}", f"{found['by'].get('atheris', 0):,}"]
        cells += [
            f"{found['longest_s']:.2f} of {bounds['time_s']:g} s",
            f"{found['most_mb']:,} of {bounds['memory_mb']:,} MB",
        ]
        lines.append(pages.row([name, found["reads"], *cells, ended]))
    total = sum(found["runs"] for found in document["targets"].values())
    findings = sum(len(found["findings"]) for found in document["targets"].values())
    seeds = sorted({found["seed"] for found in document["targets"].values()})
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items() if name != "coocnet")
    return "\n".join(
        [
            *lines,
            "",
            f"{total:,} inputs; {findings} kinds of findings (FINDING): in `results/fuzz.json`, and below with what"
            f" became of them. `{document['command']}`, {_plural('seed', len(seeds))} "
            f"{', '.join(map(str, seeds))}; {document['processor']}; {versions}.",
        ]
    )


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def main() -> None:
    """Writes the table into the page."""
    pages.written(PAGE, {"runs": runs(json.loads(RESULTS.read_text()))}, by="security_page.py")


if __name__ == "__main__":
    main()
