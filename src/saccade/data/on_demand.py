"""Images that are decoded when they are asked for: for prediction, and where there is no room for a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saccade.data.decoding import ImageSource
from saccade.data.examples import ImageLike
from saccade.data.scanning import Scan
from saccade.data.store import ImageStore, Index, read_as_stored
from saccade.errors import ImageReadError


class OnDemandImages:
    """Decodes image `i` at each ``images[i]``; what cannot be read is black, and noted in `errors`.

    Parameters
    ----------
    images : sequence
        Paths, bytes or pictures.
    shorter_side : int
        Pixels of the shorter side that are wanted.
    channels : int
        As in `read_as_stored`.
    """

    decodes = True

    def __init__(self, images: Sequence[ImageLike], shorter_side: int, channels: int = 3) -> None:
        self.images, self.shorter_side, self.channels = images, shorter_side, channels
        self.errors: dict[int, str] = {}

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Return image `index`, uint8 of shape (height, width, channels)."""
        try:
            return read_as_stored(self.images[index], self.shorter_side, self.channels)
        except ImageReadError as error:
            self.errors[index] = str(error)
            return np.zeros((8, 8, self.channels), np.uint8)


class StreamedStore(ImageStore):
    """Stands for a store where there is no room for one: it keeps no pixels, and decodes an image each time.

    Parameters
    ----------
    images : sequence
        Paths, bytes, Pillow images or arrays.
    scan : Scan
        What is known of each.
    shorter_side : int or None
        As in `ImageStore.build`.
    channels : int
        Likewise.

    Examples
    --------
    >>> from saccade.data.scanning import scan_images
    >>> images = [np.zeros((20, 30, 3), dtype=np.uint8)]
    >>> store = StreamedStore(images, scan_images(images), shorter_side=10)
    >>> store[0].shape, store.num_bytes
    ((10, 15, 3), 0)
    """

    decodes = True

    def __init__(self, images: Sequence[ImageSource], scan: Scan, shorter_side: int | None, channels: int = 3) -> None:
        super().__init__(Path(), np.zeros(0, np.uint8), Index.empty(len(images)), scan, shorter_side, channels)
        self._images = images
        self._readable = scan.readable

    def __getitem__(self, position: int) -> npt.NDArray[np.uint8]:
        """Decode one image to (H, W, channels) uint8; raises ImageReadError if it cannot be."""
        position = range(len(self))[position]
        if not self._readable[position]:
            return super().__getitem__(position)  # which tells why
        return read_as_stored(self._images[position], self.shorter_side, self.channels)

    def __reduce__(self) -> tuple[Any, ...]:
        return StreamedStore, (self._images, self.scan, self.shorter_side, self.channels)

    def __repr__(self) -> str:
        return f"StreamedStore(num_images={len(self)}, shorter_side={self.shorter_side})"

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: whether each image can be decoded."""
        return self._readable
