"""Find copies of images that were resized, encoded again, cropped or mirrored, so that their bytes differ.

Features of a network are similar for photos of one class; pixels are not. Small grey copies of two pictures are first
compared at all positions by normalized cross-correlation (Lewis, "Fast normalized cross-correlation", 1995), which is
insensitive to size, encoding and brightness. At the best position, larger copies are aligned by Gauss-Newton steps
(Lucas and Kanade, "An iterative image registration technique", 1981), and their details are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import map_coordinates, uniform_filter  # type: ignore[import-untyped]

from saccade.checks import real_number
from saccade.data.decoding import ImageSource, read_image
from saccade.data.examples import image_name
from saccade.errors import DataError, ImageReadError
from saccade.insight.embeddings import EmbeddedImages, nearest_rows

THRESHOLD = 0.7  # minimum cosine of the features of two images to compare their pixels
PIXEL_THRESHOLD = 0.8  # minimum correlation of the details of two copies of the same picture
MAX_CANDIDATES = 10  # number of images that are compared with each image by pixels, the most similar ones

_NUM_CACHED = 8192  # pictures in memory, 17 kB each

COARSE, FINE = 24, 64  # side of the small copies and of the larger ones in pixels
CROPS = (1.0, 0.9, 0.8, 0.7)  # crops to search for, as fractions of a side of the other picture
MIN_COARSE_CORRELATION = 0.75  # minimum correlation of the small copies to compare the larger ones

_NUM_STEPS = 8  # of Gauss-Newton
_NUM_CROPPED = 128  # pictures with cached crops, 0.7 MB each
_SIZES = tuple(itertools.product((round(COARSE * crop) for crop in CROPS), repeat=2))
_FLAT_VARIANCE = 1.0  # variance of an area without visible content
_FILTER_SIZE = 9  # pixels of the larger copies; coarser structure is filtered out of the details
_FAINT_VARIANCE = 5.0**2  # variance of hardly visible details


def near_duplicates(
    images: EmbeddedImages, among: EmbeddedImages | None = None, threshold: float | None = None
) -> pd.DataFrame:
    """Return pairs of images that show the same picture, those with the most similar pixels first.

    Candidates have features whose cosine is at least `threshold`. A pair is reported if the pixels of one agree with
    the other or a crop of it: ``similarity`` is the cosine of features, ``pixel_similarity`` a correlation.
    """
    threshold = THRESHOLD if threshold is None else threshold
    real_number("threshold", threshold, "a cosine, from -1 to 1", least=-1, most=1)
    others = images if among is None else among
    rows, cosines = nearest_rows(images.vectors, others.vectors, MAX_CANDIDATES, is_same=among is None)
    candidates = {}
    is_readable = images.readable
    for one, column in np.argwhere(cosines >= threshold).tolist():
        other = int(rows[one, column])
        if is_readable[one]:
            pair = (min(one, other), max(one, other)) if among is None else (one, other)
            candidates[pair] = float(cosines[one, column])
    one_of, other_of = _pictures(images), _pictures(others)
    pairs, facts = [], []
    for pair, cosine in sorted(candidates.items()):
        found = agreement(one_of(pair[0]), other_of(pair[1]))
        if found.correlation >= PIXEL_THRESHOLD:
            pairs.append(pair)
            facts.append((cosine, found.correlation, found.is_mirrored))
    order = sorted(range(len(pairs)), key=lambda row: (-facts[row][1], -facts[row][0]))
    columns: dict[str, list[object]] = {}
    for side, (prefix, embedded) in enumerate((("", images), ("other_", others))):
        examples, numbers = embedded.examples, [pairs[row][side] for row in order]
        columns[f"{prefix}index"] = [examples.index[number] for number in numbers]
        columns[f"{prefix}image"] = [image_name(examples.images[number], number) for number in numbers]
        if isinstance(examples.labels, pd.Series):
            columns[f"{prefix}label"] = [examples.labels.iloc[number] for number in numbers]
    types = {"similarity": float, "pixel_similarity": float, "is_mirrored": bool}
    columns |= {name: [facts[row][place] for row in order] for place, name in enumerate(types)}
    frame: pd.DataFrame = pd.DataFrame(columns)
    table: pd.DataFrame = frame.astype({"image": object, "other_image": object, **types})
    return table


def _pictures(images: EmbeddedImages) -> Callable[[int], Picture]:
    """Return a cached function from the number of an image to its picture."""

    @lru_cache(_NUM_CACHED)
    def of(number: int) -> Picture:
        image = images.examples.images[number]
        try:
            return Picture(image)
        except ImageReadError as error:
            raise DataError(
                f"{image_name(image, number)} has become unreadable ({error}), but its pixels are required; pass the "
                "images again"
            ) from None

    return of


@dataclass(frozen=True)
class Agreement:
    """Similarity of two pictures at their best alignment."""

    correlation: float  # 1 for the same picture; about 0 for unrelated ones
    is_mirrored: bool  # whether the best alignment mirrors one of them


class Picture:
    """Grey copies of a picture in two sizes, for `agreement`."""

    def __init__(self, image: ImageSource) -> None:
        grey = read_image(image, min_shorter_side=2 * FINE).convert("L")
        self.fine = np.asarray(grey.resize((FINE, FINE), Image.Resampling.BOX), np.float32)
        self.coarse = grey.resize((COARSE, COARSE), Image.Resampling.BOX)


@lru_cache(_NUM_CROPPED)
def _templates(picture: Picture) -> list[np.ndarray]:
    """Return the whole picture and its mirror image in each crop size, as columns."""
    columns = []
    for height, width in _SIZES:
        small = np.asarray(picture.coarse.resize((width, height), Image.Resampling.BOX), np.float32)
        columns.append(_standardized(np.stack([small.ravel(), small[:, ::-1].ravel()])).T)
    return columns


@lru_cache(_NUM_CROPPED)
def _windows(picture: Picture) -> list[np.ndarray]:
    """Return all crops of each size, as rows."""
    pixels = np.asarray(picture.coarse, np.float32)
    views = [np.lib.stride_tricks.sliding_window_view(pixels, size) for size in _SIZES]
    return [_standardized(view.reshape(-1, view.shape[2] * view.shape[3])) for view in views]


def agreement(one: Picture, other: Picture) -> Agreement:
    """Return the similarity of two pictures, one of which may be a crop or the mirror image of the other."""
    # Coarse search: each picture as a crop of the other, in all sizes and positions, plain and mirrored.
    best = (-1.0, 0, 0, 0, False)
    for turn, (whole, part) in enumerate(((one, other), (other, one))):
        for size, (rows, columns) in enumerate(zip(_windows(whole), _templates(part), strict=True)):
            correlations = rows @ columns
            position, mirrored = divmod(int(correlations.argmax()), 2)
            best = max(best, (float(correlations[position, mirrored]), turn, size, position, bool(mirrored)))
    correlation, turn, size, position, is_mirrored = best
    if correlation < MIN_COARSE_CORRELATION:
        return Agreement(min(correlation, 0.0), is_mirrored)
    # Fine alignment, starting at that position.
    whole, part = (other, one) if turn else (one, other)
    height, width = _SIZES[size]
    top, left = divmod(position, COARSE - width + 1)
    window = np.array([top, left, height, width]) * (FINE / COARSE)
    fine_part = part.fine[:, ::-1] if is_mirrored else part.fine
    return Agreement(_aligned_correlation(whole.fine, fine_part, window), is_mirrored)


def _standardized(rows: np.ndarray) -> np.ndarray:
    """Return rows whose products are correlations; rows of flat areas are small."""
    rows = rows - rows.mean(1, keepdims=True)
    return np.asarray(rows / np.sqrt((rows.var(1, keepdims=True) + _FLAT_VARIANCE) * rows.shape[1]))


def _aligned_correlation(whole: np.ndarray, part: np.ndarray, window: np.ndarray) -> float:
    """Return the maximum correlation of details while aligning `part` with a window (top, left, height, width)."""
    rows, columns = np.mgrid[0:FINE, 0:FINE].astype(np.float32).reshape(2, -1) / (FINE - 1)
    target = _standardized(part.reshape(1, -1))[0]
    gradients, details = np.gradient(whole), _details(part)
    best = -1.0
    for _ in range(_NUM_STEPS):
        # Sample the current window, and compare it.
        top, left, height, width = window
        coordinates = np.stack([top + rows * (height - 1), left + columns * (width - 1)])
        sampled = map_coordinates(whole, coordinates, order=1, mode="nearest")
        found = _details(sampled.reshape(FINE, FINE))
        best = max(best, float(np.corrcoef(found, details)[0, 1]) if found.any() and details.any() else 0.0)
        # Gauss-Newton step: derivatives by top, left, height and width; the last two columns absorb contrast and
        # brightness.
        along_y, along_x = (map_coordinates(slope, coordinates, order=1, mode="nearest") for slope in gradients)
        design = np.stack([along_y, along_x, along_y * rows, along_x * columns, sampled, np.ones_like(sampled)], 1)
        scale = float(sampled.std()) * np.sqrt(sampled.size)
        change = np.linalg.lstsq(design, target * scale - (sampled - sampled.mean()), rcond=None)[0][:4]
        window = window + np.clip(change, -4, 4)
        if not (np.isfinite(window).all() and window[2:].min() > FINE / 3):
            break
    return best


def _details(picture: np.ndarray) -> np.ndarray:
    """Return the fine structure, normalized locally so that no strong edge dominates the correlation."""
    finer = picture - uniform_filter(picture, _FILTER_SIZE)
    strength = np.sqrt(uniform_filter(np.square(finer), _FILTER_SIZE) + _FAINT_VARIANCE)
    return np.asarray((finer / strength).ravel())
