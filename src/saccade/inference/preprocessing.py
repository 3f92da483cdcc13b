"""Preprocessing as tensor operations: from uint8 images of any size to the normalised input of a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torchvision.transforms.v2 import functional

from saccade.data.augmentation import resize
from saccade.data.store.stored_form import MAX_ASPECT_RATIO
from saccade.models.network import InputSpec


class Preprocess(nn.Module):
    """Resize, crop and normalise images for one network.

    The steps are: shrink the shorter side to ``img_size / crop_pct`` with a bicubic antialiasing filter (an image whose
    sides differ by more than a factor of 3 is squeezed into a square); enlarge smaller images by the network's own
    interpolation; cut out the centre; normalise.

    `InferencePipeline.predict` computes the same, faster: `saccade.data.store.stored_form.shrunk` and
    `resize_and_crop`. The forward pass is made of operations that every export format has, for any size of images:
    resizing is a product with a matrix for the columns and one for the rows. Both give the same pixels.
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
        # Sizes are tensors, since an export records operations on tensors. float64 is what Python computes with.
        height, width = (
            torch.scalar_tensor(side, dtype=torch.float64, device=images.device) for side in x_BCHW.shape[2:]
        )
        shorter, side = torch.minimum(height, width), self.shorter_side
        is_elongated = torch.maximum(height, width) > MAX_ASPECT_RATIO * shorter
        is_shrunk = shorter >= side

        def matrix(length: int, exact: torch.Tensor) -> torch.Tensor:
            """Return the weights, (img_size, length), of all pixels of a row, or of a column, in each output pixel."""
            resized = torch.where(is_shrunk, (exact * (side / shorter)).round(), (side * exact / shorter).trunc())
            resized = torch.where(is_elongated, torch.full_like(resized, side), resized)
            is_bicubic = is_elongated | is_shrunk | (self.spec.interpolation == "bicubic")
            return _resize_matrix(length, resized, is_bicubic, self.spec.img_size, side)

        across, down = matrix(x_BCHW.shape[3], width), matrix(x_BCHW.shape[2], height)
        rows = _rounded(_exact(lambda x: x @ across.T, x_BCHW.float()))
        pixels = _rounded(_exact(lambda x: down @ x, rows))
        scale = torch.tensor([1 / (255 * deviation) for deviation in self.spec.std], device=images.device)
        shift = torch.tensor([-m / s for m, s in zip(self.spec.mean, self.spec.std, strict=True)], device=images.device)
        return pixels * scale[:, None, None] + shift[:, None, None]

    def resize_and_crop(self, x: torch.Tensor) -> torch.Tensor:
        """Return the central squares, uint8 (..., C, img_size, img_size), of images (C, H, W) or (N, C, H, W)."""
        height, width = x.shape[-2:]
        longer = int(self.shorter_side * max(height, width) / min(height, width))  # truncated, as in torchvision
        size = (self.shorter_side, longer) if height <= width else (longer, self.shorter_side)
        cropped: torch.Tensor = functional.center_crop(
            resize(x, *size, self.spec.interpolation), [self.spec.img_size, self.spec.img_size]
        )
        return cropped


def _exact(resize_sides: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return resized pixels in float64. float32 would round sums of 8 bits times weights; of 4 bits, it need not."""
    high = (x / 16).floor()
    return 16 * resize_sides(high).double() + resize_sides(x - 16 * high).double()


def _rounded(levels: torch.Tensor) -> torch.Tensor:
    return (levels + 0.5).floor().clamp(0, 255).float()


def _resize_matrix(
    length: int, resized: torch.Tensor, is_bicubic: torch.Tensor, num: int, shorter_side: int
) -> torch.Tensor:
    """Return the weights by which torch resizes uint8 pixels with antialiasing, float32 (num, length).

    `length` pixels are resized to `resized` ones, of which the central `num` are returned; weights are 0 outside of the
    image. The weights of one output pixel are those of a window of input pixels, whose length has a bound that depends
    on `length` alone, as exports require. torch rounds weights to integers of 16 bits, after multiplication by a power
    of two that the largest weight of all output pixels determines.
    """
    on = {"dtype": torch.float64, "device": resized.device}
    num_rows, num_taps = MAX_ASPECT_RATIO * shorter_side + 1, 4 * length // shorter_side + 7
    step = length / resized
    stretch = step.clamp(min=1.0)
    support = torch.where(is_bicubic, 2 * stretch, stretch)
    rows, taps = torch.arange(num_rows, **on)[:, None], torch.arange(num_taps, **on)  # type: ignore[call-overload]
    centre = step * (rows + 0.5)
    first = (centre - support + 0.5).trunc().clamp(min=0).clamp(max=length)
    last = (centre + support + 0.5).trunc().clamp(max=length)
    x = ((first + taps - centre + 0.5) * (1 / stretch)).abs()
    # The cubic convolution of Keys with a = -0.5, and the triangle.
    cubic = torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2) * (x < 2)
    weights = torch.where(is_bicubic, cubic, (1 - x).clamp(min=0))
    weights = torch.where((first + taps < last) & (rows < resized), weights, torch.zeros_like(weights))
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)

    powers = torch.tensor([2.0**power for power in range(1, 23)], **on)  # type: ignore[arg-type]
    fits = (0.5 + weights.max() * powers).floor() < 2**15
    unit = 1 + torch.where(fits, powers / 2, torch.zeros_like(powers)).sum()  # the largest power that fits
    weights = weights.sign() * (weights.abs() * unit + 0.5).floor() / unit

    border = (resized - num) / 2
    row = torch.arange(num, **on) + torch.where(border < 0, -(-border).floor(), border.round())  # type: ignore[call-overload]
    taken = row.clamp(0, num_rows - 1).long()
    weights = weights[taken] * ((row >= 0) & (row < resized))[:, None]
    matrix = torch.zeros(num, length + num_taps, device=resized.device)
    return matrix.scatter(1, (first[taken] + taps).long(), weights.float())[:, :length]
