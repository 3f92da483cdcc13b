"""Images and labels as a torch dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from saccade.data.decoding import decode_image
from saccade.data.scanning import measure_pixel_range


class TorchImages(Dataset[Any]):
    """A map-style dataset that decodes an image each time it is read. It can be pickled if `transform` can.

    Parameters
    ----------
    images
        Paths, bytes, Pillow images or arrays.
    labels
        A number for each image, or None.
    transform
        Called with a Pillow image in mode RGB; None for a uint8 tensor of shape (3, height, width).

    Examples
    --------
    >>> dataset = TorchImages([Image.new("RGB", (4, 2))], labels=[7])
    >>> x_CHW, label = dataset[0]
    >>> tuple(x_CHW.shape), label
    ((3, 2, 4), 7)
    """

    def __init__(
        self,
        images: Sequence[Any],
        labels: Sequence[int | float] | None = None,
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.transform = transform
        self._pixel_range = measure_pixel_range(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        """Return (image, label), or the image alone if there are no labels."""
        image = decode_image(self.images[index], pixel_range=self._pixel_range).image
        if self.transform is not None:
            x = self.transform(image)
        else:
            x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return x if self.labels is None else (x, self.labels[index])
