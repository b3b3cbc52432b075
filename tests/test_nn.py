"""The learned filters: their start, their equality with a dense filter, their files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.profiler import ProfilerActivity, profile

import reference
from coocnet import ops
from coocnet.errors import FilterError, InputError
from coocnet.nn import (
    FILTERS,
    DenseFilter,
    FactorisedFilter,
    load_filter,
    new_filter,
    pairs_that_moved,
    read_filter,
    read_published_filter,
    save_filter,
)
from maps import MAP, SPARSE_MAPS, assert_near, each_half_precision

quick = settings(max_examples=25, deadline=None)
each_kind = pytest.mark.parametrize("kind", FILTERS)
sizes = {"channels": st.integers(2, 6), "radius": st.integers(0, 3), "seed": st.integers(0, 10**6)}


def a_map(channels: int, seed: int = 0, height: int = 4, width: int = 5) -> torch.Tensor:
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def learned_a_little(kind: str, channels: int = 4, radius: int = 1, rank: int = 3, seed: int = 0):
    """A filter that has left its start."""
    made = new_filter(kind, channels, radius_cells=radius, rank=rank, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return made


@each_kind
@given(**sizes, rank=st.integers(1, 4))
@quick
def test_a_new_filter_is_exactly_the_direct_one(kind: str, channels: int, radius: int, seed: int, rank: int) -> None:
    made = new_filter(kind, channels, radius_cells=radius, rank=rank, seed=seed)
    torch.testing.assert_close(made.dense(), ops.direct_filter(channels, radius_cells=radius), rtol=1e-6, atol=1e-6)
    if kind == "dense" or rank == 1:
        assert torch.equal(made.dense(), ops.direct_filter(channels, radius_cells=radius))
    a = a_map(channels, seed)
    torch.testing.assert_close(
        made.double()(a), ops.direct_cooccurrence(a, radius_cells=radius), rtol=1e-6, atol=1e-6
    )


@each_kind
@given(**sizes)
@quick
def test_a_learned_filter_equals_plain_loops_over_its_dense_form(
    kind: str, channels: int, radius: int, seed: int
) -> None:
    made = learned_a_little(kind, channels, radius, seed=seed)
    a = a_map(channels, seed, 3, 4)
    for ct, one in zip(made(a).detach(), a.numpy(), strict=True):
        assert_near(ct, reference.filtered_cooccurrence(one, made.dense().numpy()), of_max=1e-10)


def test_the_dense_form_of_factors_is_their_sum_of_products() -> None:
    made = learned_a_little("factorised", channels=3, radius=1, rank=2)
    u, v, g, own = (one.detach().numpy() for one in made.factors().values())
    expected = np.zeros((3, 3, 3, 3))
    for k, w in np.ndindex(3, 3):
        for q in range(2):
            expected[k, w] += u[k, q] * v[w, q] * g[q]
        if k == w:
            expected[k, w] -= own[k]
    np.testing.assert_allclose(made.dense().numpy(), expected, atol=1e-12)


@each_kind
def test_the_taps_of_a_pair_are_those_of_the_dense_form(kind: str) -> None:
    made = learned_a_little(kind)
    for pair in [(0, 1), (2, 2), (3, 0)]:
        torch.testing.assert_close(made.taps(*pair), made.dense()[pair])


@each_kind
def test_the_distance_from_the_direct_filter_is_that_of_the_dense_forms(kind: str) -> None:
    made = learned_a_little(kind, radius=2)
    apart = made.dense() - ops.direct_filter(4, radius_cells=2, dtype=torch.float64)
    torch.testing.assert_close(made.distances_from_direct(), apart.flatten(2).norm(dim=2))


@pytest.mark.parametrize("a", SPARSE_MAPS.values(), ids=SPARSE_MAPS)
@each_kind
def test_maps_with_nothing_in_them_give_no_nan(kind: str, a: torch.Tensor) -> None:
    made = learned_a_little(kind, channels=3).float()
    ct = made(a)
    assert torch.isfinite(ct).all()
    assert (ct[ops.activation_mask(a) == 0] == 0).all()


@each_kind
def test_a_mask_decides_what_counts_and_where_the_tensor_is(kind: str) -> None:
    made, a = learned_a_little(kind), a_map(4)
    mask = torch.zeros_like(a)
    mask[:, :2] = 1
    assert (made(a, mask)[:, 2:] == 0).all()
    changed = a.clone()
    changed[:, 2:] += 1
    torch.testing.assert_close(made(a, mask), made(changed, mask))


@each_kind
def test_every_parameter_has_a_gradient_once_it_has_left_its_start(kind: str) -> None:
    made, a = learned_a_little(kind), a_map(4)
    ops.chco_sct(a, made(a), epsilon=1e-3).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_the_factors_have_the_gradient_of_their_value() -> None:
    made, a = learned_a_little("factorised", channels=3, rank=2), a_map(3, height=3, width=2)
    factors = [one.detach().clone().requires_grad_() for one in made.factors().values()]

    def ct(u, v, g, own):
        return ops.factorised_cooccurrence(a, out_factors=u, in_factors=v, windows=g, own_factors=own)

    assert torch.autograd.gradcheck(ct, factors)


def test_the_distances_of_a_filter_of_high_rank_take_little_memory() -> None:
    """A (d, d) matrix or two, whatever the rank: 256 channels and rank 64 in less than 8 of them."""
    made = new_filter("factorised", 256, radius_cells=1, rank=64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        made.distances_from_direct()
    largest = max(event.cpu_memory_usage for event in watched.events())
    assert largest < 8 * 256 * 256 * 4


def test_a_factorised_filter_has_thousands_of_times_fewer_parameters() -> None:
    with torch.device("meta"):
        dense, factorised = DenseFilter(2048, radius_cells=4), FactorisedFilter(2048, radius_cells=4, rank=32)
    count = [sum(one.numel() for one in made.parameters()) for made in (dense, factorised)]
    assert count == [2048 * 2048 * 81, 2 * 2048 * 32 + 32 * 81 + 2048]
    assert count[0] > 2000 * count[1]


@each_kind
def test_the_same_seed_starts_the_same_filter(kind: str) -> None:
    one, same, other = (new_filter(kind, 8, radius_cells=1, rank=3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one) == (kind == "dense")


@each_half_precision
@each_kind
def test_half_precision_maps_and_filters_stay_in_their_type(kind: str, dtype: torch.dtype) -> None:
    made, a = learned_a_little(kind), a_map(4)
    ct = made.to(dtype)(a.to(dtype))
    assert ct.dtype == dtype
    torch.testing.assert_close(ct.double(), made.double()(a.to(dtype).double()), rtol=0.02, atol=0.02)


@each_kind
def test_a_filter_can_be_exported(kind: str) -> None:
    made, a = learned_a_little(kind).eval(), a_map(4)
    exported = torch.export.export(made, (a,)).module()
    torch.testing.assert_close(exported(a), made(a))


def provenance() -> dict[str, str]:
    return {"backbone": "vgg16", "tap": "pool5", "gate": "passed", "settings": json.dumps({"rank": 3})}


@each_kind
def test_a_filter_is_read_as_it_was_written(kind: str, tmp_path: Path) -> None:
    made = learned_a_little(kind).float()
    save_filter(made, tmp_path / "f.safetensors", provenance())
    read, said = load_filter(tmp_path / "f.safetensors")
    assert said == provenance()
    assert (read.kind, read.channels, read.radius_cells) == (kind, 4, 1)
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in read.state_dict().items())


def test_the_same_filter_is_the_same_bytes(tmp_path: Path) -> None:
    made = learned_a_little("factorised").float()
    written = set()
    for number in range(12):
        save_filter(made, tmp_path / f"{number}.safetensors", provenance())
        written.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(written) == 1


def test_either_kind_of_file_is_read_by_its_ending(tmp_path: Path) -> None:
    made = learned_a_little("dense").float()
    save_filter(made, tmp_path / "ours.safetensors", provenance())
    np.save(tmp_path / "theirs.npy", made.dense().numpy())
    for name, said in (("ours.safetensors", provenance()), ("theirs.npy", {})):
        read, about = read_filter(tmp_path / name)
        assert torch.equal(read.dense(), made.dense())
        assert about == said


@each_kind
def test_the_pairs_that_moved_are_the_farthest_and_share_no_channel(kind: str) -> None:
    made = learned_a_little(kind, channels=6)
    apart = (made.dense() - ops.direct_filter(6, radius_cells=1, dtype=torch.float64)).flatten(2).norm(dim=2)
    left, expected = apart.clone().fill_diagonal_(0), []
    while left.max() > 0 and len(expected) < 3:
        pair = divmod(int(left.argmax()), 6)
        expected.append(pair)
        for channel in pair:
            left[channel], left[:, channel] = 0, 0
    assert pairs_that_moved(made) == expected
    assert pairs_that_moved(made, 1) == expected[:1]


def _with(path: Path, **changes) -> None:
    """Writes the file anew with other metadata."""
    content = path.read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    save_file(load_file(path), path, {**metadata, **changes})


def _with_tensors(path: Path, **tensors) -> None:
    content = path.read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    save_file({**load_file(path), **tensors}, path, metadata)


DAMAGES = {
    "gone": (lambda path: path.unlink(), "cannot be read"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:300]), "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "a picture": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" * 50), "damaged"),
    "another kind of file": (lambda path: _with(path, kind="coocnet-whitening-1"), "'coocnet-whitening-1'"),
    "another kind of filter": (lambda path: _with(path, filter="round"), "'round'"),
    "provenance of numbers": (lambda path: _with(path, provenance="[1]"), "table of texts"),
    "numbers that are not finite": (lambda p: _with_tensors(p, log_own=torch.full((4,), torch.nan)), "finite"),
    "factors that do not fit": (lambda path: _with_tensors(path, log_in=torch.ones(5, 3)), "log_in"),
    "one tensor more": (lambda path: _with_tensors(path, more=torch.ones(1)), "more"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_no_filter_is_refused(tmp_path: Path, damage, says: str) -> None:
    path = tmp_path / "f.safetensors"
    save_filter(learned_a_little("factorised").float(), path, provenance())
    damage(path)
    with pytest.raises(FilterError, match=says):
        load_filter(path)


def test_a_published_filter_is_read_from_its_numpy_file(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).random((3, 3, 5, 5))
    np.save(tmp_path / "filter.npy", weight)
    made, a = read_published_filter(tmp_path / "filter.npy"), a_map(3)
    assert (made.channels, made.radius_cells) == (3, 2)
    assert_near(made.double()(a)[0].detach(), reference.filtered_cooccurrence(a[0].numpy(), weight), of_max=1e-6)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 3, 4, 4)), "s odd"),
        (np.zeros((3, 2, 3, 3)), r"\(3, 2, 3, 3\)"),
        (np.zeros((3, 3, 3)), r"\(3, 3, 3\)"),
        (np.zeros((3, 3, 3, 3), int), "int64"),
        (np.full((3, 3, 3, 3), np.inf), "finite"),
    ],
)
def test_a_numpy_file_of_something_else_is_refused(tmp_path: Path, array: np.ndarray, says: str) -> None:
    np.save(tmp_path / "filter.npy", array)
    with pytest.raises(FilterError, match=says):
        read_published_filter(tmp_path / "filter.npy")


def test_a_numpy_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "filter.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(FilterError, match="no NumPy file of a filter"):
        read_published_filter(tmp_path / "filter.npy")
    with pytest.raises(FilterError, match="cannot be read"):
        read_published_filter(tmp_path / "none.npy")


def test_filters_that_cannot_be_are_refused(unchecked) -> None:
    with pytest.raises(InputError, match="'round'"):
        new_filter("round", 4, radius_cells=1, rank=2)
    for wrong in ({"channels": 1}, {"radius_cells": -1}, {"rank": 0}):
        with pytest.raises(InputError, match=str(*wrong.values())):
            FactorisedFilter(**{"channels": 4, "radius_cells": 1, "rank": 2} | wrong)


FACTORS = {"out_factors": (3, 2), "in_factors": (3, 2), "windows": (2, 3, 3), "own_factors": (3,)}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("out_factors", (4, 2)),
        ("in_factors", (3, 1)),
        ("windows", (2, 3, 5)),
        ("windows", (2, 4, 4)),
        ("own_factors", (2,)),
    ],
)
def test_factors_that_do_not_fit_are_quoted(name: str, shape: tuple[int, ...], unchecked) -> None:
    factors = {key: torch.ones(side) for key, side in (FACTORS | {name: shape}).items()}
    with pytest.raises(InputError, match=name):
        ops.factorised_cooccurrence(MAP, **factors)
