"""Writes requirements.lock: exact versions and the hashes of their files, which pip verifies.

python deploy/lock.py        needs uv, which the extra "lock" brings

Versions are those of constraints.txt, for every supported Python and system. PyTorch is left out, for it has no one
set of files: its builds for processors, for CUDA and for ROCm are of different places, and the lock of one would
refuse the others. What it needs beside itself is in the lock, so that it installs with --no-deps.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
EXTRAS = ("ann", "evaluate", "fast", "heic", "milvus", "rerank", "serve")
"""What the lock holds beside what everything needs: all that people run, without what developers do."""
LEFT_OUT = "torch"
OF_TORCH = (
    "filelock",
    "fsspec",
    "jinja2",
    "networkx>=2.5.1",
    "setuptools",
    "sympy>=1.13.3",
    "typing-extensions>=4.10.0",
)
"""What PyTorch's build for processors says that it needs."""
_HEAD = """\
# Exact versions and the hashes of their files, for: pip install --require-hashes --requirement requirements.lock
# Written by deploy/lock.py (make lock) from pyproject.toml and constraints.txt; without PyTorch, see SECURITY.md.
"""


def wanted() -> list[str]:
    """The requirements that the lock resolves, each for the Pythons that are supported."""
    document: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = document["project"]
    found = [*project["dependencies"], *document["build-system"]["requires"]]
    for extra in EXTRAS:
        found += project["optional-dependencies"][extra]
    supported = re.findall(r"Python :: 3\.(\d+)", "\n".join(project["classifiers"]))
    marker = f"python_version < '3.{max(map(int, supported)) + 1}'"
    named = [one for one in found if re.split(r"[^\w.-]", one, maxsplit=1)[0] != LEFT_OUT]
    return [_marked(one, marker) for one in (*named, *OF_TORCH)]


def _marked(requirement: str, marker: str) -> str:
    name, _, own = requirement.partition(";")
    return f"{name.strip()}; {marker} and ({own.strip()})" if own else f"{name.strip()}; {marker}"


def main() -> None:
    """Resolves, and writes the lock."""
    with tempfile.TemporaryDirectory() as folder:
        asked, without, made = (Path(folder) / name for name in ("asked.in", "without.txt", "made.txt"))
        asked.write_text("\n".join(wanted()) + "\n")
        without.write_text(f"{LEFT_OUT}; python_version < '3'\n")  # for those that would bring it along
        words = ["uv", "pip", "compile", asked, "--universal", "--python-version", "3.10", "--generate-hashes"]
        words += ["--no-python-downloads"]
        words += ["--constraint", ROOT / "constraints.txt", "--override", without, "--no-annotate", "--no-header"]
        words += ["--output-file", made]
        subprocess.run(list(map(str, words)), check=True, cwd=folder, stdout=subprocess.DEVNULL)
        LOCK.write_text(_HEAD + made.read_text())


if __name__ == "__main__":
    main()
