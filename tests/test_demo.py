"""The demo never searches its own output."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def demo(photos: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "examples" / "demo.py", "--photos", photos, "--output", output]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("output", ["photos", "photos/demo-output", "link/deep/er"])
def test_an_output_within_the_photographs_is_refused_before_anything_is_written(
    photos: Path, tmp_path: Path, output: str
) -> None:
    (tmp_path / "link").symlink_to(photos)
    before = sorted(tmp_path.rglob("*"))
    done = demo(photos, tmp_path / output)
    assert done.returncode == 1
    assert f"lies within your photographs in {photos}" in done.stderr
    assert "OUTPUT=" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("output", ["photos-found", "."])
def test_an_output_beside_or_around_the_photographs_is_not(tmp_path: Path, output: str) -> None:
    (tmp_path / "photos").mkdir()
    assert "holds no picture that can be read" in demo(tmp_path / "photos", tmp_path / output).stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_make_passes_photographs_and_output_on(tmp_path: Path) -> None:
    planned = subprocess.run(
        ["make", "-n", "demo", "PHOTOS=my pictures", "OUTPUT=my output"], cwd=ROOT, capture_output=True, text=True
    )
    assert 'demo.py --photos "my pictures" --output "my output"' in planned.stdout
