"""Whether two pictures show the very same thing: one laid over the other, whole, in part, or mirrored.

Networks call photos of one kind alike; pixels do not. Small grey copies of two pictures are first compared everywhere,
by their normalised cross-correlation (Lewis, "Fast normalized cross-correlation", 1995), which does not mind another
size, encoding or brightness. Where they agree best, larger copies are brought to fit by a few steps of Gauss and Newton
(Lucas and Kanade, "An iterative image registration technique", 1981), and compared in their details.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates, uniform_filter  # type: ignore[import-untyped]

from saccade.data.decoding import ImageSource, read_image

COARSE, FINE = 24, 64
"""Pixels of a side of the small copies, and of the larger ones."""

PARTS = (1.0, 0.9, 0.8, 0.7)
"""How much of a side one picture may show of the other."""

LEAST_COARSE = 0.75
"""Correlation of the small copies from which on the larger ones are compared."""

_NUM_STEPS = 8
_NUM_KEPT = 128  # pictures whose parts are in memory, of 0.7 MB each
_SIZES = tuple(itertools.product((round(COARSE * part) for part in PARTS), repeat=2))
_FLAT = 1.0  # variance of an area in which there is as good as nothing to compare
_REACH = 9  # pixels of the larger copies; what is coarser does not count in the end
_FAINT = 5.0**2  # variance of details that are hardly there


@dataclass(frozen=True)
class Agreement:
    """How well one picture lies upon another at best.

    Attributes
    ----------
    correlation : float
        1 for the same picture; about 0 for unrelated ones.
    is_mirrored : bool
        Whether one is best seen as a mirror image of the other.
    """

    correlation: float
    is_mirrored: bool


class Picture:
    """A picture, made ready to be laid upon others.

    Parameters
    ----------
    image : path, bytes, Pillow image or array
        Of any size and shape.

    Raises
    ------
    ImageReadError
        When the image cannot be read.
    """

    def __init__(self, image: ImageSource) -> None:
        grey = read_image(image, min_shorter_side=2 * FINE).convert("L")
        self.fine = np.asarray(grey.resize((FINE, FINE), Image.Resampling.BOX), np.float32)
        self.coarse = grey.resize((COARSE, COARSE), Image.Resampling.BOX)


@lru_cache(_NUM_KEPT)
def _templates(picture: Picture) -> list[np.ndarray]:
    """Return the whole picture and its mirror image in each size of a part, as columns."""
    columns = []
    for height, width in _SIZES:
        small = np.asarray(picture.coarse.resize((width, height), Image.Resampling.BOX), np.float32)
        columns.append(_standardised(np.stack([small.ravel(), small[:, ::-1].ravel()])).T)
    return columns


@lru_cache(_NUM_KEPT)
def _windows(picture: Picture) -> list[np.ndarray]:
    """Return all parts of each size, as rows."""
    pixels = np.asarray(picture.coarse, np.float32)
    views = [np.lib.stride_tricks.sliding_window_view(pixels, size) for size in _SIZES]
    return [_standardised(view.reshape(-1, view.shape[2] * view.shape[3])) for view in views]


def agreement(one: Picture, other: Picture) -> Agreement:
    """Say how well one picture lies upon the other, or upon a part of it.

    Examples
    --------
    >>> pixels = np.random.default_rng(0).uniform(0, 255, (40, 60, 3)).astype(np.uint8)
    >>> found = agreement(Picture(pixels), Picture(pixels[:, ::-1]))
    >>> found.correlation > 0.9, found.is_mirrored
    (True, True)
    """
    best = (-1.0, 0, 0, 0, False)
    for turn, (whole, part) in enumerate(((one, other), (other, one))):
        for size, (rows, columns) in enumerate(zip(_windows(whole), _templates(part), strict=True)):
            correlations = rows @ columns
            place, mirrored = divmod(int(correlations.argmax()), 2)
            best = max(best, (float(correlations[place, mirrored]), turn, size, place, bool(mirrored)))
    correlation, turn, size, place, is_mirrored = best
    if correlation < LEAST_COARSE:
        return Agreement(min(correlation, 0.0), is_mirrored)
    whole, part = (other, one) if turn else (one, other)
    height, width = _SIZES[size]
    top, left = divmod(place, COARSE - width + 1)
    window = np.array([top, left, height, width]) * (FINE / COARSE)
    return Agreement(_fitted(whole.fine, part.fine[:, ::-1] if is_mirrored else part.fine, window), is_mirrored)


def _standardised(rows: np.ndarray) -> np.ndarray:
    """Return rows whose products are correlations; those of flat areas are small."""
    rows = rows - rows.mean(1, keepdims=True)
    scaled: np.ndarray = rows / np.sqrt((rows.var(1, keepdims=True) + _FLAT) * rows.shape[1])
    return scaled


def _fitted(whole: np.ndarray, part: np.ndarray, window: np.ndarray) -> float:
    """Return the correlation of details when the part is laid upon the whole as well as can be.

    `window` is where to begin: top, left, height and width in pixels of the whole.
    """
    rows, columns = np.mgrid[0:FINE, 0:FINE].astype(np.float32).reshape(2, -1) / (FINE - 1)
    wanted = _standardised(part.reshape(1, -1))[0]
    slopes, details = np.gradient(whole), _details(part)
    best = -1.0
    for _ in range(_NUM_STEPS):
        top, left, height, width = window
        places = np.stack([top + rows * (height - 1), left + columns * (width - 1)])
        seen = map_coordinates(whole, places, order=1, mode="nearest")
        best = max(best, _correlation(_details(seen.reshape(FINE, FINE)), details))
        along_y, along_x = (map_coordinates(slope, places, order=1, mode="nearest") for slope in slopes)
        # The last two columns let brightness and contrast differ.
        design = np.stack([along_y, along_x, along_y * rows, along_x * columns, seen, np.ones_like(seen)], 1)
        scale = float(seen.std()) * np.sqrt(seen.size)
        change = np.linalg.lstsq(design, wanted * scale - (seen - seen.mean()), rcond=None)[0][:4]
        window = window + np.clip(change, -4, 4)
        if not (np.isfinite(window).all() and window[2:].min() > FINE / 3):
            break
    return best


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1]) if one.any() and other.any() else 0.0


def _details(picture: np.ndarray) -> np.ndarray:
    """Return what is finer than the larger shapes, about as strong everywhere, so that no bold outline outweighs it."""
    finer = picture - uniform_filter(picture, _REACH)
    strength = np.sqrt(uniform_filter(np.square(finer), _REACH) + _FAINT)
    details: np.ndarray = (finer / strength).ravel()
    return details
