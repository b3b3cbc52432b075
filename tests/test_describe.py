"""Rows depend on the picture and the recipe alone."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coocnet import ops
from coocnet.describe import Describer
from coocnet.errors import ImageError, InputError, WeightsMissingError
from coocnet.poolings import POOLINGS, PRIORS
from coocnet.recipe import Cooccurrence, Recipe

NAN = float("nan")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Nine files of three sizes, shuffled, one of them smaller than the network's least side."""
    random = np.random.default_rng(0)
    sizes = [(64, 48), (48, 64), (64, 48), (9, 7), (48, 64), (64, 48), (64, 48), (48, 64), (9, 7)]
    paths = []
    for number, (width, height) in enumerate(sizes):
        path = tmp_path / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8)).save(path)
        paths.append(path)
    return paths


def test_rows_are_unit_length_float32_in_the_order_of_the_paths(recipe: Recipe, pictures: list[Path]) -> None:
    describer = Describer(recipe)
    rows = describer.describe(pictures)
    assert rows.shape == (9, describer.dim)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(describer.describe(pictures[::-1]), rows[::-1])


@pytest.mark.slow
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("batch_size", [2, 16])
def test_a_row_is_the_same_alone_and_in_any_batch(
    recipe: Recipe, pictures: list[Path], pooling: str, batch_size: int
) -> None:
    changed = recipe.replace(pooling=pooling, cooccurrence=Cooccurrence(radius_cells=1))
    describer = Describer(changed)
    alone = np.concatenate([describer.describe([path]) for path in pictures])
    together = Describer(changed, batch_size=batch_size).describe(pictures)
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_the_recipe_is_carried_out_step_by_step(recipe: Recipe, pictures: list[Path]) -> None:
    cooccurrence = Cooccurrence(radius_cells=1, epsilon=0.01)
    changed = recipe.replace(pooling="chco-sct", prior="top-down", cooccurrence=cooccurrence)
    describer = Describer(changed)
    pixels = np.array(Image.open(pictures[0])).astype(np.float32) / 255
    weights = describer.backbone_record.weights["onnx-zoo"]
    x = torch.from_numpy((pixels - np.array(weights.mean, "f")) / np.array(weights.std, "f")).permute(2, 0, 1)[None]
    a = describer._loaded.trunk(x, "features")
    a = a * ops.top_down_prior(a.shape[2], a.shape[3], floor=changed.prior_floor)
    ct = ops.direct_cooccurrence(a, radius_cells=1)
    row = ops.unit_rows(ops.chco_sct(a, ct, epsilon=0.01))
    np.testing.assert_allclose(describer.describe(pictures[:1]), row.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"prior": "centre"},
        {"prior": "top-down"},
        {"size_px": 40},
        {"scales": (1.0, 0.5)},
        {"cooccurrence": Cooccurrence(radius_cells=0)},
        {"cooccurrence": Cooccurrence(threshold=0.3)},
        {"cooccurrence": Cooccurrence(quantile=0.95)},
        {"cooccurrence": Cooccurrence(epsilon=0.5)},
    ],
    ids=str,
)
def test_every_option_of_the_recipe_reaches_the_row(
    recipe: Recipe, pictures: list[Path], change: dict[str, object]
) -> None:
    larger = recipe.replace(pooling="chco-sct", size_px=0)
    before, after = (Describer(r).describe(pictures[:1]) for r in (larger, larger.replace(**change)))
    assert np.abs(before - after).max() > 1e-4


def test_several_scales_are_the_mean_of_unit_rows(recipe: Recipe, pictures: list[Path]) -> None:
    one, half, both = (
        Describer(recipe.replace(scales=s)).describe(pictures[:2]) for s in ((1.0,), (0.5,), (1.0, 0.5))
    )
    mean = (one + half) / np.linalg.norm(one + half, axis=1, keepdims=True)
    np.testing.assert_allclose(both, mean, atol=1e-6)


@pytest.mark.slow
def test_a_uniform_picture_has_a_row_without_nan(recipe: Recipe, tmp_path: Path) -> None:
    Image.new("RGB", (80, 60), "black").save(tmp_path / "black.png")
    for pooling in POOLINGS:
        assert np.isfinite(Describer(recipe.replace(pooling=pooling)).describe([tmp_path / "black.png"])).all()


