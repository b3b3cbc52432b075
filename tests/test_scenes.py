"""The rendered scenes: deterministic, varied, with ground truth that is true."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coocnet.data.scenes import MANIFEST_NAME, make_scenes, render
from coocnet.errors import InputError


def test_the_same_numbers_give_the_same_files(tmp_path: Path, scenes) -> None:
    make_scenes(tmp_path, instances=2, views=1, size_px=160)
    for path in tmp_path.rglob("*.jpg"):
        first = scenes[0] / path.relative_to(tmp_path)
        if path.parent.name == "database":
            assert path.read_bytes() == first.read_bytes()


def test_another_seed_gives_other_pictures() -> None:
    assert np.any(np.asarray(render(0, 0, size_px=96)[0]) != np.asarray(render(0, 0, seed=1, size_px=96)[0]))


def test_views_of_an_instance_differ_and_so_do_instances() -> None:
    pictures = [render(instance, view, size_px=96)[0].resize((32, 32)) for instance in range(3) for view in range(3)]
    arrays = [np.asarray(picture, float) for picture in pictures]
    for i, one in enumerate(arrays):
        for other in arrays[:i]:
            assert np.abs(one - other).mean() > 5


def test_the_manifest_lists_every_file_with_its_role_and_box(scenes) -> None:
    folder, views = scenes
    with (folder / MANIFEST_NAME).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image"] for row in rows] == [view.path for view in views]
    assert {row["image"] for row in rows} == {str(p.relative_to(folder)) for p in folder.rglob("*.jpg")}
    assert [row["role"] for row in rows].count("query") == 6
    assert [row["role"] for row in rows].count("database") == 18
    for view in views:
        with Image.open(folder / view.path) as image:
            x1, y1, x2, y2 = view.box
            assert 0 <= x1 < x2 <= image.width
            assert 0 <= y1 < y2 <= image.height
            assert (x2 - x1) * (y2 - y1) > 0.04 * image.width * image.height


@pytest.mark.parametrize("numbers", [(0, 1, 160), (1, 0, 160), (1, 1, 10)])
def test_impossible_numbers_are_refused(numbers: tuple[int, int, int], tmp_path: Path) -> None:
    instances, views, size_px = numbers
    with pytest.raises(InputError, match=f"{instances} instances, {views} views, {size_px} pixels"):
        make_scenes(tmp_path, instances=instances, views=views, size_px=size_px)
    assert not list(tmp_path.iterdir())
