"""From pictures to rows: the recipe carried out, on any device, in batches that never change a row."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from coocnet import ops
from coocnet.backbones import WeightsPlace, load_backbone, lookup
from coocnet.data.images import Box, Picture, decode, read_bytes
from coocnet.engines import ENGINES, channels_first, chosen_engine, need_engine
from coocnet.errors import ImageError, InputError
from coocnet.fetch import Progress
from coocnet.poolings import POOLINGS, PRIORS, need_centre, recipe_filter, row_dim
from coocnet.recipe import Recipe
from coocnet.streaming import loaded_ahead, side_by_side

Item = TypeVar("Item")
Row = Float[np.ndarray, " dim"]

_BATCH_ON_ACCELERATOR = 16
# Where memory runs out, libraries below PyTorch raise no error of their own kind.
_MEMORY_RAN_OUT = re.compile("out of memory|allocate memory|not enough memory|alloc_failed|bad.alloc", re.IGNORECASE)


class _OutOfMemoryError(ImageError):
    pass


@dataclass(frozen=True)
class ChannelMean:
    """What :meth:`Describer.channel_mean` learned.

    Attributes:
        values: (d,) the mean of each channel, in as many digits as float32 holds: a recipe's ``centre``.
        pictures: how many pictures it was learned on.
        skipped: files left out, each with its reason.
    """

    values: tuple[float, ...]
    pictures: int
    skipped: list[ImageError]


class Describer:
    """Turns pictures into rows as one recipe says.

    A row depends on the picture and the recipe alone. Pictures are batched only with others of exactly the
    same size, so nothing is padded; on the processor the batch is one picture, because that is fastest.

    On CUDA, PyTorch rounds what goes into a convolution to TF32, ten binary digits, unless the program sets
    ``torch.backends.cudnn.allow_tf32 = False``; such settings of the whole process are left alone here.

    On a processor with AVX512-BF16 or AMX, networks whose weights were measured to bear it (mini, ResNet-101 v2) are
    computed in bfloat16. Rows then agree with those of float32 to a cosine of 0.9998 for 99 photographs in 100 and of
    0.999 for all of 1,800, and no set's mean average precision changes by more than 0.2 (``benchmarks/engines.py``).
    In int8, which is never taken unasked, these are 0.9995, 0.99 and 0.3; less for pictures of a few pixels.

    Args:
        recipe: what to do; the default recipe if not given.
        device: where to compute, "cpu", "cuda", ...; CUDA if there is one, else the processor.
        engine: how the processor computes the network, one of ``coocnet.engines.ENGINES``: "float32" for what is
            measured, learned or published; "bfloat16" or, for mini and VGG16, "int8" also where agreement was not
            measured (bfloat16 computes on any processor, but slowly where it has no instructions); None for the
            fastest that was measured to agree for these weights and that the processor has.
        batch_size: pictures of one size computed together.
        progress: called while weights are downloaded.

    Raises:
        InputError: no recipe, one that names no known backbone or tap, a device that is not here, an engine that
            there is not or that this processor or network cannot have, or a batch of less than one picture.
        WeightsError: the weights are missing or not what they should be.
        FilterError: the recipe's learned filter cannot be used.
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        device: str | torch.device | None = None,
        engine: str | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.recipe = _recipe(recipe)
        self.device = _device(device)
        if engine is not None:
            need_engine(engine, self.device)
        if batch_size is None:
            batch_size = 1 if self.device.type == "cpu" else _BATCH_ON_ACCELERATOR
        self.batch_size = _batch_size(batch_size)
        self.backbone_record, self.tap = lookup(self.recipe.backbone, self.recipe.tap)
        need_centre(self.recipe, self.tap.channels)
        self._loaded = load_backbone(
            self.recipe.backbone, self.recipe.weights or None, device=self.device, progress=progress
        )
        if self.recipe.cooccurrence.filter:
            recipe_filter(self.recipe, self.tap.channels, self.device, weights_sha256=self.weights_sha256)
        self.engine = chosen_engine(engine, self._loaded, self.device)
        self._loaded = replace(self._loaded, trunk=ENGINES[self.engine].prepared(self._loaded, self.recipe.tap))
        self._mean = torch.tensor(self._loaded.weights.mean, device=self.device) * 255
        self._std = torch.tensor(self._loaded.weights.std, device=self.device) * 255

    @property
    def dim(self) -> int:
        """Dimensions of a row."""
        return row_dim(self.recipe, self.tap.channels)

    @property
    def engines(self) -> set[str]:
        """By what the rows are computed: one engine, unlike in a cluster."""
        return {self.engine}

    @property
    def weights_place(self) -> WeightsPlace:
        """The weights file in use."""
        return self._loaded.place

    @property
    def weights_sha256(self) -> str:
        """Digest of the weights file in use."""
        return self._loaded.place.sha256

    def describe(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        boxes: Iterable[Box | None] | None = None,
        upright: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Float[np.ndarray, "n dim"]:
        """Rows of picture files, in their order, unit length, float32, before any whitening.

        Args:
            paths: picture files.
            boxes: for each, the part to describe in pixels of the upright picture, or None for all of it.
            upright: False takes pixels and boxes as they are stored, whatever the EXIF orientation says.
            progress: called with pictures done and pictures in all.

        Raises:
            ImageError: a file that cannot be described; use :meth:`stream` to go on past such files.
            InputError: no list of paths, another number of boxes, or a box that is not four finite numbers.
        """
        paths = _listed_paths(paths)
        boxes = [None] * len(paths) if boxes is None else _listed("boxes", boxes)
        if len(boxes) != len(paths):
            raise InputError(f"one box per path, or None for it: got {len(boxes)} boxes for {len(paths)} paths")
        jobs = list(zip(range(len(paths)), paths, boxes, strict=True))
        rows = np.zeros((len(paths), self.dim), np.float32)
        described = self.stream(jobs, lambda job: self.load(job[1], box=job[2], upright=upright))
        for done, ((position, _, _), row) in enumerate(described, start=1):
            if isinstance(row, ImageError):
                raise row
            rows[position] = row
            if progress:
                progress(done, len(paths))
        return rows

    def load(self, path: str | os.PathLike[str], *, box: Box | None = None, upright: bool = True) -> Picture:
        """Reads and decodes one file as the recipe asks.

        Args:
            path: the file.
            box: as one of :meth:`describe`; None for the whole picture.
            upright: as in :meth:`describe`.

        Raises:
            ImageError: a file that cannot be described.
        """
        return decode(read_bytes(path), path, size_px=self.recipe.size_px or None, box=box, upright=upright)

    def stream(
        self, items: Iterable[Item], load: Callable[[Item], Picture | None]
    ) -> Iterator[tuple[Item, Row | ImageError | None]]:
        """Describes an endless supply: loads ahead in threads, batches by size, yields as rows come.

        Args:
            items: whatever identifies a picture to the caller; taken only as they are needed.
            load: from an item to its picture, called in another thread; None to leave the item undescribed.

        Yields:
            Each item once, in no particular order, with its row, or the None that ``load`` returned, or the
            ImageError that it raised, or one that says the network ran out of memory on this picture alone.
        """
        return self._streamed(items, load, self.describe_pixels)

    def stream_maps(
        self, items: Iterable[Item], load: Callable[[Item], Picture | None]
    ) -> Iterator[tuple[Item, Float[np.ndarray, "d h w"] | ImageError | None]]:
        """As :meth:`stream`, with the map after the prior at the recipe's first scale instead of the row.

        Args:
            items: as for :meth:`stream`.
            load: as for :meth:`stream`.
        """
        return self._streamed(items, load, self._first_maps)

    def channel_mean(
        self, paths: Iterable[str | os.PathLike[str]], *, progress: Callable[[int, int], None] | None = None
    ) -> ChannelMean:
        """The mean of each channel over the cells of pictures: what the ``centre`` of a recipe is for.

        Of the recipe's map after its prior. Every picture counts alike, however many cells it has, and within it
        each of the recipe's scales; its pooling is not read. Files that cannot be described are left out.

        Args:
            paths: picture files.
            progress: called with pictures done and pictures in all.

        Raises:
            InputError: no list of paths, or not one file that can be described.
        """
        paths = _listed_paths(paths)
        total, skipped = np.zeros(self.tap.channels), list[ImageError]()
        for done, (_, mean) in enumerate(self._streamed(paths, self.load, self._channel_means), start=1):
            if isinstance(mean, ImageError):
                skipped.append(mean)
            elif mean is not None:
                total += mean
            if progress:
                progress(done, len(paths))
        pictures = len(paths) - len(skipped)
        if not pictures:
            first = f"; the first: {skipped[0]}" if skipped else ""
            raise InputError(f"to learn a channel mean give pictures: none of {len(paths)} can be described{first}")
        mean = (total / pictures).astype(np.float32)
        return ChannelMean(tuple(float(str(value)) for value in mean), pictures, skipped)

    def _streamed(
        self,
        items: Iterable[Item],
        load: Callable[[Item], Picture | None],
        compute: Callable[[np.ndarray], np.ndarray],
    ) -> Iterator[tuple[Item, Row | ImageError | None]]:
        """As :meth:`stream`, with ``compute`` from pictures of one size (b, h, w, 3) to a row for each."""

        def attempt(item: Item) -> Picture | ImageError | None:
            try:
                return load(item)
            except ImageError as error:
                return error

        def computed(loaded: tuple[Item, Picture | ImageError | None]) -> tuple[Item, Row | ImageError | None]:
            item, picture = loaded
            return (
                next(self._computed([(item, picture)], compute)) if isinstance(picture, Picture) else (item, picture)
            )

        loaded = loaded_ahead(items, attempt)
        if self.device.type == "cpu" and self.batch_size == 1:
            yield from side_by_side(loaded, computed, lambda result: isinstance(result[1], _OutOfMemoryError))
        else:
            yield from self._batched(loaded, compute)

    def _batched(
        self,
        loaded: Iterable[tuple[Item, Picture | ImageError | None]],
        compute: Callable[[np.ndarray], np.ndarray],
    ) -> Iterator[tuple[Item, Row | ImageError | None]]:
        waiting: OrderedDict[tuple[int, int], list[tuple[Item, Picture]]] = OrderedDict()
        for item, picture in loaded:
            if not isinstance(picture, Picture):
                yield item, picture
                continue
            height, width = picture.pixels.shape[:2]
            group = waiting.setdefault((height, width), [])
            group.append((item, picture))
            if len(group) == self.batch_size:
                yield from self._computed(waiting.pop((height, width)), compute)
            elif sum(map(len, waiting.values())) >= 4 * self.batch_size:
                yield from self._computed(waiting.popitem(last=False)[1], compute)
        for group in waiting.values():
            yield from self._computed(group, compute)

    def describe_pixels(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> Float[np.ndarray, "b dim"]:
        """Rows of decoded RGB pictures of one size, unit length, float32.

        Raises:
            InputError: pixels of another type or shape.
        """
        _need_pixels(pixels, 4, "(b, h, w, 3)")
        with torch.inference_mode():
            x = self._network_input(pixels)
            at_scales = [ops.unit_rows(self._pooled(_rescaled(x, scale))) for scale in self.recipe.scales]
            total = _power_sum(torch.stack(at_scales), self.recipe.scale_power)
            rows: np.ndarray = ops.unit_rows(total).cpu().numpy()
        return rows

    def map_of(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 d h w"]:
        """The feature map of one decoded picture, after the prior, at the recipe's first scale.

        Raises:
            InputError: pixels of another type or shape.
        """
        return self.maps_of(pixels)[0]

    def maps_of(self, pixels: UInt8[np.ndarray, "h w 3"]) -> list[Float[Tensor, "1 d h w"]]:
        """The feature maps of one decoded picture, after the prior, one for each of the recipe's scales.

        Raises:
            InputError: pixels of another type or shape.
        """
        _need_pixels(pixels, 3, "(h, w, 3)")
        with torch.inference_mode():
            x = self._network_input(pixels[None])
            return [self._map(_rescaled(x, scale)) for scale in self.recipe.scales]

    def _computed(
        self, group: list[tuple[Item, Picture]], compute: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[tuple[Item, Row | ImageError]]:
        rows = None
        try:
            rows = compute(np.stack([picture.pixels for _, picture in group]))
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not _MEMORY_RAN_OUT.search(str(error)):
                raise
        if rows is not None:
            for (item, _), row in zip(group, rows, strict=True):
                yield item, row
        elif len(group) == 1:
            yield group[0][0], self._too_large(group[0][1])
        else:
            for one in group:
                yield from self._computed([one], compute)

    def _too_large(self, picture: Picture) -> ImageError:
        height, width = picture.pixels.shape[:2]
        limit = self.recipe.size_px
        advice = f"lower the recipe's size_px, {limit} now" if limit else "give the recipe's size_px a limit"
        return _OutOfMemoryError(picture.path, f"out of memory at {width}x{height} pixels: {advice}")

    def _first_maps(self, pixels: np.ndarray) -> Float[np.ndarray, "b d h w"]:
        with torch.inference_mode():
            maps: np.ndarray = self._map(_rescaled(self._network_input(pixels), self.recipe.scales[0])).cpu().numpy()
        return maps

    def _channel_means(self, pixels: np.ndarray) -> Float[np.ndarray, "b d"]:
        with torch.inference_mode():
            x = self._network_input(pixels)
            means = [self._map(_rescaled(x, scale)).flatten(2).mean(2) for scale in self.recipe.scales]
            mean: np.ndarray = torch.stack(means).mean(0).cpu().numpy()
        return mean

    def _network_input(self, pixels: np.ndarray) -> Tensor:
        b, h, w, _ = pixels.shape
        x = torch.from_numpy(np.array(pixels, order="C")).to(self.device).float()
        # Whole rows at once: three numbers at a time take five times as long.
        x.view(b, h, 3 * w).sub_(self._mean.repeat(w)).div_(self._std.repeat(w))
        # (b, h, w, 3) with its axes exchanged already lies in memory as channels_last wants it.
        return x.permute(0, 3, 1, 2)

    def _map(self, x: Tensor) -> Tensor:
        least = self.backbone_record.min_side_px
        missing = [max(least - side, 0) for side in x.shape[2:]]
        if any(missing):
            x = functional.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
        a = channels_first(self._loaded.trunk(x, self.recipe.tap))
        return PRIORS[self.recipe.prior](a, self.recipe)

    def _pooled(self, x: Tensor) -> Tensor:
        return POOLINGS[self.recipe.pooling](self._map(x), self.recipe)


def _recipe(recipe: object) -> Recipe:
    if recipe is None:
        return Recipe()
    if not isinstance(recipe, Recipe):
        source = repr(recipe) if isinstance(recipe, str) else "NAME_OR_FILE"
        raise InputError(f"recipe is a Recipe, as Recipe.load({source}) gives it, got {recipe!r}")
    return recipe


def _batch_size(given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise InputError(f"batch_size is a whole number, 1 or more, got {given!r}")
    return given


def _device(device: str | torch.device | None) -> torch.device:
    """The device, tried out; CUDA or the processor if none is given."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except Exception as error:
        here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        here += ["mps"] if torch.backends.mps.is_available() else []
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise InputError(
            f"cannot compute on device {str(device)!r} ({reason}); there is {', '.join(here)}"
        ) from error
    return chosen


def _listed(what: str, given: Iterable[Item]) -> list[Item]:
    if isinstance(given, str | bytes | os.PathLike) or not isinstance(given, Iterable):
        raise InputError(f"give a list of {what}, got {given!r}")
    return list(given)


def _listed_paths(paths: Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    listed = _listed("paths", paths)
    entries: list[object] = [*listed]
    for entry in entries:
        if not isinstance(entry, str | os.PathLike):
            raise InputError(f"give a list of paths, got {entry!r} in it")
    return listed


def _need_pixels(pixels: object, axes: int, shape: str) -> None:
    if not isinstance(pixels, np.ndarray):
        raise InputError(f"pixels are an array, uint8 {shape}, got a {type(pixels).__name__}")
    if pixels.dtype != np.uint8 or pixels.ndim != axes or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise InputError(f"pixels are an array, uint8 {shape}, got {pixels.dtype} {pixels.shape}")


def _power_sum(rows: Tensor, power: float) -> Tensor:
    """(Σ_s f_s^q)^(1/q) over the first axis: up to its length the power mean over scales."""
    if power == 1 or len(rows) == 1:
        return rows.sum(0)
    return rows.pow(power).sum(0).pow(1 / power)


def _rescaled(x: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return x
    size = [max(1, round(side * scale)) for side in x.shape[2:]]
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