def test_every_prior_is_covered() -> None:
    assert set(PRIORS) == {"none", "centre", "top-down"}


def test_a_bad_file_stops_describe_and_is_passed_on_by_stream(recipe: Recipe, pictures: list[Path]) -> None:
    bad = pictures[0].with_name("bad.png")
    bad.write_text("not a picture")
    describer = Describer(recipe)
    with pytest.raises(ImageError, match=r"bad\.png"):
        describer.describe([pictures[0], bad])
    outcomes = dict(describer.stream([bad, *pictures], describer.load))
    assert isinstance(outcomes[bad], ImageError)
    assert all(isinstance(outcomes[path], np.ndarray) for path in pictures)


def test_a_box_describes_the_part_alone(recipe: Recipe, pictures: list[Path], tmp_path: Path) -> None:
    with Image.open(pictures[0]) as image:
        image.crop((10, 5, 50, 45)).save(tmp_path / "part.png")
    describer = Describer(recipe)
    boxed = describer.describe(pictures[:2], boxes=[(10, 5, 50, 45), None])
    np.testing.assert_allclose(boxed, describer.describe([tmp_path / "part.png", pictures[1]]), atol=1e-6)
    with pytest.raises(InputError, match="1 boxes for 2 paths"):
        describer.describe(pictures[:2], boxes=[None])


def test_pixels_are_described_as_stored_where_asked(recipe: Recipe, pictures: list[Path], tmp_path: Path) -> None:
    turned, tags = tmp_path / "turned.png", Image.Exif()
    tags[0x0112] = 6
    with Image.open(pictures[0]) as image:
        image.save(turned, exif=tags)
    describer = Describer(recipe)
    stored, plain = describer.describe([turned], upright=False), describer.describe(pictures[:1])
    np.testing.assert_array_equal(stored, plain)
    assert not np.array_equal(describer.describe([turned]), plain)


def test_an_endless_supply_is_taken_only_as_it_is_needed(recipe: Recipe, pictures: list[Path]) -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield pictures[taken % len(pictures)]

    describer = Describer(recipe)
    stream = describer.stream(endless(), describer.load)
    for _ in range(5):
        next(stream)
    stream.close()
    assert taken < 100


def test_progress_is_told(recipe: Recipe, pictures: list[Path]) -> None:
    told: list[tuple[int, int]] = []
    Describer(recipe).describe(pictures[:3], progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_missing_weights_say_which_file_and_where_to_put_it() -> None:
    with pytest.raises(WeightsMissingError, match=r"resnet101v2_block3\.safetensors.*COOCNET_WEIGHTS"):
        Describer(Recipe.preset("resnet101v2"))


@pytest.mark.parametrize(("change", "says"), [({"backbone": "vgg19"}, "vgg16"), ({"tap": "pool9"}, "features")])
def test_a_recipe_of_what_does_not_exist_is_refused(recipe: Recipe, change: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Describer(recipe.replace(**change))


@pytest.mark.parametrize(
    "paths", ["q.jpg", Path("q.jpg"), b"q.jpg", 7, None, [Path("q.jpg"), 7], [b"q.jpg"]], ids=repr
)
def test_anything_but_a_list_of_paths_is_refused(recipe: Recipe, paths: Any) -> None:
    with pytest.raises(InputError, match=r"a list of paths, got .*(q\.jpg|7|None)"):
        Describer(recipe).describe(paths)


def test_any_iterable_of_paths_will_do(recipe: Recipe, pictures: list[Path]) -> None:
    describer = Describer(recipe)
    np.testing.assert_array_equal(describer.describe(path for path in pictures), describer.describe(pictures))
    assert describer.describe([]).shape == (0, describer.dim)


@pytest.mark.parametrize(
    "box", [(1, 2, 3), (1, 2, 3, 4, 5), "1234", ("1", "2", "3", "4"), (0, 0, NAN, 9), (0, 0, True, 9), 7], ids=repr
)
def test_a_box_that_is_not_four_numbers_is_refused(recipe: Recipe, pictures: list[Path], box: Any) -> None:
    with pytest.raises(InputError, match=r"four numbers .*got .*(5|3|4|nan|True|7)"):
        Describer(recipe).describe(pictures[:2], boxes=[None, box])


def test_boxes_may_be_rows_of_an_array(recipe: Recipe, pictures: list[Path]) -> None:
    describer = Describer(recipe)
    boxes = [(0, 0, 40, 40), (2, 3, 30, 40)]
    rows = describer.describe(pictures[:2], boxes=np.array(boxes, np.float32))
    np.testing.assert_array_equal(rows, describer.describe(pictures[:2], boxes=boxes))
    with pytest.raises(InputError, match="list of boxes, got 7"):
        describer.describe(pictures[:2], boxes=7)


@pytest.mark.parametrize("given", ["mobile", {"backbone": "vgg16"}, ""], ids=repr)
def test_a_name_instead_of_a_recipe_says_how_to_load_it(given: Any) -> None:
    says = f"Recipe.load({given!r})" if isinstance(given, str) else "Recipe.load(NAME_OR_FILE)"
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        Describer(given)
    assert f"got {given!r}" in str(caught.value)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "4"], ids=repr)
