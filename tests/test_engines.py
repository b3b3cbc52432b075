"""Engines compute the same rows as float32 within a tolerance, and are chosen where that was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from coocnet.backbones import BACKBONES, LoadedBackbone, Step, Trunk, WeightsPlace, load_backbone
from coocnet.data.scenes import render
from coocnet.describe import Describer
from coocnet.engines import ENGINES, PLAIN, Calibration, InInt8, calibrated, channels_first
from coocnet.engines.memory import halved
from coocnet.errors import ImageError, InputError
from coocnet.fetch import sha256_of
from coocnet.poolings import POOLINGS, PRIORS
from coocnet.recipe import Recipe
from coocnet.shipped import SHIPPED

LEAST_COSINE = {PLAIN: 1.0 - 1e-6, "bfloat16": 0.9995, "int8": 0.998}
"""Of rows of rendered pictures with those of float32."""
FAST = tuple(name for name in ENGINES if name != PLAIN)


def here(*names: str) -> list[Any]:
    """Engines as parameters, skipped where this processor cannot compute them."""
    lacking = {name for name in names if ENGINES[name].needs and not ENGINES[name].is_native()}
    reason = "the processor has no instructions for it"
    return [pytest.param(name, marks=pytest.mark.skipif(name in lacking, reason=reason)) for name in names]


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Decides which engines the processor has."""

    def only(*names: str) -> None:
        for name, engine in ENGINES.items():
            has = name in names or name == PLAIN
            monkeypatch.setitem(ENGINES, name, replace(engine, is_native=lambda has=has: has))

    return only


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Rendered pictures of two sizes."""
    return [np.array(render(instance, 0, size_px=size)[0]) for instance in range(3) for size in (200, 256)]


@pytest.fixture(scope="module")
def plain_rows(pictures: list[np.ndarray]) -> np.ndarray:
    return rows_of(Describer(engine=PLAIN), pictures)


def rows_of(describer: Describer, pictures: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([describer.describe_pixels(pixels[None]) for pixels in pictures])


@pytest.mark.parametrize("engine", here(*ENGINES))
def test_rows_of_every_engine_agree_with_those_of_float32(
    pictures: list[np.ndarray], plain_rows: np.ndarray, engine: str
) -> None:
    rows = rows_of(Describer(engine=engine), pictures)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert (rows * plain_rows).sum(1).min() >= LEAST_COSINE[engine]


@pytest.mark.parametrize("engine", here(*FAST))
def test_rows_of_an_engine_are_its_own(pictures: list[np.ndarray], plain_rows: np.ndarray, engine: str) -> None:
    assert not np.array_equal(rows_of(Describer(engine=engine), pictures), plain_rows)


def test_float32_computes_the_bits_of_the_network_as_it_is_loaded(pictures: list[np.ndarray]) -> None:
    describer, loaded = Describer(Recipe(prior="none"), engine=PLAIN), load_backbone("mini")
    x = (torch.from_numpy(pictures[0])[None].float() - describer._mean) / describer._std
    with torch.inference_mode():
        a = loaded.trunk(x.permute(0, 3, 1, 2), "head").contiguous()
    torch.testing.assert_close(describer.map_of(pictures[0]), a, rtol=0, atol=0)


@pytest.mark.parametrize("engine", here(*ENGINES))
@pytest.mark.parametrize("prior", PRIORS)
def test_maps_are_float32_whatever_the_engine(pictures: list[np.ndarray], engine: str, prior: str) -> None:
    describer = Describer(Recipe(prior=prior, scales=(1.0, 0.5)), engine=engine)
    maps = describer.maps_of(pictures[0])
    assert [(a.dtype, a.is_contiguous()) for a in maps] == [(torch.float32, True)] * 2
    pooled = POOLINGS[describer.recipe.pooling](maps[0], describer.recipe)
    row = describer.describe_pixels(pictures[0][None])[0]
    assert row @ torch.nn.functional.normalize(pooled)[0].numpy() > 0.5


@pytest.mark.parametrize("engine", here(*FAST))
def test_a_row_of_an_engine_is_the_same_alone_and_in_any_batch(pictures: list[np.ndarray], engine: str) -> None:
    describer, some = Describer(engine=engine), [one[:120, :120] for one in pictures]
    np.testing.assert_allclose(describer.describe_pixels(np.stack(some)), rows_of(describer, some), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("engine", here(*FAST))
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_engine_computes_every_backbone(
    backbone: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = BACKBONES[backbone]
    torch.manual_seed(0)
    monkeypatch.setattr("coocnet.engines.table._SCENES", 2)
    monkeypatch.setattr("coocnet.engines.table._SCENE_PX", 96)
    plain, place = record.build().eval().requires_grad_(False), WeightsPlace(tmp_path, "", "0")
    pixels = torch.from_numpy(np.array(render(3, 0, size_px=96)[0])).permute(2, 0, 1)[None] / 255
    x = (pixels - 0.45) / 0.22
    for tap in record.taps:
        changed = record.build().eval().requires_grad_(False)
        changed.load_state_dict(plain.state_dict())
        loaded = LoadedBackbone(changed, record, next(iter(record.weights.values())), place)
        with torch.inference_mode():
            if engine == "int8" and not plain.steps(tap):
                with pytest.raises(InputError, match=r"'int8' does not know how .* is made; take 'bfloat16'"):
                    ENGINES[engine].prepared(loaded, tap)
                continue
            expected, found = plain(x, tap), ENGINES[engine].prepared(loaded, tap)(x, tap)
        assert found.dtype == torch.float32
        assert found.is_contiguous()
        assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99


def test_without_a_name_the_fastest_measured_engine_of_the_processor_is_taken(native: Callable[..., None]) -> None:
    native(*FAST)
    native("bfloat16", "int8")
    assert Describer().engine == BACKBONES["mini"].weights["coocnet"].engines[0]
    native("bfloat16")
    assert Describer().engine == "bfloat16"


def test_without_a_name_a_processor_that_has_no_other_computes_in_float32(
    native: Callable[..., None], pictures: list[np.ndarray], plain_rows: np.ndarray
) -> None:
    native()
    describer = Describer()
    assert describer.engine == PLAIN
    np.testing.assert_array_equal(rows_of(describer, pictures), plain_rows)


def test_without_a_name_weights_that_were_not_measured_are_computed_in_float32(
    native: Callable[..., None], tmp_path: Path
) -> None:
    native(*FAST)
    tensors = load_file(Describer().weights_place.path)
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, tmp_path / "other.safetensors")
    assert Describer(Recipe(weights=str(tmp_path / "other.safetensors"))).engine == PLAIN


def test_the_shipped_weights_are_known_wherever_they_lie(native: Callable[..., None], tmp_path: Path) -> None:
    native(*FAST)
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes(Describer().weights_place.path.read_bytes())
    assert Describer(Recipe(weights=str(copy))).engine == Describer().engine


def test_an_engine_asked_for_is_used_where_the_processor_is_slow_at_it(native: Callable[..., None]) -> None:
    native()
    assert Describer(engine="bfloat16").engine == "bfloat16"


def test_an_engine_that_the_processor_cannot_compute_is_refused(native: Callable[..., None]) -> None:
    native("bfloat16")
    with pytest.raises(InputError, match=r"'int8' needs AVX512-VNNI, which is not here; leave it out"):
        Describer(Recipe.preset("resnet101v2"), engine="int8")  # whose weights are missing


def test_the_records_name_engines_that_there_are() -> None:
    named = {name for record in BACKBONES.values() for one in record.weights.values() for name in one.engines}
    assert named <= ENGINES.keys() - {PLAIN}


@pytest.mark.parametrize("engine", ["fp16", "", 3, ("float32",), ["float32"]], ids=repr)
def test_an_unknown_engine_is_refused_before_weights_are_looked_for(engine: Any) -> None:
    with pytest.raises(InputError, match=r"no engine is called .*there are float32, bfloat16, int8"):
        Describer(Recipe.preset("resnet101v2"), engine=engine)  # whose weights are missing


def test_other_devices_than_the_processor_have_no_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coocnet.describe._device", lambda _: torch.device("cuda"))
    with pytest.raises(InputError, match=r"'bfloat16' is one of the processor.*on cuda leave it out"):
        Describer(Recipe.preset("resnet101v2"), engine="bfloat16")


@pytest.mark.parametrize("engine", here(*FAST))
def test_a_picture_that_memory_does_not_suffice_for_is_named_by_every_engine(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    describer, path = Describer(engine=engine), tmp_path / "large.png"
    render(0, 0, size_px=64)[0].save(path)
    monkeypatch.setattr(describer._loaded.trunk, "forward", full)
    with pytest.raises(ImageError, match=r"large\.png: out of memory at"):
        describer.describe([path])


needs_int8 = pytest.mark.skipif(not ENGINES["int8"].is_native(), reason="the processor has no VNNI")


def one_step(trunk: Trunk, step: Step, c: Calibration, stored: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a convolution gives, by the definition of a calibration, in float64: q of its output, or the map."""

    def meant(name: str) -> torch.Tensor:
        return (stored[name].double() - c.zero[name]) * c.unit[name] * c.share[name].double()[:, None, None]

    layer = trunk.get_submodule(step.layer)
    share = c.share[step.source].double()[:, None, None]
    worth = (layer.weight * share).abs().amax((1, 2, 3))[:, None, None, None] / 127
    weight = (layer.weight * share / worth).round() * worth / share
    bias = layer.bias + c.correction[step.layer]
    y = torch.nn.functional.conv2d(meant(step.source), weight, bias, layer.stride, layer.padding)
    y = y + meant(step.add) if step.add else y
    y = torch.relu(y) if step.relu else y
    if step.layer not in c.unit:
        return y
    unit = c.unit[step.layer] * c.share[step.layer].double()[:, None, None]
    return ((y / unit).round() + c.zero[step.layer]).clamp(0, 255)


