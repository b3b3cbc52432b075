"""The demo: needs nothing but the package, and never searches its own output."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def demo(photos: Path, output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "examples" / "demo.py", "--photos", photos, "--output", output]
    known = {name: value for name, value in os.environ.items() if name != "COOCNET_WEIGHTS"}
    environment = {**known, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_it_runs_on_photographs_with_nothing_but_the_package(photos: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    output = tmp_path / "found"
    done = demo(photos, output, HOME=str(home), https_proxy="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert f"Pictures in the index: {len(list(photos.iterdir()))}." in done.stdout
    listed = done.stdout.partition("itself left out:")[2].split()
    assert sum(word.endswith(".jpg") for word in listed) == 5
    for name in ("found.png", "heatmap.png"):
        with Image.open(output / name) as picture:
            assert min(picture.size) > 100


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