def test_a_batch_of_no_pictures_is_refused(recipe: Recipe, batch_size: Any) -> None:
    with pytest.raises(InputError, match=f"batch_size .*got {batch_size!r}"):
        Describer(recipe, batch_size=batch_size)


@pytest.mark.parametrize("device", ["foo", "", "meta", "cuda:99", torch.device("cuda", 99), 3.5], ids=repr)
def test_a_device_that_is_not_here_is_refused_before_weights_are_looked_for(device: Any) -> None:
    with pytest.raises(InputError, match=rf"'{device}'.*there is cpu"):
        Describer(Recipe.preset("resnet101v2"), device=device)  # whose weights are missing


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none(recipe: Recipe) -> None:
    with pytest.raises(InputError, match=r"'cuda'.*there is cpu"):
        Describer(recipe, device="cuda")


PIXELS = np.full((2, 40, 50, 3), 100, np.uint8)


@pytest.mark.parametrize(
    ("pixels", "quoted"),
    [
        (PIXELS / np.float32(255), r"float32 \(2, 40, 50, 3\)"),
        (PIXELS[0], r"uint8 \(40, 50, 3\)"),
        (PIXELS[..., :1], r"\(2, 40, 50, 1\)"),
        (PIXELS.transpose(0, 3, 1, 2), r"\(2, 3, 40, 50\)"),
        (PIXELS[:, :0], r"\(2, 0, 50, 3\)"),
        (torch.from_numpy(PIXELS), "Tensor"),
        ([PIXELS], "list"),
        (None, "NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pixels_of_another_kind_or_shape_are_refused(recipe: Recipe, pixels: Any, quoted: str) -> None:
    with pytest.raises(InputError, match=r"uint8 \(b, h, w, 3\), got .*" + quoted):
        Describer(recipe).describe_pixels(pixels)


def test_the_map_is_of_one_picture_alone(recipe: Recipe) -> None:
    describer = Describer(recipe)
    assert describer.map_of(PIXELS[0]).shape[:2] == (1, describer.dim)
    with pytest.raises(InputError, match=r"uint8 \(h, w, 3\), got .*\(2, 40, 50, 3\)"):
        describer.map_of(PIXELS)


def test_pixels_that_may_not_be_written_are_described(recipe: Recipe) -> None:
    describer = Describer(recipe)
    read_only = np.asarray(Image.fromarray(PIXELS[0]))
    np.testing.assert_array_equal(describer.describe_pixels(read_only[None]), describer.describe_pixels(PIXELS[:1]))


OUT_OF_MEMORY = {
    "CUDA": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 16.00 GiB."),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "macOS": RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    "Linux": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    "C++": RuntimeError("std::bad_alloc"),
    "Python": MemoryError(),
}


def failing_on_white(describer: Describer, error: Exception) -> Describer:
    """The network as it is, but for a batch with a white picture in it."""
    trunk = describer._loaded.trunk

    def failing(x: torch.Tensor, tap: str) -> torch.Tensor:
        if (x > 2).all(dim=3).all(dim=2).all(dim=1).any():
            raise error
        return trunk(x, tap)

    describer._loaded = dataclasses.replace(describer._loaded, trunk=failing)
    return describer


@pytest.fixture
def greys(tmp_path: Path) -> list[Path]:
    """Five files of one size, the third of them white."""
    paths = [tmp_path / f"grey{number}.png" for number in range(5)]
    for path, grey in zip(paths, (0, 40, 255, 80, 120), strict=True):
        Image.new("L", (64, 48), grey).save(path)
    return paths


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_of_a_batch_only_the_picture_that_memory_does_not_suffice_for_is_passed_over(
    recipe: Recipe, greys: list[Path], batch_size: int, error: Exception
) -> None:
    describer = Describer(recipe.replace(size_px=0), batch_size=batch_size)
    expected = dict(zip(greys, describer.describe(greys), strict=True))
    outcomes = dict(failing_on_white(describer, error).stream(greys, describer.load))
    refused = outcomes.pop(greys[2])
    assert isinstance(refused, ImageError)
    assert refused.path == str(greys[2])
    assert refused.reason == "out of memory at 64x48 pixels: give the recipe's size_px a limit"
    assert outcomes.keys() == expected.keys() - {greys[2]}
    for path, row in outcomes.items():
        np.testing.assert_allclose(row, expected[path], atol=2e-6)


def test_where_there_is_a_limit_and_memory_does_not_suffice_a_lower_one_is_advised(
    recipe: Recipe, greys: list[Path]
) -> None:
    describer = failing_on_white(Describer(recipe.replace(size_px=40)), MemoryError())
    with pytest.raises(ImageError, match=r"grey2\.png: out of memory at 40x30 pixels: lower .*size_px, 40 now"):
        describer.describe(greys)
    with pytest.raises(InputError, match="out of memory at 40x30"):
        describer.channel_mean(greys[2:3])


def test_another_error_of_the_network_is_no_matter_of_memory(recipe: Recipe, greys: list[Path]) -> None:
    describer = failing_on_white(Describer(recipe), RuntimeError("a size that does not fit"))
    with pytest.raises(RuntimeError, match="a size that does not fit"):
        list(describer.stream(greys, describer.load))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to an amount of memory")
def test_a_sync_goes_on_past_a_picture_that_memory_really_does_not_suffice_for(
    recipe: Recipe, photos: Path, place: Path
) -> None:
    Image.new("RGB", (2000, 2000), "grey").save(photos / "instance000_huge.png")
    code = (
        "import resource, sys\n"
        "from coocnet import Describer, Recipe, open_index\n"
        "describer = Describer(Recipe.load(sys.argv[1]))\n"
        "describer.describe([sys.argv[2] + '/instance000_view00.jpg'])\n"
        "held = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (held + (300 << 20),) * 2)\n"
        "with open_index(sys.argv[3], describer.recipe) as index:\n"
        "    report = index.sync(sys.argv[2], describer=describer)\n"
        "print(report.added, *report.skipped, sep='\\n')\n"
    )
    recipe_file = place.with_suffix(".toml")
    recipe_file.write_text(recipe.replace(size_px=0).to_toml())
    done = subprocess.run(
        [sys.executable, "-c", code, recipe_file, photos, place],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "18",
        f"{photos / 'instance000_huge.png'}: out of memory at 2000x2000 pixels: give the recipe's size_px a limit",
    ], done.stderr


def test_the_mean_over_scales_may_be_a_power_mean(recipe: Recipe, photos: Path) -> None:
    paths = sorted(photos.iterdir())[:2]
    scales = (1.0, 0.7, 0.5)
    powered = recipe.replace(pooling="gem", scales=scales, scale_power=2.5)
    each = [
        Describer(recipe.replace(pooling="gem", scales=(scale,))).describe(paths).astype(float) for scale in scales
    ]
    mean = np.mean([row**2.5 for row in each], axis=0) ** (1 / 2.5)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(Describer(powered).describe(paths), expected, atol=1e-5)
    plain = Describer(powered.replace(scale_power=1.0)).describe(paths)
    assert np.abs(plain - expected).max() > 1e-3
