"""Images as scikit-learn's users have them: columns of paths, arrays of pixels of any scale, rows of a table."""

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

PixelRange = tuple[float, float]
"""The numbers that are black and white."""

_CHANNELS = (1, 3, 4)


def image_list(X: Any) -> list[ImageLike] | None:
    """Return the images of a column, a list or an array of images; None where X is a table, or anything else.

    Parameters
    ----------
    X : list, array, Series, or DataFrame
        Paths, bytes, Pillow images or arrays; or one array of shape (n, height, width[, channels]). A DataFrame has
        one column, or a column ``image``.

    Raises
    ------
    DataError
        When X is a single image, or an array of another shape.

    Examples
    --------
    >>> image_list(["cat.jpg", "dog.jpg"]), len(image_list(np.zeros((5, 8, 8))))
    (['cat.jpg', 'dog.jpg'], 5)
    >>> image_list(np.zeros((5, 64))) is None
    True
    """
    if isinstance(X, str | bytes | os.PathLike | Image.Image):
        raise DataError(f"X is one image, {X!r:.60}; expected many: give [X]")
    if _num_axes(X) > 2:
        return list(_checked_shape(np.asarray(X)))
    if isinstance(X, pd.DataFrame) and X.shape[1] != 1:
        return read_examples(X).images if "image" in X.columns or hasattr(X, "image_column") else None
    values = _column_values(X)
    return values if values and _is_image(values[0]) else None


def _num_axes(X: Any) -> int:
    """Return how deep lists or arrays are nested; 1 for a list of pictures."""
    depth = 0
    while isinstance(X, list | tuple) and X:
        X, depth = X[0], depth + 1
    return depth if depth and _is_image(X) else depth + int(getattr(X, "ndim", 0))


def _checked_shape(pictures: np.ndarray) -> np.ndarray:
    shape = pictures.shape
    if pictures.dtype.kind not in "buif":
        raise DataError(f"X is an array of {pictures.dtype}; expected whole or floating-point numbers")
    expected = f"X has shape {shape}; expected (n, height, width), or (n, height, width, 1, 3 or 4 channels)"
    if len(shape) == 3 and shape[2] in _CHANNELS:
        raise DataError(f"{expected}. It looks like one picture: give X[None]")
    if len(shape) > 4 or (len(shape) == 4 and shape[3] not in _CHANNELS):
        are_first = len(shape) == 4 and shape[1] in _CHANNELS
        raise DataError(expected + ("; channels come last: give X.transpose(0, 2, 3, 1)" if are_first else ""))
    return pictures


def _column_values(X: Any) -> list[Any]:
    """Return what a single column holds; of anything else, nothing."""
    if isinstance(X, pd.DataFrame):
        return list(X.iloc[:, 0])
    if isinstance(X, np.ndarray):
        is_column = X.dtype.kind in "USO" and (X.ndim == 1 or X.shape[1] == 1)
        return list(X.ravel()) if is_column else []
    return list(X) if isinstance(X, pd.Series | pd.Index | Sequence) else []


def _is_image(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 1
    return isinstance(value, str | bytes | os.PathLike | Image.Image)


def rows_as_images(rows: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return flattened images in their shape.

    Parameters
    ----------
    rows : ndarray, shape (num_images, num_values)
        Images in C order.
    shape : tuple of int or None
        (height, width) or (height, width, channels); None: they are squares, grey or RGB.

    Raises
    ------
    DataError
        When rows are of another length.

    Examples
    --------
    >>> rows_as_images(np.zeros((5, 64))).shape, rows_as_images(np.zeros((5, 3 * 64))).shape
    ((5, 8, 8), (5, 8, 8, 3))
    """
    num_values = rows.shape[1]
    found = square_shape(num_values) if shape is None else shape
    if found is None or len(found) not in (2, 3) or math.prod(found) != num_values:
        expected = "no square picture, grey or RGB" if shape is None else f"not image_shape={shape}"
        raise DataError(
            f"each row of X has {num_values} numbers, which is {expected}; give image_shape=(height, width) or "
            "(height, width, channels), or X as paths, or as an array of shape (n, height, width, channels)"
        )
    return rows.reshape(len(rows), *found)


def square_shape(num_values: int) -> tuple[int, ...] | None:
    """Return the shape of a square picture, grey or RGB, of so many values; None when there is none.

    Examples
    --------
    >>> square_shape(64), square_shape(3 * 64), square_shape(10)
    ((8, 8), (8, 8, 3), None)
    """
    for channels, last_axis in ((1, ()), (3, (3,))):
        side = math.isqrt(num_values // channels)
        if side and side * side * channels == num_values:
            return (side, side, *last_axis)
    return None


def pixel_range_of(images: Sequence[ImageLike]) -> PixelRange | None:
    """Return which numbers are black and white in those of the images that are arrays; None where there are none.

    Returns
    -------
    tuple of float, or None
        (0, 255) where all are uint8; (0, 1) where all numbers are in it; else the smallest and the largest.

    Examples
    --------
    >>> pixel_range_of([np.zeros((2, 2), np.uint8)]), pixel_range_of([np.array([[0.0, 16.0]])])
    ((0.0, 255.0), (0.0, 16.0))
    """
    arrays = [image for image in images if isinstance(image, np.ndarray) and image.size]
    if not arrays:
        return None
    if all(array.dtype == np.uint8 for array in arrays):
        return 0.0, 255.0
    low, high = float(min(array.min() for array in arrays)), float(max(array.max() for array in arrays))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def as_uint8(image: ImageLike, pixel_range: PixelRange | None) -> ImageLike:
    """Return an array as uint8; uint8 and bool, and all that is no array, as it is.

    Raises
    ------
    DataError
        When a number is NaN or infinite.

    Examples
    --------
    >>> as_uint8(np.array([[0.0, 8.0, 16.0, 99.0]]), (0.0, 16.0)).tolist()
    [[0, 128, 255, 255]]
    """
    if not isinstance(image, np.ndarray) or image.dtype in (np.uint8, np.bool_) or pixel_range is None:
        return image
    if not np.isfinite(image).all():
        raise DataError("X contains NaN or infinity; expected finite numbers")
    low, high = pixel_range
    # Halved, since the difference of two finite numbers need not be finite.
    part = (image.astype(np.float64) / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
    scaled: np.ndarray = np.rint(np.clip(part, 0, 1) * 255).astype(np.uint8)
    return scaled
