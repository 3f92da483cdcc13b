"""Images as in scikit-learn code: columns of paths, arrays of numbers, rows of a table."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from saccade.data.examples import ImageLike, read_examples
from saccade.errors import DataError

_CHANNELS = (1, 3, 4)


def image_list(X: Any) -> list[ImageLike] | None:
    """Return the images of a column, a list or an array of images; None if X is not images.

    A DataFrame has one column, or a column ``image``. Raises a DataError if X is a single image, or an array of another
    shape.
    """
    if isinstance(X, str | bytes | os.PathLike | Image.Image):
        raise DataError(f"X is one image, {X!r:.60}; expected several: pass [X]")
    if _num_axes(X) > 2:
        return list(_checked_shape(np.asarray(X)))
    if isinstance(X, pd.DataFrame) and X.shape[1] != 1:
        return read_examples(X).images if "image" in X.columns or hasattr(X, "image_column") else None
    values: list[Any] = []
    if isinstance(X, pd.DataFrame):
        values = list(X.iloc[:, 0])
    elif isinstance(X, np.ndarray):
        values = list(X.ravel()) if X.dtype.kind in "USO" and (X.ndim == 1 or X.shape[1] == 1) else []
    elif isinstance(X, pd.Series | pd.Index | Sequence):
        values = list(X)
    return values if values and _is_image(values[0]) else None


def _num_axes(X: Any) -> int:
    """Return the nesting depth of lists or arrays; 1 for a list of pictures."""
    depth = 0
    while isinstance(X, list | tuple) and X:
        X, depth = X[0], depth + 1
    return depth if depth and _is_image(X) else depth + int(getattr(X, "ndim", 0))


def _checked_shape(pictures: np.ndarray) -> np.ndarray:
    shape = pictures.shape
    if pictures.dtype.kind not in "buif":
        raise DataError(f"X is an array of {pictures.dtype}; expected integers or floating-point numbers")
    expected = f"X has shape {shape}; expected (n, height, width), or (n, height, width, 1, 3 or 4 channels)"
    if len(shape) == 3 and shape[2] in _CHANNELS:
        raise DataError(f"{expected}. It looks like one image: pass X[None]")
    if len(shape) > 4 or (len(shape) == 4 and shape[3] not in _CHANNELS):
        has_channels_first = len(shape) == 4 and shape[1] in _CHANNELS
        raise DataError(expected + ("; channels come last: pass X.transpose(0, 2, 3, 1)" if has_channels_first else ""))
    return pictures


def _is_image(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 1
    return isinstance(value, str | bytes | os.PathLike | Image.Image)


def rows_as_images(rows: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Reshape flattened images in C order to `shape`; None: square images, grey or RGB."""
    num_values = rows.shape[1]
    found = square_shape(num_values) if shape is None else shape
    if found is None or len(found) not in (2, 3) or math.prod(found) != num_values:
        expected = "not a square image, grey or RGB" if shape is None else f"not image_shape={shape}"
        raise DataError(
            f"each row of X has {num_values} values, which is {expected}; pass image_shape=(height, width) or "
            "(height, width, channels), or X as paths, or as an array of shape (n, height, width, channels)"
        )
    return rows.reshape(len(rows), *found)


def square_shape(num_values: int) -> tuple[int, ...] | None:
    """Return the shape of a square image, grey or RGB, with this number of values; None if there is none."""
    for channels, last_axis in ((1, ()), (3, (3,))):
        side = math.isqrt(num_values // channels)
        if side and side * side * channels == num_values:
            return (side, side, *last_axis)
    return None


def check_finite(images: Sequence[ImageLike]) -> None:
    """Raise a DataError if an array contains NaN or infinity."""
    for image in images:
        if isinstance(image, np.ndarray) and image.dtype.kind == "f" and not np.isfinite(image).all():
            raise DataError("X contains NaN or infinity; expected finite numbers")
