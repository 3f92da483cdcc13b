"""Black and white of samples that have more than 8 bits: 16-bit and 32-bit integers, and floats.

A 12-bit X-ray or a thermal image uses a small part of its format's range, so scaling by the format would leave a few of
hundreds of grey levels. Samples are scaled by the range of the data set instead: that of the training images, which is
saved with the predictor. An image without a data set is scaled by its own range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

PixelRange = tuple[float, float]  # the values of black and white
PERCENTILES = (0.1, 99.9)  # percentiles of the samples that become black and white: a few dead pixels do not matter

_MIN_FRACTION = 0.25  # of a usual range that floats must use: then 64 of 256 levels are left
_NUM_SAMPLES = 65_536
_BLOCK = 1 << 20  # samples that are converted at a time, since float64 takes up to eight times their memory


def has_range(dtype: np.dtype[Any]) -> bool:
    """Return whether samples of this type are scaled: all numbers but uint8 and bool."""
    return dtype.kind in "iuf" and dtype != np.uint8


def some_samples(values: npt.NDArray[Any], num: int = _NUM_SAMPLES) -> npt.NDArray[Any]:
    """Return up to `num` finite samples of an image, the same ones each time."""
    flat = values.reshape(-1)
    if flat.size > num:
        flat = flat[np.random.default_rng(0).integers(flat.size, size=num)]
    finite: npt.NDArray[Any] = flat[np.isfinite(flat)]
    return finite


def own_range(samples: npt.NDArray[Any], min_fraction: float = _MIN_FRACTION) -> PixelRange:
    """Return the values of black and white for these samples.

    That is [0, 255] for integers that fit, and [0, 1] or [0, 255] for floats that fit and use at least `min_fraction`
    of it; otherwise the `PERCENTILES` of the samples.
    """
    if not samples.size:
        return 0.0, 1.0
    least, most = float(samples.min()), float(samples.max())
    is_float = samples.dtype.kind == "f"
    whites = (1.0, 255.0, 65535.0) if is_float else (255.0, 65535.0)
    usual = next((white for white in whites if least >= 0 and most <= white), 0.0)
    if usual == 255 and not is_float:
        return 0.0, usual
    if 0 < usual <= 255 and most - least >= min_fraction * usual:
        return 0.0, usual
    low, high = (float(value) for value in np.percentile(samples.astype(np.float64), PERCENTILES))
    if low < high:
        return low, high
    if least < most:
        return least, most
    return (0.0, usual) if usual else (least, least + 1)  # one grey for the whole image


def to_uint8(values: npt.NDArray[Any], pixel_range: PixelRange | None) -> npt.NDArray[np.uint8]:
    """Scale samples linearly from a range to 0 ... 255; NaN and infinities become 0.

    `pixel_range` is black and white; None is the `own_range` of the samples. Floats from 0 to 1 in a data set whose
    white is far above 1 are in another unit: their range is [0, 1].
    """
    if pixel_range is not None and pixel_range[1] > 2 and values.dtype.kind == "f":
        samples = some_samples(values)
        if samples.size and samples.min() >= 0 and samples.max() <= 1:
            pixel_range = (0.0, 1.0)
    low, high = own_range(some_samples(values)) if pixel_range is None else pixel_range
    half = (high / 2 - low / 2) or 1.0  # halved, since the difference of finite numbers may overflow
    flat, scaled = values.reshape(-1), np.empty(values.size, np.uint8)
    for first in range(0, flat.size, _BLOCK):
        block = flat[first : first + _BLOCK].astype(np.float64)
        block[~np.isfinite(block)] = low
        scaled[first : first + _BLOCK] = np.rint((np.clip(block, low, high) / 2 - low / 2) / half * 255)
    return scaled.reshape(values.shape)
