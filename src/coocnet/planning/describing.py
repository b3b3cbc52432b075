"""What describing takes: pictures a second of a core, and hours of how many."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coocnet.backbones import BACKBONES
from coocnet.errors import InputError
from coocnet.planning.figures import NETWORK_MS, NETWORKS, SIZES, value
from coocnet.poolings import row_dim
from coocnet.recipe import Recipe


@dataclass(frozen=True)
class Describing:
    """Describing every picture once.

    Attributes:
        unit: what does it, "core" or "GPU".
        rate: pictures a second of one of them.
        rate_source: where that comes from.
        unit_hours: of one of them, for all pictures.
        units: how many there are, or are needed.
        machines: with so many cores; None for GPUs, of which nobody knows how many are in one.
        hours: with so many units.
        read_bytes: of all pictures.
        read_bytes_per_s: that have to arrive meanwhile.
    """

    unit: str
    rate: float
    rate_source: str
    unit_hours: float
    units: int
    machines: int | None
    hours: float
    read_bytes: float
    read_bytes_per_s: float


def dims(recipe: Recipe) -> tuple[int, int]:
    """Numbers of a row as the recipe has it stored, and searched."""
    network = BACKBONES.get(recipe.backbone)
    if network is None or recipe.tap not in network.taps:
        raise InputError(f"no network {recipe.backbone!r} with a tap {recipe.tap!r}: coocnet weights lists them")
    stored = row_dim(recipe, network.taps[recipe.tap].channels)
    return stored, stored if recipe.whitening == "none" else min(recipe.dim or stored, stored)


def units_given(cores: int | None, gpus: int | None, hours: float | None) -> int | None:
    """How many cores or GPUs there are; None where neither is said.

    Raises:
        InputError: two of the three are given.
    """
    given = {name: value for name, value in (("cores", cores), ("gpus", gpus), ("hours", hours)) if value is not None}
    if len(given) > 1:
        raise InputError(f"give one of cores, gpus and hours, got {' and '.join(given)}")
    return cores or gpus


def worker(recipe: Recipe, engine: str | None, given: dict[str, float | None]) -> tuple[str, float, str]:
    """What describes, its pictures a second, and where that number comes from."""
    gpu_rate, rate = given["gpu-rate"], given["rate"]
    if given["gpus"] is not None and gpu_rate is None:
        raise InputError(
            f"no GPU was measured in this project: with gpus={given['gpus']} give --gpu-rate PICTURES_PER_S, what "
            "coocnet index --device cuda prints at its end for a sample of your pictures"
        )
    if gpu_rate is not None:
        if given["cores"] is not None or rate is not None:
            raise InputError(f"GPUs or cores describe, not both: leave out gpu-rate={gpu_rate}, or cores and rate")
        return "GPU", gpu_rate, "given"
    if rate is not None:
        return "core", rate, "given"
    return "core", *rate_per_core(recipe, engine)


def rate_per_core(recipe: Recipe, engine: str | None = None) -> tuple[float, str]:
    """Pictures a second that one of a machine's busy cores describes, and where that number comes from.

    Measured for the default recipe alone: from files to stored rows on both cores of a machine. Of its core-seconds
    the network took what it took alone on pictures in memory, on both cores too; the rest, decoding and storing, is
    taken as the same for all recipes. Of other networks and sizes the time on one core beside an idle one is known,
    and taken as many times longer on busy cores as the default's was. It grows with the pixels.

    Raises:
        InputError: a network, an engine or a size that was not measured.
    """
    dims(recipe)
    network = BACKBONES[recipe.backbone]
    weights = network.weights.get(recipe.weights or next(iter(network.weights)))
    engine = engine or next(iter(weights.engines if weights else ()), "float32")
    measured = NETWORK_MS.get(NETWORKS.get(recipe.backbone, ""), {})
    if engine not in measured or not recipe.size_px:
        known = "; ".join(f"{name} in {', '.join(NETWORK_MS[key])}" for name, key in NETWORKS.items())
        asked = f"{recipe.backbone!r} in {engine!r} at {recipe.size_px or 'unlimited'} px"
        raise InputError(
            f"no rate was measured for {asked}; there are {known}. Give --rate PICTURES_PER_S of one core: what "
            "coocnet index prints at its end for a sample, divided by the cores"
        )
    ours = value("mini bfloat16 512x384")
    busy_ms = 2000 / value("computed")
    rest_ms = 2000 / value("described") - busy_ms
    alone_ms = sum(network_ms(NETWORKS[recipe.backbone], engine, recipe.size_px * scale) for scale in recipe.scales)
    is_measured = math.isclose(alone_ms, ours) and (recipe.backbone, engine) == ("mini", "bfloat16")
    source = "results/indexing.json (python benchmarks/indexing.py DATA)"
    if not is_measured:
        source = f"arithmetic on results/engines.json ({recipe.backbone}, {engine}) and results/indexing.json"
    return 1000 / (alone_ms / ours * busy_ms + rest_ms), source


def network_ms(network: str, engine: str, size_px: float) -> float:
    """In proportion to the pixels below and above what was measured, and straight between."""
    small, large = (value(f"{network} {engine} {size}") for size in SIZES)
    share = (size_px / 512) ** 2
    if share <= 1:
        return small * share
    return large * share / 4 if share >= 4 else small + (large - small) * (share - 1) / 3


def describing(
    pictures: int,
    worker: tuple[str, float, str],
    *,
    units: int | None,
    hours: float | None,
    machine_cores: int,
    picture_bytes: float,
) -> Describing:
    """Describing so many pictures by a :func:`worker`, by so many of them or within so many hours."""
    unit, rate, source = worker
    unit_hours = pictures / rate / 3600
    if units is None:
        whole = 1 if unit == "GPU" else machine_cores
        units = whole if hours is None else math.ceil(unit_hours / hours)
    read = pictures * picture_bytes
    taken = unit_hours / units
    return Describing(
        unit=unit,
        rate=rate,
        rate_source=source,
        unit_hours=unit_hours,
        units=units,
        machines=math.ceil(units / machine_cores) if unit == "core" else None,
        hours=taken,
        read_bytes=read,
        read_bytes_per_s=read / taken / 3600,
    )
