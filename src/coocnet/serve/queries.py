"""What is searched for: a picture that was sent, or one of the collection, or a part of either."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from coocnet.data.images import Box, Measured, Picture, content_digest, decode, measured
from coocnet.errors import CoocnetError, ImageError
from coocnet.index import Index
from coocnet.serve.kept import Kept
from coocnet.serve.pictures import PictureFiles
from coocnet.serve.problems import Problem, log
from coocnet.serve.settings import Settings

if TYPE_CHECKING:
    from coocnet.describe import Describer
    from coocnet.explain import Explanation

_ROWS_KEPT_BYTES = 64 << 20
_EXPLANATIONS_KEPT = 256
_LABEL = "the picture"
_NO_NETWORK = "the network cannot be loaded, so nothing new is described; the log of the service says why"


@dataclass(frozen=True)
class Source:
    """A picture by its content, and a part of it if not all is meant.

    Attributes:
        digest: of the file's content.
        uploaded: it was sent, and need not be in the collection.
        box: in pixels of the whole upright picture.
    """

    digest: bytes
    uploaded: bool = False
    box: Box | None = None


@dataclass(frozen=True)
class Part:
    """What was described of a picture.

    Attributes:
        box: x1, y1, x2, y2, whole pixels of the upright picture.
        full_size_px: (width, height) of the whole.
    """

    box: tuple[int, int, int, int]
    full_size_px: tuple[int, int]


class Queries:
    """Pictures that were sent, and the rows, explanations and maps of those and of the collection's.

    Args:
        settings: of the service.
        files: the collection's pictures.
    """

    def __init__(self, settings: Settings, files: PictureFiles) -> None:
        self._settings = settings
        self._files = files
        self._uploads: Kept[bytes] = Kept(settings.kept_upload_bytes, len)
        self._rows: Kept[np.ndarray] = Kept(_ROWS_KEPT_BYTES, lambda row: row.nbytes)
        self._explanations: Kept[tuple[Explanation, Part, Part]] = Kept(_EXPLANATIONS_KEPT)
        self._means: Kept[list[Any]] = Kept(1)
        self._describer: Describer | None = None
        self._loading = threading.Lock()

    @property
    def kept_upload_bytes(self) -> int:
        """Memory that pictures take which were sent."""
        return self._uploads.weighs

    def take(self, content: bytes) -> tuple[bytes, Measured]:
        """Keeps a picture that was sent; gives its digest and size.

        Raises:
            ImageError: no picture, or one of too many pixels.
        """
        size = self.measured(content)
        digest = content_digest(content)
        self._uploads.put(digest, content)
        return digest, size

    def measured(self, content: bytes) -> Measured:
        """The size of a picture that was sent, from its header.

        Raises:
            ImageError: no picture, or one of too many pixels.
        """
        size = measured(content, _LABEL)
        if size.width * size.height > self._settings.upload_px:
            raise ImageError(_LABEL, f"more than {self._settings.upload_px / 1e6:g} megapixels")
        return size

    def content(self, index: Index, source: Source) -> bytes:
        """The bytes of a picture.

        Raises:
            Problem: 404 where it is not known, or no longer; 410 where its file is gone.
        """
        if not source.uploaded:
            return self._files.content(index, source.digest).content
        kept = self._uploads.get(source.digest)
        if kept is None:
            raise Problem(
                404, "unknown-upload", f"the picture {source.digest.hex()} is not kept, or no longer: send it again"
            )
        return kept

    def row(self, index: Index, source: Source) -> Float[np.ndarray, " d"]:
        """The row of a picture or of its part, before whitening, as the network describes it.

        Raises:
            Problem: see :meth:`content`.
            ImageError: it cannot be described.
        """
        fingerprint = index.recipe.row_fingerprint()
        key = (source.digest, source.box, fingerprint)
        row = self._rows.get(key)
        if row is None:
            pixels, _ = self.part(index, source)
            row = self.describer(index).describe_pixels(pixels[None])[0]
            self._rows.put(key, row)
        return row

    def part(self, index: Index, source: Source) -> tuple[UInt8[np.ndarray, "h w 3"], Part]:
        """The pixels that are described, and where in the picture they lie.

        Raises:
            Problem: see :meth:`content`.
            ImageError: it cannot be decoded, or the box leaves nothing of it.
        """
        content = self.content(index, source)
        picture: Picture = decode(
            content,
            _LABEL,
            size_px=index.recipe.size_px or None,
            box=source.box,
            most_px=self._settings.upload_px if source.uploaded else None,
        )
        width, height = picture.full_size_px
        if source.box is None:
            return picture.pixels, Part((0, 0, width, height), (width, height))
        x1, y1, x2, y2 = (round(edge) for edge in source.box)
        box = (max(x1, 0), max(y1, 0), min(x2, width), min(y2, height))
        return picture.pixels, Part(box, (width, height))

    def explained(self, index: Index, query: Source, result: Source) -> tuple[Explanation, Part, Part]:
        """Where the similarity of two pictures comes from; see :func:`coocnet.explain.explain`.

        Raises:
            Problem: see :meth:`content`.
            ImageError: one of them cannot be described.
            InputError: rows of this recipe cannot be taken apart.
        """
        from coocnet.explain import explain  # noqa: PLC0415 - loads torch, only where needed

        key = (query, result, index.state())
        found = self._explanations.get(key)
        if found is None:
            describer, whitening = self.describer(index), index.whitening()
            (pixels, asked_part), (other_pixels, other_part) = (self.part(index, one) for one in (query, result))
            asked, other = describer.maps_of(pixels), describer.maps_of(other_pixels)
            centre = None if whitening is not None else self._mean_row(index)
            explanation = explain(asked, other, describer.recipe, whitening=whitening, centre=centre)
            found = explanation, asked_part, other_part
            self._explanations.put(key, found)
        return found

    def heat(
        self, index: Index, source: Source, kind: str
    ) -> tuple[Float[np.ndarray, "rows columns"], UInt8[np.ndarray, "h w 3"], Part]:
        """Sums over channels of a picture's map or of its direct co-occurrence, with the pixels they are of.

        Raises:
            Problem: see :meth:`content`.
            ImageError: it cannot be described.
        """
        from coocnet.poolings import direct_cooccurrence  # noqa: PLC0415 - loads torch, only where needed

        describer, (pixels, part) = self.describer(index), self.part(index, source)
        a = describer.map_of(pixels)
        if kind == "cooccurrence":
            a = direct_cooccurrence(a, describer.recipe)
        sums: np.ndarray = a[0].sum(0).float().cpu().numpy()
        return sums, pixels, part

    def warm_up(self, index: Index) -> None:
        """Describes a plain picture in every way once, so that no client waits for what the first time takes.

        Raises:
            Problem: see :meth:`describer`.
        """
        from coocnet.poolings import direct_cooccurrence  # noqa: PLC0415 - loads torch, only where needed

        describer = self.describer(index)
        pixels = np.zeros((64, 64, 3), np.uint8)
        describer.describe_pixels(pixels[None])
        direct_cooccurrence(describer.map_of(pixels), describer.recipe)

    def describer(self, index: Index) -> Describer:
        """One whose rows belong in the index as it is now; loaded once for all threads.

        Raises:
            Problem: 503, the network cannot be had; the log says why.
        """
        with self._loading:
            held = self._describer
            if held is None or held.recipe != index.recipe:
                try:
                    held = index.describer(device=self._settings.device, engine=self._settings.engine)
                except CoocnetError as error:
                    log.error("%s", error)
                    raise Problem(503, "network", _NO_NETWORK, retry_after_s=5) from error
                self._describer = held
            return held

    def _mean_row(self, index: Index) -> np.ndarray | None:
        state = index.state()
        kept = self._means.get(state)
        if kept is None:
            kept = [index.mean_row()]
            self._means.put(state, kept)
        mean: np.ndarray | None = kept[0]
        return mean