@needs_int8
def test_int8_computes_step_by_step_what_its_calibration_says(pictures: list[np.ndarray]) -> None:
    plain, calibration = load_backbone("mini").trunk.double(), Calibration.load(SHIPPED / "mini-int8.safetensors")[0]
    whole = InInt8(load_backbone("mini").trunk, "head", calibration, stem=torch.float32)
    with torch.inference_mode():
        x = Describer(engine=PLAIN)._network_input(pictures[0][None])
        y = torch.relu(plain.stem1(torch.relu(plain.stem0(x.double()))))
        unit = calibration.unit["stem1"] * calibration.share["stem1"].double()[:, None, None]
        stored = {"stem1": (y / unit).round().clamp(0, 255).to(torch.uint8)}
        off = (whole._stem(x).clamp(0, 255).to(torch.uint8).int() - stored["stem1"].int()).abs()
        assert off.max() <= 1
        assert off.float().mean() < 1e-3
        for step, computed in whole._steps:
            expected = one_step(plain, step, calibration, stored)
            found = computed(stored[step.source], stored[step.add].clone() if step.add else None)
            if step.layer == "head":
                torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=1e-4)
                break
            off = (found.double() - expected).abs()
            assert off.max() <= 1  # where float32 and float64 round a half differently
            assert off.mean() < 1e-3
            stored[step.layer] = found


