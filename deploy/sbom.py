"""Writes a bill of materials (CycloneDX): what an installation of coocnet consists of, with versions and licences.

python deploy/sbom.py [FILE] [--extras serve,ann]

It is read from the environment of this Python by cyclonedx-py. What only developers have is left out: components stay
that coocnet needs, directly or not, with the extras named.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = ("ann", "evaluate", "fast", "heic", "milvus", "rerank", "reproduce", "serve")
"""All that people run, without what developers and clusters do."""
LICENCES = {"protobuf": "BSD-3-Clause"}
"""Of packages whose metadata name none, from their licence files."""


def normal(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(name: str, extras: frozenset[str]) -> set[tuple[str, frozenset[str]]]:
    """What an installed package asks for on this Python, with the extras of each."""
    found = set()
    for text in requires(name) or ():
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            found.add((normal(one.name), frozenset(one.extras)))
    return found


def closure(extras: tuple[str, ...]) -> dict[str, set[str]]:
    """All packages that coocnet needs here, and what each of them needs.

    Raises:
        SystemExit: one is not installed.
    """
    below: dict[str, set[str]] = {}
    todo, seen = [("coocnet", frozenset(extras))], set()
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            found = needed(name, wanted)
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed here: pip install 'coocnet[{','.join(extras)}]'") from None
        below.setdefault(name, set()).update(other for other, _ in found)
        todo += found
    return below


def bill(extras: tuple[str, ...]) -> dict[str, Any]:
    """The document."""
    words = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")]
    words += ["--output-reproducible", "--mc-type", "library", sys.executable]
    document: dict[str, Any] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    below = closure(extras)
    kept = {normal(one["name"]): one for one in document["components"] if normal(one["name"]) in below}
    kept.pop("coocnet", None)
    for name, licence in LICENCES.items():
        if name in kept:
            kept[name].setdefault("licenses", [{"license": {"id": licence}}])
    document["metadata"]["component"]["version"] = version("coocnet")
    root = document["metadata"]["component"]["bom-ref"]
    refs = {"coocnet": root} | {name: one["bom-ref"] for name, one in kept.items()}
    document["components"] = [kept[name] for name in sorted(kept)]
    document["dependencies"] = [
        {"ref": refs[name], "dependsOn": sorted(refs[other] for other in below[name])} for name in sorted(refs)
    ]
    return document


def main() -> None:
    """Writes the bill of this environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path, nargs="?", default=ROOT / "build" / "coocnet.cdx.json")
    parser.add_argument("--extras", default=",".join(EXTRAS), help="that are installed, with commas between")
    asked = parser.parse_args()
    document = bill(tuple(filter(None, asked.extras.split(","))))
    asked.file.parent.mkdir(parents=True, exist_ok=True)
    asked.file.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{len(document['components'])} components: {asked.file}")


if __name__ == "__main__":
    main()
