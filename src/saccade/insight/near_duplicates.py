"""Find copies of images that were resized, encoded again, cropped or mirrored, so that their bytes differ."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from saccade.checks import real_number
from saccade.data.examples import image_name
from saccade.errors import DataError, ImageReadError
from saccade.insight.alignment import Picture, agreement
from saccade.insight.embeddings import EmbeddedImages, nearest_rows

THRESHOLD = 0.7  # minimum cosine of the features of two images to compare their pixels
PIXEL_THRESHOLD = 0.8  # minimum correlation of the details of two copies of the same picture
MAX_CANDIDATES = 10  # number of images that are compared with each image by pixels, the most similar ones

_NUM_CACHED = 8192  # pictures in memory, 17 kB each


def near_duplicates(
    images: EmbeddedImages, among: EmbeddedImages | None = None, threshold: float | None = None
) -> pd.DataFrame:
    """Return pairs of images that show the same picture.

    Candidates have similar features. A candidate pair is reported if the pixels of one image agree with the other one,
    or with a crop of it: see `saccade.insight.alignment`. `threshold` is the minimum cosine of candidates. Pairs with
    the most similar pixels are first: ``similarity`` is a cosine of features, ``pixel_similarity`` a correlation.
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
    pairs = []
    for (one, other), cosine in sorted(candidates.items()):
        found = agreement(one_of(one), other_of(other))
        if found.correlation >= PIXEL_THRESHOLD:
            pairs.append(_Pair(one, other, cosine, found.correlation, found.is_mirrored))
    pairs.sort(key=lambda pair: (-pair.pixel_similarity, -pair.similarity))
    return _table(images, others, pairs)


class _Pair(NamedTuple):
    one: int
    other: int
    similarity: float
    pixel_similarity: float
    is_mirrored: bool


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


def _table(images: EmbeddedImages, others: EmbeddedImages, pairs: list[_Pair]) -> pd.DataFrame:
    columns: dict[str, list[object]] = {}
    sides = (("", images, [pair.one for pair in pairs]), ("other_", others, [pair.other for pair in pairs]))
    for prefix, side, numbers in sides:
        examples = side.examples
        columns[f"{prefix}index"] = [examples.index[number] for number in numbers]
        columns[f"{prefix}image"] = [image_name(examples.images[number], number) for number in numbers]
        if isinstance(examples.labels, pd.Series):
            columns[f"{prefix}label"] = [examples.labels.iloc[number] for number in numbers]
    types = {"similarity": float, "pixel_similarity": float, "is_mirrored": bool}
    for name in types:
        columns[name] = [getattr(pair, name) for pair in pairs]
    frame: pd.DataFrame = pd.DataFrame(columns)
    table: pd.DataFrame = frame.astype({"image": object, "other_image": object, **types})
    return table
