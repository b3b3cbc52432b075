"""Networks: what each entry of the table promises, whose weights fit, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from coocnet.backbones import (
    BACKBONES,
    LoadedBackbone,
    Trunk,
    Weights,
    find_weights,
    load_backbone,
    loading,
    locate_weights,
    lookup,
    weights_cache,
)
from coocnet.backbones.resnetv2 import _max_pool_same
from coocnet.errors import InputError, WeightsMismatchError, WeightsMissingError
from coocnet.fetch import sha256_of


@pytest.fixture(scope="module", params=BACKBONES)
def name(request: pytest.FixtureRequest) -> str:
    """Each backbone of the table in turn."""
    return request.param


@pytest.fixture(scope="module")
def trunk(name: str) -> Trunk:
    """That backbone with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BACKBONES[name].build().eval()


def pixels(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


# ---- what every entry of the table promises ----


@pytest.mark.parametrize(("height", "width"), [(32, 47), (64, 64), (97, 224), (33, 512)])
def test_a_map_has_the_declared_channels_and_stride(name: str, trunk: Trunk, height: int, width: int) -> None:
    with torch.inference_mode():
        for tap_name, tap in BACKBONES[name].taps.items():
            batch, channels, h, w = trunk(pixels(1, 3, height, width), tap_name).shape
            assert (batch, channels) == (1, tap.channels)
            assert abs(h - height // tap.stride_px) <= 1
            assert abs(w - width // tap.stride_px) <= 1


def test_the_smallest_side_is_the_smallest_that_gives_a_cell_at_every_tap(name: str, trunk: Trunk) -> None:
    record = BACKBONES[name]

    def fewest_cells(side_px: int) -> int:
        with torch.inference_mode():
            return min(min(trunk(pixels(1, 3, side_px, side_px), tap).shape[2:]) for tap in record.taps)

    assert fewest_cells(record.min_side_px) >= 1
    if record.min_side_px > 1:
        with pytest.raises(RuntimeError, match=r"too small|greater than"):
            fewest_cells(record.min_side_px - 1)


def test_a_map_is_nowhere_negative(name: str, trunk: Trunk) -> None:
    with torch.inference_mode():
        for tap in BACKBONES[name].taps:
            a = trunk(pixels(2, 3, 64, 64), tap)
            assert a.dtype == torch.float32
            assert a.min() >= 0
            assert a.max() > 0


def test_nothing_is_computed_that_the_map_does_not_need(name: str, trunk: Trunk) -> None:
    leaves = {path: module for path, module in trunk.named_modules() if path and not list(module.children())}
    parameters = dict(trunk.named_parameters())
    ran: set[str] = set()
    hooks = [module.register_forward_hook(lambda *_, path=path: ran.add(path)) for path, module in leaves.items()]
    runs = []
    for tap in BACKBONES[name].taps:
        ran.clear()
        total = trunk(pixels(1, 3, 32, 32), tap).sum()
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        needed = {path for path, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
        assert {path for path in parameters if path.rpartition(".")[0] in ran} == needed
        runs.append(frozenset(ran))
    for hook in hooks:
        hook.remove()
    runs.sort(key=len)
    assert all(earlier < later for earlier, later in pairwise(runs))
    assert runs[-1] == leaves.keys(), "a module that no tap needs"


def test_every_record_of_weights_is_complete(name: str) -> None:
    assert BACKBONES[name].weights
    for weights in BACKBONES[name].weights.values():
        assert Path(weights.file).name == weights.file
        assert weights.sha256 is None or re.fullmatch("[0-9a-f]{8,64}", weights.sha256)
        assert all(re.match(r"https?://\S+$", url) and url.endswith(weights.file) for url in weights.urls)
        assert len(weights.mean) == len(weights.std) == 3
        assert min(weights.std) > 0
        assert weights.source
        assert weights.licence


@pytest.mark.parametrize(
    ("backbone", "wanted"), [("vgg16", 14_714_688), ("resnet50", 23_508_032), ("resnet101", 42_500_160)]
)
def test_a_trunk_has_the_parameters_of_the_published_network(backbone: str, wanted: int) -> None:
    with torch.device("meta"):
        trunk = BACKBONES[backbone].build()
    assert sum(parameter.numel() for parameter in trunk.parameters()) == wanted


# ---- the networks against plain ones ----


def random_half(generator: torch.Generator, *shape: int) -> Tensor:
    """Random filters that keep the scale of what runs through them; 16 bits, to be quick to write."""
    fan_in = torch.Size(shape[1:]).numel()
    return (torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5).half()


def assert_same_map(got: Tensor, wanted: Tensor) -> None:
    assert wanted.max() > 0
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4 * wanted.max().item())


VGG16_CHANNELS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256}
VGG16_CHANNELS |= dict.fromkeys((17, 19, 21, 24, 26, 28), 512)
"""torchvision's number of each convolution -> its channels; numbers 4, 9, 16, 23 and 30 are the pools."""


@pytest.fixture(scope="module")
def vgg16() -> dict[str, Tensor]:
    """Random tensors under the names of torchvision's features alone."""
    generator = torch.Generator().manual_seed(2)
    tensors, c_in = {}, 3
    for number, c_out in VGG16_CHANNELS.items():
        tensors[f"{number}.weight"] = random_half(generator, c_out, c_in, 3, 3)
        tensors[f"{number}.bias"] = torch.randn(c_out, generator=generator).half() * 0.1
        c_in = c_out
    return tensors


def plain_vgg16(x: Tensor, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """conv5_3 and pool5."""
    before = x
    for number in range(31):
        if number in VGG16_CHANNELS:
            weight, bias = (tensors[f"{number}.{part}"].float() for part in ("weight", "bias"))
            x = functional.conv2d(x, weight, bias, padding=1).clamp(min=0)
        elif number in (4, 9, 16, 23, 30):
            before, x = x, functional.max_pool2d(x, 2, 2)
    return before, x


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["features alone", "whole network", "checkpoint", "safetensors"])
def test_vgg16_loads_from_every_layout(layout: str, vgg16: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / ("vgg.safetensors" if layout == "safetensors" else "vgg.pth")
    whole = {f"features.{name}": tensor for name, tensor in vgg16.items()} | {"classifier.6.bias": torch.zeros(9)}
    if layout == "safetensors":
        save_file(whole, path)
    else:
        torch.save(
            {"features alone": vgg16, "whole network": whole, "checkpoint": {"state_dict": whole}}[layout], path
        )
    loaded = load_backbone("vgg16", str(path))
    x = pixels(2, 3, 40, 64)
    for tap, wanted in zip(("conv5_3", "pool5"), plain_vgg16(x, vgg16), strict=True):
        assert_same_map(loaded.trunk(x, tap), wanted)


@pytest.fixture(scope="module")
def resnet50() -> dict[str, Tensor]:
    """Random tensors under the names of torchvision's ResNet-50, as before the counter of batches."""
    generator = torch.Generator().manual_seed(3)
    tensors: dict[str, Tensor] = {}

    def convolution_and_norm(convolution: str, norm: str, c_in: int, c_out: int, size: int) -> None:
        tensors[f"{convolution}.weight"] = random_half(generator, c_out, c_in, size, size)
        for part, centre in (("weight", 0.6), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            tensors[f"{norm}.{part}"] = (centre + 0.1 * torch.rand(c_out, generator=generator)).half()

    convolution_and_norm("conv1", "bn1", 3, 64, 7)
    c_in = 64
    for stage, (units, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for unit in range(units):
            at = f"layer{stage}.{unit}."
            convolution_and_norm(f"{at}conv1", f"{at}bn1", c_in, width, 1)
            convolution_and_norm(f"{at}conv2", f"{at}bn2", width, width, 3)
            convolution_and_norm(f"{at}conv3", f"{at}bn3", width, 4 * width, 1)
            if unit == 0:
                convolution_and_norm(f"{at}downsample.0", f"{at}downsample.1", c_in, 4 * width, 1)
            c_in = 4 * width
    return tensors | {"fc.weight": torch.zeros(5, 2048), "fc.bias": torch.zeros(5)}


def plain_resnet50(x: Tensor, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Stages 3 and 4."""

    def run(x: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        weight = tensors[f"{convolution}.weight"].float()
        y = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        scale, shift, mean, variance = (
            tensors[f"{norm}.{part}"].float()[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (y - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = functional.max_pool2d(run(x, "conv1", "bn1", 2).clamp(min=0), 3, 2, padding=1)
    stages = []
    for stage, units in enumerate((3, 4, 6, 3), 1):
        for unit in range(units):
            at, stride = f"layer{stage}.{unit}.", 2 if unit == 0 and stage > 1 else 1
            y = run(x, f"{at}conv1", f"{at}bn1").clamp(min=0)
            y = run(y, f"{at}conv2", f"{at}bn2", stride).clamp(min=0)
            y = run(y, f"{at}conv3", f"{at}bn3")
            shortcut = run(x, f"{at}downsample.0", f"{at}downsample.1", stride) if unit == 0 else x
            x = (y + shortcut).clamp(min=0)
        stages.append(x)
    return stages[2], stages[3]


def test_resnet50_loads_from_torchvisions_layout(resnet50: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(resnet50, tmp_path / "resnet50.pth")
    loaded = load_backbone("resnet50", str(tmp_path / "resnet50.pth"))
    x = pixels(1, 3, 64, 75)
    for tap, wanted in zip(("layer3", "layer4"), plain_resnet50(x, resnet50), strict=True):
        assert_same_map(loaded.trunk(x, tap), wanted)


def plain_max_pool_same(x: np.ndarray) -> np.ndarray:
    """3×3, stride 2: ceil(n/2) windows, what they exceed the side by is split, the odd cell after the end."""
    h, w = x.shape
    rows, columns = -(-h // 2), -(-w // 2)
    top, left = (max((count - 1) * 2 + 3 - side, 0) // 2 for count, side in ((rows, h), (columns, w)))
    out = np.empty((rows, columns), x.dtype)
    for row in range(rows):
        for column in range(columns):
            i, j = 2 * row - top, 2 * column - left
            out[row, column] = x[max(i, 0) : i + 3, max(j, 0) : j + 3].max()
    return out


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 7), (6, 7), (9, 4), (1, 1), (2, 2), (1, 5), (3, 112)])
def test_the_pool_with_same_padding_is_that_of_tensorflow(height: int, width: int) -> None:
    x = pixels(2, 3, height, width) - 5
    got = _max_pool_same(x)
    for image in range(2):
        for channel in range(3):
            np.testing.assert_array_equal(got[image, channel], plain_max_pool_same(x[image, channel].numpy()))


CHECKED = {
    "resnet101v2": {"block3_preact_1024_stride16": "block3", "block2_preact_512_stride16": "block2"},
    "mobilenetv2": {"features_1280_stride32": "features", "expand_576_stride16": "expand"},
    "squeezenet1_1": {"features_512_stride16": "features"},
}
"""Backbone -> what the golden numbers call a tap -> what we call it."""


@pytest.mark.parametrize("backbone", CHECKED)
def test_trained_networks_give_their_golden_numbers(
    backbone: str, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = real_data / "weights"
    monkeypatch.setenv("COOCNET_WEIGHTS", str(folder))
    loaded = load_backbone(backbone)
    assert loaded.place.found_in == "COOCNET_WEIGHTS"
    golden = json.loads((folder / loaded.weights.file).with_suffix(".json").read_text(encoding="utf-8"))
    assert list(loaded.weights.mean) == golden["input"]["mean"]
    assert list(loaded.weights.std) == golden["input"]["std"]
    check = golden["check"]
    with Image.open(folder / check["input"]) as image:
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    x = (x - torch.tensor(loaded.weights.mean)[:, None, None]) / torch.tensor(loaded.weights.std)[:, None, None]
    taps = {check["tap"]: check, **check["other_taps"]}
    assert taps.keys() == CHECKED[backbone].keys()
    tolerance = float(check["suggested_tolerance"].split()[0])
    for theirs, wanted in taps.items():
        a = loaded.trunk(x, CHECKED[backbone][theirs]).double()
        assert list(a.shape) == wanted["shape"]
        channel_means = a.mean((0, 2, 3))[:8].tolist()
        assert channel_means == pytest.approx(wanted["first_8_of_channel_mean"], rel=tolerance)
        assert a.mean().item() == pytest.approx(wanted["mean"], rel=tolerance)
        assert a.std(correction=0).item() == pytest.approx(wanted["std_population"], rel=tolerance)
        assert a.max().item() == pytest.approx(wanted["max"], rel=tolerance)
        assert (a == 0).double().mean().item() == pytest.approx(wanted["fraction_zero"], abs=tolerance)


# ---- weights that fit, and those that do not ----

SMALL = "squeezenet1_1"


def test_a_loaded_network_is_ready_for_use(random_weights: Path) -> None:
    loaded = load_backbone(SMALL, str(random_weights))
    assert loaded.record is BACKBONES[SMALL]
    assert loaded.place == loading.WeightsPlace(random_weights, "named by the user", sha256_of(random_weights))
    assert not any(module.training for module in loaded.trunk.modules())
    for parameter in loaded.trunk.parameters():
        assert (parameter.dtype, parameter.device.type, parameter.requires_grad) == (torch.float32, "cpu", False)


def test_a_named_file_brings_the_record_of_its_name(vgg16: dict[str, Tensor], tmp_path: Path) -> None:
    caffe = BACKBONES["vgg16"].weights["caffe"]
    for file, wanted in ((caffe.file, "caffe"), ("mine.pth", "torchvision")):
        torch.save(vgg16, tmp_path / file)
        assert load_backbone("vgg16", str(tmp_path / file)).weights is BACKBONES["vgg16"].weights[wanted]


def refusal(path: Path, backbone: str = SMALL) -> str:
    with pytest.raises(WeightsMismatchError) as caught:
        load_backbone(backbone, str(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    return message


def changed(random_weights: Path, tmp_path: Path, **changes: Tensor | None) -> Path:
    """The random weights with some tensors put in, or taken out where the change is None."""
    tensors = {**load_file(random_weights), **changes}
    path = tmp_path / "changed.safetensors"
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    return path


def test_a_missing_tensor_is_refused_by_name(random_weights: Path, tmp_path: Path) -> None:
    message = refusal(changed(random_weights, tmp_path, conv7_bias=None))
    assert message.endswith(f"does not fit {SMALL}: missing: conv7.bias")


def test_an_unknown_tensor_is_refused_by_name(random_weights: Path, tmp_path: Path) -> None:
    message = refusal(changed(random_weights, tmp_path, conv77_bias=torch.zeros(2)))
    assert message.endswith(f"does not fit {SMALL}: not known: conv77.bias")


def test_a_tensor_of_another_shape_is_refused_with_both_shapes(random_weights: Path, tmp_path: Path) -> None:
    message = refusal(changed(random_weights, tmp_path, conv1_bias=torch.zeros(17)))
    assert message.endswith(f"does not fit {SMALL}: of another shape: conv1.bias (17,) instead of (16,)")


def test_weights_of_another_network_are_refused_with_every_kind_of_problem(random_weights: Path) -> None:
    message = refusal(random_weights, "mobilenetv2")
    six = ", ".join(f"layer{number}.{part}" for number in range(3) for part in ("weight", "bias"))
    assert f"missing: {six} and {2 * 52 - 6} more; not known: conv0.bias" in message


def test_a_filter_of_whole_numbers_is_refused(random_weights: Path, tmp_path: Path) -> None:
    message = refusal(changed(random_weights, tmp_path, conv1_bias=torch.zeros(16, dtype=torch.int8)))
    assert "conv1.bias" in message


def test_two_tensors_for_one_place_are_refused(random_weights: Path, tmp_path: Path) -> None:
    assert "conv1.bias" in refusal(changed(random_weights, tmp_path, **{"conv1.bias": torch.ones(16)}))


class Code:
    """What makes a folder as soon as it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("container", ["pickle", "torch", "torch before 1.6"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_code_in_a_weights_file_is_never_run(container: str, suffix: str, tmp_path: Path) -> None:
    path, marker = tmp_path / f"weights{suffix}", tmp_path / "marker"
    content = {"conv0.weight": torch.zeros(2), "conv0.bias": Code(marker)}
    if container == "pickle":
        path.write_bytes(pickle.dumps(Code(marker)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "torch")
    assert "is not a file of tensors" in refusal(path)
    assert not marker.exists()
    with path.open("rb") as stream:
        pickle.load(stream) if container == "pickle" else torch.load(stream, weights_only=False)
    assert marker.exists(), "the test's file holds no code"


@pytest.mark.parametrize("file", ["w.pth", "w.pt", "w.safetensors", "w"])
@pytest.mark.parametrize("content", [b"", b"hello", b"Dear diary,\ntoday", b"\0" * 5000, b"\x80\x02", b"PK\x03\x04"])
def test_other_files_are_refused(file: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(content)
    assert "is not a file of tensors" in refusal(tmp_path / file)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_file_is_refused(suffix: str, random_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    tensors = load_file(random_weights)
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    content = path.read_bytes()
    for share in (0.0001, 0.1, 0.5, 0.9999):
        path.write_bytes(content[: int(len(content) * share)])
        assert "is not a file of tensors" in refusal(path)


@pytest.mark.slow
def test_a_truncated_file_of_the_older_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"conv0.weight": torch.zeros(64, 3, 3, 3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for length in range(0, len(content), 61):
        path.write_bytes(content[:length])
        refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {"conv0.weight": 1.0},
        {"state_dict": {"conv0.weight": "x"}},
        pytest.param(
            {0: torch.zeros(3)},
        ),
    ],
)
def test_what_is_no_table_of_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    assert "does not hold a table of named tensors" in refusal(tmp_path / "weights.pth")


# ---- names ----


def test_an_unknown_backbone_is_answered_with_those_there_are() -> None:
    for ask in (lookup, load_backbone):
        with pytest.raises(InputError) as caught:
            ask("vgg19")
        assert str(caught.value) == f"no backbone is called 'vgg19'; there are {', '.join(BACKBONES)}"


def test_an_unknown_tap_is_answered_with_those_there_are(name: str) -> None:
    with pytest.raises(InputError) as caught:
        lookup(name, "relu9")
    assert str(caught.value) == f"{name} has no tap 'relu9'; it has {', '.join(BACKBONES[name].taps)}"


def test_unknown_weights_are_answered_with_those_there_are(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_backbone(name, "gone.pth")
    assert "'gone.pth'" in str(caught.value)
    assert f"it has {', '.join(BACKBONES[name].weights)}, or give the path of a file" in str(caught.value)


def test_the_first_tap_is_the_default(name: str) -> None:
    record = BACKBONES[name]
    assert lookup(name) == (record, next(iter(record.taps.values())))
    for tap in record.taps:
        assert lookup(name, tap) == (record, record.taps[tap])


# ---- where weights are found ----


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folder that COOCNET_WEIGHTS names, and the cache; both empty."""
    named = tmp_path / "named"
    monkeypatch.setenv("COOCNET_WEIGHTS", str(named))
    for folder in (named, weights_cache()):
        folder.mkdir(parents=True)
    return named, weights_cache()


@pytest.fixture
def wanted(random_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """The record of the random weights, which stands in the table for this test."""
    record = BACKBONES[SMALL]
    (name,) = record.weights
    weights = replace(record.weights[name], file="random.safetensors", sha256=sha256_of(random_weights), urls=())
    replace_weights(monkeypatch, weights)
    return weights


def replace_weights(monkeypatch: pytest.MonkeyPatch, weights: Weights) -> None:
    (name,) = BACKBONES[SMALL].weights
    monkeypatch.setitem(BACKBONES, SMALL, replace(BACKBONES[SMALL], weights={name: weights}))


def test_the_named_folder_comes_before_the_cache(
    folders: tuple[Path, Path], wanted: Weights, random_weights: Path
) -> None:
    named, cache = folders
    assert find_weights(wanted) is None
    for folder, found_in in ((cache, "cache"), (named, "COOCNET_WEIGHTS")):
        (folder / wanted.file).write_bytes(random_weights.read_bytes())
        place = loading.WeightsPlace(folder / wanted.file, found_in, wanted.sha256, verified=True)
        assert find_weights(wanted) == place
        assert load_backbone(SMALL).place == find_weights(wanted)


@pytest.mark.parametrize("digits", [8, 64])
def test_a_file_with_a_known_name_and_other_bytes_is_refused_with_both_digests(
    folders: tuple[Path, Path], wanted: Weights, digits: int
) -> None:
    assert wanted.sha256
    expected = wanted.sha256[:digits]
    for folder in folders:
        path = folder / wanted.file
        path.write_bytes(b"other")
        with pytest.raises(WeightsMismatchError) as caught:
            find_weights(replace(wanted, sha256=expected))
        message = str(caught.value)
        assert message.startswith(f"{path} has SHA-256 {sha256_of(path)}, but {wanted.file} has {expected}. ")
        path.unlink()


def test_the_leading_digits_of_the_digest_are_enough(
    folders: tuple[Path, Path], wanted: Weights, random_weights: Path
) -> None:
    assert wanted.sha256
    (folders[0] / wanted.file).write_bytes(random_weights.read_bytes())
    place = find_weights(replace(wanted, sha256=wanted.sha256[:8]))
    assert place is not None
    assert place.sha256 == wanted.sha256


def test_without_a_known_digest_the_name_is_enough(folders: tuple[Path, Path], wanted: Weights) -> None:
    (folders[0] / wanted.file).write_bytes(b"other")
    place = find_weights(replace(wanted, sha256=None))
    assert place is not None
    assert place.sha256 == sha256_of(folders[0] / wanted.file)


def missing() -> str:
    with pytest.raises(WeightsMissingError) as caught:
        load_backbone(SMALL)
    return str(caught.value)


def assert_tells_where_to_put_it(message: str, wanted: Weights) -> None:
    for needed in (wanted.file, "COOCNET_WEIGHTS", str(weights_cache()), "--weights"):
        assert needed in message


def test_missing_weights_without_a_download_tell_where_to_put_them(
    folders: tuple[Path, Path], wanted: Weights
) -> None:
    message = missing()
    assert_tells_where_to_put_it(message, wanted)
    assert "no public download" in message
    assert wanted.source in message


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(loading, "fetch", partial(loading.fetch, pause_s=0))


@pytest.mark.usefixtures("no_pause")
def test_missing_weights_without_a_network_name_the_url(
    folders: tuple[Path, Path], wanted: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:1/{wanted.file}"
    replace_weights(monkeypatch, replace(wanted, urls=(url,)))
    message = missing()
    assert_tells_where_to_put_it(message, wanted)
    assert url in message
    assert "refused" in message


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL under which its files can be had."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("no_pause")
def test_missing_weights_are_downloaded_into_the_cache_once(
    served: tuple[Path, str], wanted: Weights, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = served
    (folder / wanted.file).write_bytes(random_weights.read_bytes())
    replace_weights(monkeypatch, replace(wanted, urls=(f"{url}/{wanted.file}",)))
    steps: list[int] = []
    loaded = load_backbone(SMALL, progress=lambda done, _: steps.append(done))
    assert loaded.place == loading.WeightsPlace(weights_cache() / wanted.file, "cache", wanted.sha256, verified=True)
    assert steps[-1] == random_weights.stat().st_size
    (folder / wanted.file).unlink()
    again: LoadedBackbone = load_backbone(SMALL)
    torch.testing.assert_close(again.trunk.state_dict(), loaded.trunk.state_dict(), rtol=0, atol=0)


def test_a_download_without_a_known_checksum_counts_as_unverified(
    served: tuple[Path, str], wanted: Weights, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = served
    (folder / wanted.file).write_bytes(random_weights.read_bytes())
    replace_weights(monkeypatch, replace(wanted, sha256=None, urls=(f"{url}/{wanted.file}",)))
    assert not load_backbone(SMALL).place.verified
    assert not load_backbone(SMALL).place.verified


def test_weights_are_located_without_a_download(
    served: tuple[Path, str], wanted: Weights, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = served
    (folder / wanted.file).write_bytes(random_weights.read_bytes())
    replace_weights(monkeypatch, replace(wanted, urls=(f"{url}/{wanted.file}",)))
    assert locate_weights(SMALL) is None
    place = load_backbone(SMALL).place
    assert locate_weights(SMALL) == place
    assert locate_weights(SMALL, str(random_weights)).sha256 == place.sha256
    with pytest.raises(InputError, match="no such file"):
        locate_weights(SMALL, "none.pth")


@pytest.mark.usefixtures("no_pause")
def test_a_download_with_other_bytes_is_not_kept(
    served: tuple[Path, str], wanted: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = served
    (folder / wanted.file).write_bytes(b"other")
    replace_weights(monkeypatch, replace(wanted, urls=(f"{url}/{wanted.file}",)))
    assert sha256_of(folder / wanted.file) in missing()
    assert not (weights_cache() / wanted.file).exists()


_READS_WITHIN = """
import resource, sys
from pathlib import Path
from coocnet.backbones.loading import _read_tensors
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (int(sys.argv[2]) << 20),) * 2)
try:
    _read_tensors(Path(sys.argv[1]))
except Exception as error:
    print(type(error).__name__)
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")


def ending_within(megabytes: int, place: Path) -> str:
    words = [sys.executable, "-c", _READS_WITHIN, str(place), str(megabytes)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_weights_for_which_memory_is_wanting_are_not_called_damaged(tmp_path: Path, ending: str) -> None:
    place = tmp_path / f"weights{ending}"
    write = save_file if ending == ".safetensors" else torch.save
    write({"a": torch.zeros(1 << 24)}, place)
    assert ending_within(16, place) == "MemoryError"


@pytest.mark.slow
@linux_only
def test_weights_that_ask_for_more_memory_than_they_hold_are_called_damaged(tmp_path: Path) -> None:
    place = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, place, _use_new_zipfile_serialization=False)
    content = place.read_bytes()
    letters = b"X\x10\x00\x00\x00protocol_version"
    assert content.count(letters) == 1
    place.write_bytes(content.replace(letters, b"X\xff\xff\xff\x7f" + letters[5:]))
    assert ending_within(512, place) == "WeightsMismatchError"
