"""Images that are decoded when they are asked for: what prediction reads instead of a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saccade.data.examples import ImageLike
from saccade.data.store import read_as_stored
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
