"""Engines compute the same rows as float32 within a tolerance, and are chosen where that was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coocnet.backbones import BACKBONES, load_backbone
from coocnet.data.scenes import render
from coocnet.describe import Describer
from coocnet.engines import ENGINES, PLAIN, channels_first
from coocnet.errors import ImageError, InputError
from coocnet.poolings import POOLINGS, PRIORS
from coocnet.recipe import Recipe

LEAST_COSINE = {PLAIN: 1.0 - 1e-6, "bfloat16": 0.999}
"""Of rows of rendered pictures with those of float32."""
FAST = tuple(name for name in ENGINES if name != PLAIN)


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


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_of_every_engine_agree_with_those_of_float32(
    pictures: list[np.ndarray], plain_rows: np.ndarray, engine: str
) -> None:
    rows = rows_of(Describer(engine=engine), pictures)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert (rows * plain_rows).sum(1).min() >= LEAST_COSINE[engine]


@pytest.mark.parametrize("engine", FAST)
def test_rows_of_an_engine_are_its_own(pictures: list[np.ndarray], plain_rows: np.ndarray, engine: str) -> None:
    assert not np.array_equal(rows_of(Describer(engine=engine), pictures), plain_rows)


def test_float32_computes_the_bits_of_the_network_as_it_is_loaded(pictures: list[np.ndarray]) -> None:
    describer, loaded = Describer(Recipe(prior="none"), engine=PLAIN), load_backbone("mini")
    x = (torch.from_numpy(pictures[0])[None].float() - describer._mean) / describer._std
    with torch.inference_mode():
        a = loaded.trunk(x.permute(0, 3, 1, 2), "head").contiguous()
    torch.testing.assert_close(describer.map_of(pictures[0]), a, rtol=0, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prior", PRIORS)
def test_maps_are_float32_whatever_the_engine(pictures: list[np.ndarray], engine: str, prior: str) -> None:
    describer = Describer(Recipe(prior=prior, scales=(1.0, 0.5)), engine=engine)
    maps = describer.maps_of(pictures[0])
    assert [(a.dtype, a.is_contiguous()) for a in maps] == [(torch.float32, True)] * 2
    pooled = POOLINGS[describer.recipe.pooling](maps[0], describer.recipe)
    row = describer.describe_pixels(pictures[0][None])[0]
    assert row @ torch.nn.functional.normalize(pooled)[0].numpy() > 0.5


@pytest.mark.parametrize("engine", FAST)
def test_a_row_of_an_engine_is_the_same_alone_and_in_any_batch(pictures: list[np.ndarray], engine: str) -> None:
    describer, some = Describer(engine=engine), [one[:120, :120] for one in pictures]
    np.testing.assert_allclose(describer.describe_pixels(np.stack(some)), rows_of(describer, some), atol=2e-6)


@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_engine_computes_every_backbone(
    backbone: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = BACKBONES[backbone]
    torch.manual_seed(0)
    plain, changed = record.build().eval(), record.build().eval()
    changed.load_state_dict(plain.state_dict())
    computed = ENGINES[engine].prepared(changed)
    x = torch.rand(1, 3, max(64, record.min_side_px), 80)
    with torch.inference_mode():
        for tap in record.taps:
            expected, found = plain(x, tap), computed(x, tap)
            assert found.dtype == torch.float32
            cosine = torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
            assert cosine > 0.99


def test_without_a_name_the_fastest_measured_engine_of_the_processor_is_taken(native: Callable[..., None]) -> None:
    native(*FAST)
    assert Describer().engine == BACKBONES["mini"].weights["coocnet"].engines[0]


def test_without_a_name_a_processor_that_has_no_other_computes_in_float32(
    native: Callable[..., None], pictures: list[np.ndarray], plain_rows: np.ndarray
) -> None:
    native()
    describer = Describer()
    assert describer.engine == PLAIN
    np.testing.assert_array_equal(rows_of(describer, pictures), plain_rows)


def test_without_a_name_weights_that_were_not_measured_are_computed_in_float32(
    native: Callable[..., None], recipe: Recipe
) -> None:
    native(*FAST)
    assert BACKBONES[recipe.backbone].weights["onnx-zoo"].engines
    assert Describer(recipe).engine == PLAIN


def test_the_shipped_weights_are_known_wherever_they_lie(native: Callable[..., None], tmp_path: Path) -> None:
    native(*FAST)
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes(Describer().weights_place.path.read_bytes())
    assert Describer(Recipe(weights=str(copy))).engine == Describer().engine


@pytest.mark.parametrize("engine", FAST)
def test_an_engine_asked_for_is_used_even_where_the_processor_is_slow_at_it(
    native: Callable[..., None], engine: str
) -> None:
    native()
    assert Describer(engine=engine).engine == engine


def test_the_records_name_engines_that_there_are() -> None:
    named = {name for record in BACKBONES.values() for one in record.weights.values() for name in one.engines}
    assert named <= ENGINES.keys() - {PLAIN}


@pytest.mark.parametrize("engine", ["fp16", "", 3, ("float32",), ["float32"]], ids=repr)
def test_an_unknown_engine_is_refused_before_weights_are_looked_for(engine: Any) -> None:
    with pytest.raises(InputError, match=r"no engine is called .*there are float32, bfloat16"):
        Describer(Recipe.preset("resnet101v2"), engine=engine)  # whose weights are missing


def test_other_devices_than_the_processor_have_no_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coocnet.describe._device", lambda _: torch.device("cuda"))
    with pytest.raises(InputError, match=r"'bfloat16' is one of the processor.*on cuda leave it out"):
        Describer(Recipe.preset("resnet101v2"), engine="bfloat16")


@pytest.mark.parametrize("engine", FAST)
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
