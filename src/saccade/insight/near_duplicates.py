"""Images that are copies of others, resized, encoded anew, cropped or mirrored, though no byte of them is the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from saccade.checks import real_number
from saccade.data.examples import ImageLike
from saccade.errors import DataError, ImageReadError
from saccade.insight.alignment import Picture, agreement
from saccade.insight.embeddings import EmbeddedImages, nearest_rows

THRESHOLD = 0.7
"""Cosine of two images' features from which on their pixels are compared."""

PIXEL_THRESHOLD = 0.8
"""Correlation of details from which on two images are the same picture."""

_NUM_KEPT = 8192  # pictures in memory, of 17 kB each

MOST = 10
"""How many images are compared with each by their pixels, the most similar ones."""


def near_duplicates(
    images: EmbeddedImages, among: EmbeddedImages | None = None, threshold: float | None = None
) -> pd.DataFrame:
    """Find pairs of images that show the very same picture.

    Candidates have similar features; to be a pair, one must also lie upon the other, or upon a part of it, pixel by
    pixel: see `saccade.insight.alignment`.

    Parameters
    ----------
    images : EmbeddedImages
        The images to look at.
    among : EmbeddedImages or None
        Where to look for their copies; None is among themselves.
    threshold : float or None
        The least cosine of candidates, from -1 to 1; None is `THRESHOLD`. Lower finds a few copies that were changed
        more, and takes longer.

    Returns
    -------
    DataFrame
        A row for each pair, the most similar pixels first: ``index`` and ``image`` of the one, ``other_index`` and
        ``other_image`` of the other, ``similarity`` (cosine of features), ``pixel_similarity`` (correlation, at most
        1) and ``is_mirrored``; ``label`` and ``other_label`` where labels are known.

    Raises
    ------
    HyperparameterError
        If the threshold is not a number from -1 to 1.
    DataError
        When an image that could be read before is gone.
    """
    threshold = THRESHOLD if threshold is None else threshold
    real_number("threshold", threshold, "a cosine, from -1 to 1", least=-1, most=1)
    is_same = among is None
    others = images if among is None else among
    pairs = _candidates(images, others, float(threshold), is_same)
    one_of, other_of = _pictures(images), _pictures(others)
    found = []
    for (one, other), cosine in sorted(pairs.items()):
        agree = agreement(one_of(one), other_of(other))
        if agree.correlation >= PIXEL_THRESHOLD:
            found.append(_Pair(one, other, cosine, agree.correlation, agree.is_mirrored))
    found.sort(key=lambda pair: (-pair.pixel_similarity, -pair.similarity))
    return _table(images, others, found)


class _Pair(NamedTuple):
    one: int
    other: int
    similarity: float
    pixel_similarity: float
    is_mirrored: bool


def _candidates(
    images: EmbeddedImages, others: EmbeddedImages, threshold: float, is_same: bool
) -> dict[tuple[int, int], float]:
    """Return the cosine of each pair worth a look at its pixels; a pair among the same images is in order."""
    found, cosines = nearest_rows(images.vectors, others.vectors, MOST, is_same=is_same)
    pairs = {}
    is_readable = images.readable
    for one, row in np.argwhere(cosines >= threshold).tolist():
        other = int(found[one, row])
        if is_readable[one]:
            pairs[(min(one, other), max(one, other)) if is_same else (one, other)] = float(cosines[one, row])
    return pairs


def _pictures(images: EmbeddedImages) -> Callable[[int], Picture]:
    """Return what gives the picture of an image by its number; the latest ones are kept."""

    @lru_cache(_NUM_KEPT)
    def of(number: int) -> Picture:
        image = images.examples.images[number]
        try:
            return Picture(image)
        except ImageReadError as error:
            raise DataError(
                f"{shown(image, number)} cannot be read any more ({error}), and its pixels are wanted; give the images "
                "anew"
            ) from None

    return of


def _table(images: EmbeddedImages, others: EmbeddedImages, pairs: list[_Pair]) -> pd.DataFrame:
    columns: dict[str, list[object]] = {}
    sides = (("", images, [pair.one for pair in pairs]), ("other_", others, [pair.other for pair in pairs]))
    for prefix, side, numbers in sides:
        examples = side.examples
        columns[f"{prefix}index"] = [examples.index[number] for number in numbers]
        columns[f"{prefix}image"] = [shown(examples.images[number], number) for number in numbers]
        if isinstance(examples.labels, pd.Series):
            columns[f"{prefix}label"] = [examples.labels.iloc[number] for number in numbers]
    columns["similarity"] = [pair.similarity for pair in pairs]
    columns["pixel_similarity"] = [pair.pixel_similarity for pair in pairs]
    columns["is_mirrored"] = [pair.is_mirrored for pair in pairs]
    frame: pd.DataFrame = pd.DataFrame(columns)
    types = {
        "image": object,
        "other_image": object,
        "similarity": float,
        "pixel_similarity": float,
        "is_mirrored": bool,
    }
    table: pd.DataFrame = frame.astype(types)
    return table


def shown(image: ImageLike, number: int) -> str:
    """Return the path of an image, or what stands for one that is in no file."""
    if isinstance(image, bytes):
        return f"<bytes #{number}>"
    return str(image) if isinstance(image, str) or hasattr(image, "__fspath__") else f"<image #{number}>"
