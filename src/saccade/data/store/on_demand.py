"""Images that are decoded at each access: for prediction, and for training without room for a store."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saccade.data.decoding import ImageSource, local_path_of
from saccade.data.examples import ImageLike
from saccade.data.pixel_range import PixelRange
from saccade.data.scanning import Scan
from saccade.data.store.store import ImageStore, Index
from saccade.data.store.stored_form import read_as_stored
from saccade.errors import ImageReadError
from saccade.remote.urls import is_url

DecodedForms = dict[tuple[int, int], "npt.NDArray[np.uint8]"]
"""What `read_as_stored` returns for one image, by shorter side and number of channels."""


class OnDemandImages:
    """Sequence of images that decodes image `i` at ``images[i]``, as `read_as_stored` does.

    Images that are `DecodedForms` already are returned as they are. An unreadable image is black, and its error is
    added to `errors`. With several `num_uses`, an image is decoded at
    the first access, in the thread of that access, and kept until the last one. So few images are kept if several
    threads read them in about the same order. `decoded_side` is that of `read_as_stored`.
    """

    decodes = True

    def __init__(
        self,
        images: Sequence[ImageLike | DecodedForms],
        shorter_side: int,
        channels: int = 3,
        num_uses: int = 1,
        pixel_range: PixelRange | None = None,
        decoded_side: int | None = None,
    ) -> None:
        self.images, self.shorter_side, self.channels, self.num_uses = images, shorter_side, channels, num_uses
        self.pixel_range, self.decoded_side = pixel_range, decoded_side
        self.errors: dict[int, str] = {}
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[Future[np.ndarray], int]] = {}  # pixels and the number of accesses left

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Return image `index`, uint8 of shape (height, width, channels)."""
        if self.num_uses == 1:
            return self._decode(index)
        with self._lock:
            is_first = index not in self._kept
            decoded, num_left = (Future(), self.num_uses) if is_first else self._kept[index]
            if num_left > 1:
                self._kept[index] = decoded, num_left - 1
            else:
                del self._kept[index]
        if is_first:
            try:
                decoded.set_result(self._decode(index))
            except BaseException as error:  # without a result, the other threads would wait for ever
                decoded.set_exception(error)
        return decoded.result()

    def _decode(self, index: int) -> np.ndarray:
        image = self.images[index]
        if isinstance(image, dict) and (self.shorter_side, self.channels) in image:
            return image[self.shorter_side, self.channels]
        try:
            form = self.shorter_side, self.channels, self.pixel_range, self.decoded_side
            return read_as_stored(image, *form)  # type: ignore[arg-type]  # of another dict the error says what it is
        except ImageReadError as error:
            self.errors[index] = str(error)
            return np.zeros((8, 8, self.channels), np.uint8)


class StreamedStore(ImageStore):
    """A store without pixels, for a full disk: it decodes an image at each access, after all were scanned."""

    decodes = True

    def __init__(
        self,
        images: Sequence[ImageSource],
        scan: Scan,
        shorter_side: int | None,
        channels: int = 3,
        pixel_range: PixelRange | None = None,
    ) -> None:
        index = Index.empty(len(images))
        super().__init__(Path(), np.zeros(0, np.uint8), index, scan, shorter_side, channels, pixel_range)
        self._images = images
        self._readable = scan.readable

    def __getitem__(self, position: int) -> npt.NDArray[np.uint8]:
        """Decode one image to (H, W, channels) uint8; raises ImageReadError if it is unreadable."""
        position = range(len(self))[position]
        if not self._readable[position]:
            return super().__getitem__(position)  # raises the error with the reason
        return read_as_stored(self._images[position], self.shorter_side, self.channels, self.pixel_range)

    def files(self) -> list[Path | tuple[Path, ...]]:
        """Return the local files of all readable images."""
        return [self._paths] if self._paths else []

    @cached_property
    def _paths(self) -> tuple[Path, ...]:
        images = (_absolute(self._images[i]) for i in np.flatnonzero(self._readable).tolist())
        return tuple(dict.fromkeys(image for image in images if isinstance(image, Path)))

    def __reduce__(self) -> tuple[Any, ...]:
        images = [_absolute(image) for image in self._images]
        return StreamedStore, (images, self.scan, self.shorter_side, self.channels, self.pixel_range)

    def __repr__(self) -> str:
        return f"StreamedStore(num_images={len(self)}, shorter_side={self.shorter_side})"

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: whether each image can be decoded."""
        return self._readable


def _absolute(image: ImageSource) -> ImageSource:
    """Return the absolute path of a local file; URLs and images in memory as they are."""
    return local_path_of(image).absolute() if isinstance(image, str | Path) and not is_url(image) else image
