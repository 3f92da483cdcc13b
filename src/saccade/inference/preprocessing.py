"""Preprocessing as tensor operations: from uint8 images of any size to the normalised input of a network."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.transforms.v2 import functional

from saccade.data.augmentation import normalise, resize
from saccade.data.store.stored_form import stored_size
from saccade.models.network import InputSpec


class Preprocess(nn.Module):
    """Resize, crop and normalise images for one network.

    The steps are: shrink the shorter side to ``img_size / crop_pct`` with a bicubic antialiasing filter (an image whose
    sides differ by more than a factor of 3 is squeezed into a square); enlarge smaller images by the network's own
    interpolation; cut out the centre; normalise.

    `InferencePipeline.predict` uses the same code. It shrinks images while it decodes them
    (`saccade.data.store.stored_form.read_as_stored`), so that the first resize is already done. For images that are not
    JPEG files, and are less than 6 times as large as the input, both give the same numbers. Larger ones are reduced in
    two steps by the decoder; the pixels then differ by a few of 255 levels.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        self.shorter_side = round(spec.img_size / spec.crop_pct)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 of shape (N, C, img_size, img_size) for uint8 images (N, H, W, C) or (N, C, H, W) of one size.

        Where both readings are possible, the channels are taken to come first.
        """
        is_channels_first = images.shape[1] == len(self.spec.mean)
        x_BCHW = images if is_channels_first else images.permute(0, 3, 1, 2)
        width, height = stored_size(x_BCHW.shape[3], x_BCHW.shape[2], self.shorter_side)
        x_BCHW = resize(x_BCHW, height, width, "bicubic")
        return normalise(self.resize_and_crop(x_BCHW), self.spec.mean, self.spec.std)

    def resize_and_crop(self, x: torch.Tensor) -> torch.Tensor:
        """Return the central squares, uint8 (..., C, img_size, img_size), of images (C, H, W) or (N, C, H, W)."""
        height, width = x.shape[-2:]
        longer = int(self.shorter_side * max(height, width) / min(height, width))  # truncated, as in torchvision
        size = (self.shorter_side, longer) if height <= width else (longer, self.shorter_side)
        cropped: torch.Tensor = functional.center_crop(
            resize(x, *size, self.spec.interpolation), [self.spec.img_size, self.spec.img_size]
        )
        return cropped
