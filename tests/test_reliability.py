"""The page of reliability says what the campaign of faults counted."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_page_is_the_one_that_the_results_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("benchmarks", "docs", "results"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.npz", "images", "__pycache__"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "benchmarks"), *sys.path])
    monkeypatch.delitem(sys.modules, "pages", raising=False)
    runpy.run_path(str(tmp_path / "benchmarks" / "faults_page.py"), run_name="__main__")
    page = Path("docs") / "reliability.md"
    assert (tmp_path / page).read_text() == (ROOT / page).read_text()