def test_the_shipped_calibration_is_of_the_shipped_weights() -> None:
    file = BACKBONES["mini"].weights["coocnet"].calibration
    assert Calibration.load(SHIPPED / file)[1] == sha256_of(SHIPPED / "mini.safetensors")


@needs_int8
def test_other_weights_are_calibrated_on_rendered_scenes(
    pictures: list[np.ndarray], plain_rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coocnet.engines.table.shipped_calibration", lambda _: None)
    rows = rows_of(Describer(engine="int8"), pictures)
    assert (rows * plain_rows).sum(1).min() >= 0.995


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    describer, file = Describer(engine=PLAIN), tmp_path / "c.safetensors"
    with torch.inference_mode():
        made = calibrated(describer._loaded.trunk, "head", [describer._network_input(pictures[0][None])])
    made.save(file, weights_sha256="0a")
    read, digest = Calibration.load(file)
    assert digest == "0a"
    assert (read.unit, read.zero) == (made.unit, made.zero)
    torch.testing.assert_close((read.share, read.correction), (made.share, made.correction), rtol=0, atol=0)


def test_channels_that_are_added_or_pooled_have_one_share_and_the_ends_have_none(pictures: list[np.ndarray]) -> None:
    x = torch.from_numpy(pictures[0]).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        mini = calibrated(load_backbone("mini").trunk, "head", [x], stem=2)
        vgg = calibrated(BACKBONES["vgg16"].build(), "pool5", [x[:, :, :64, :64]])
    assert mini.share.keys() == mini.unit.keys()
    assert "stem1" in mini.unit
    assert not {"stem0", "head"} & mini.unit.keys()
    assert torch.equal(mini.share["blocks.2.skip"], mini.share["blocks.5.second"])
    assert not torch.equal(mini.share["blocks.4.first"], mini.share["blocks.5.first"])
    assert torch.equal(vgg.share["features.2"], vgg.share["features.4"])
    assert "features.28" not in vgg.unit


@pytest.mark.parametrize("shape", [(1, 3, 8, 6), (2, 5, 7, 9), (1, 1, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bfloat16])
def test_maps_are_halved_as_by_max_pooling(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    a = (torch.rand(shape) * 250).to(dtype).contiguous(memory_format=torch.channels_last)
    assert torch.equal(halved(a).float(), torch.nn.functional.max_pool2d(a.float(), 2, 2))


@pytest.mark.parametrize("shape", [(1, 5, 7, 3), (3, 16, 4, 6), (2, 1, 1, 1), (1, 130, 70, 65)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_are_brought_channels_first_to_the_bit(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    a = torch.rand(shape).to(dtype).contiguous(memory_format=layout)
    found = channels_first(a)
    assert found.is_contiguous()
    assert torch.equal(found, a)
