"""Splits of images into parts or folds, and samples: stratified, seeded, and with equal images on the same side.

Every split of the package is made here. scikit-learn's splitters are not used: they refuse classes with a single
image and more classes than held-out images, and take a second to import.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from saccade.checks import fraction
from saccade.errors import DataError

Positions = npt.NDArray[np.int64]
Groups = Sequence[Hashable] | npt.NDArray[Any] | None
"""One key per image; images with equal keys stay together. An empty key ("" or None) is a group of its own."""

MIN_OF_STRATUM = 5  # images of each stratum that a part of the images has, if possible, however rare the stratum is


def split_holdout(
    labels: Sequence[Any] | npt.NDArray[Any] | pd.Series[Any],
    holdout_frac: float,
    random_state: int | np.random.Generator | None,
    groups: Groups = None,
) -> tuple[Positions, Positions]:
    """Split images into training and validation images; return the ascending positions of both, neither of them empty.

    Every class (or other stratum, such as 0 for all images of a regression problem) keeps at least one image in
    training. It gives at least one to validation if its fraction rounds to one or more and it has two different images.
    Images that occur under two labels stay in training. Raises a DataError if there are too few different images.
    """
    fraction("holdout_frac", holdout_frac)
    if groups is not None and len(groups) != len(labels):
        raise DataError(f"There are {len(labels)} labels, but {len(groups)} groups: give one group per image.")
    rng = np.random.default_rng(random_state)
    in_val = split_parts(labels, [holdout_frac], rng, groups, cover_classes=True) == 1
    if not in_val.any():
        raise DataError(
            f"None of the {len(labels)} images can be held out for validation: that takes a class with two "
            "different images. Add images, or pass validation data (tuning_data)."
        )
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)


def split_parts(
    strata: Sequence[Any] | npt.NDArray[Any] | pd.Series[Any],
    fractions: Sequence[float],
    rng: np.random.Generator,
    groups: Groups = None,
    *,
    cover_classes: bool = False,
) -> npt.NDArray[np.int64]:
    """Return the part of each image: 0, the first one, or one more part for each fraction, in each stratum alike.

    Each stratum gives its exact fraction rounded up or down, by largest remainders, and keeps at least one group in the
    first part; a group that is in several strata stays there. `cover_classes` takes an image of each stratum whose
    fraction rounds to one, even if that makes a part larger, and at least one image in all.
    """
    stratum_of = _codes(strata)
    group_of, first = _group_numbers(len(stratum_of), groups)
    num_images = np.bincount(stratum_of)
    # Groups by stratum; those in several strata count for each of them, but may not be moved.
    pairs = np.unique(np.stack([group_of, stratum_of]), axis=1)
    num_groups = np.bincount(pairs[1], minlength=len(num_images))
    is_movable = np.bincount(pairs[0], minlength=len(first)) == 1
    sizes = np.bincount(group_of, minlength=len(first))
    movable = np.flatnonzero(is_movable)
    by_stratum = movable[np.argsort(stratum_of[first[movable]], kind="stable")]
    num_movable = np.bincount(stratum_of[first[movable]], minlength=len(num_images))
    left = [rng.permutation(own).tolist() for own in np.split(by_stratum, np.cumsum(num_movable))[:-1]]
    limits = np.minimum(num_movable, num_groups - 1)

    part_of_group = np.zeros(len(first), np.int64)
    for part, part_fraction in enumerate(fractions, start=1):
        # In images; if all groups may be moved, one of them stays.
        num_left = np.array([sizes[own].sum() - (limit < len(own)) for own, limit in zip(left, limits, strict=True)])
        quotas = _quotas(num_images, part_fraction, np.where(limits > 0, num_left, 0), rng, cover_classes)
        for stratum in np.flatnonzero(quotas):
            taken: list[int] = []
            num_wanted = quotas[stratum]
            for group in left[stratum]:  # whole groups, without exceeding the quota if possible
                if num_wanted <= 0 or len(taken) == limits[stratum]:
                    break
                if sizes[group] <= num_wanted:
                    taken.append(group)
                    num_wanted -= sizes[group]
            taken = taken or [min(left[stratum], key=lambda group: sizes[group])]
            part_of_group[taken] = part
            limits[stratum] -= len(taken)
            left[stratum] = [group for group in left[stratum] if not part_of_group[group]]
    return part_of_group[group_of]


def split_folds(
    strata: Sequence[Any] | npt.NDArray[Any] | pd.Series[Any],
    num_folds: int,
    rng: np.random.Generator,
    groups: Groups = None,
) -> npt.NDArray[np.int64]:
    """Return the fold of each image from 0 on: stratified, of equal size; the numbers of a class differ by at most one.

    The first image of a group decides on its stratum. With fewer groups than folds, some folds are empty.
    """
    group_of, first = _group_numbers(len(strata), groups)
    order = np.lexsort([rng.random(len(first)), _codes(strata)[first]])
    fold_of_group = np.empty(len(first), np.int64)
    fold_of_group[order] = np.arange(len(first)) % num_folds
    return fold_of_group[group_of]


def stratified_order(strata: npt.NDArray[Any], rng: np.random.Generator) -> Positions:
    """Return a random order of images of which each beginning is a stratified sample: all strata in proportion.

    Whatever uses a part of the images takes the beginning of this order. The first `MIN_OF_STRATUM` images of a rare
    stratum come earlier than its proportion, so that a beginning has a few images of each.
    """
    shuffled = rng.permutation(len(strata))
    codes = pd.Series(_codes(np.asarray(strata))[shuffled])
    groups = codes.groupby(codes)
    turn, sizes = groups.cumcount().to_numpy(), groups.transform("size").to_numpy()
    place = (turn + 0.5) * len(strata) / sizes
    latest = np.where(turn < MIN_OF_STRATUM, 2 * groups.ngroups * (turn + 1), np.inf)
    return shuffled[np.argsort(np.minimum(place, latest), kind="stable")]


def _codes(strata: Sequence[Any] | npt.NDArray[Any] | pd.Series[Any]) -> npt.NDArray[np.int64]:
    """Return strata as numbers from 0."""
    if isinstance(strata, np.ndarray) and strata.dtype.kind in "iu":
        return np.unique(strata, return_inverse=True)[1]
    codes, _ = pd.factorize(pd.Series(list(strata), dtype=object), use_na_sentinel=False)
    return np.asarray(codes, dtype=np.int64)


def _group_numbers(num_images: int, groups: Groups) -> tuple[Positions, Positions]:
    """Return the number of each image's group, and the first image of each group."""
    if groups is None:
        return np.arange(num_images), np.arange(num_images)
    keys = [("alone", number) if key is None or key == "" else key for number, key in enumerate(groups)]
    codes, _ = pd.factorize(pd.Series(keys, dtype=object))
    _, first = np.unique(codes, return_index=True)
    return np.asarray(codes, np.int64), np.asarray(first, np.int64)


def _quotas(
    num_images: npt.NDArray[Any],
    fraction: float,
    limits: npt.NDArray[np.int64],
    rng: np.random.Generator,
    cover_classes: bool,
) -> npt.NDArray[np.int64]:
    """Return how many images each stratum gives: its fraction rounded down, and one more by largest remainders."""
    exact = num_images * fraction
    quotas = np.minimum(np.floor(exact + 1e-9).astype(np.int64), limits)
    if cover_classes:
        quotas = np.maximum(quotas, (exact >= 0.5) & (limits > 0))
    num_wanted = max(round(float(exact.sum())), int(cover_classes))
    order = np.lexsort((rng.random(len(exact)), quotas - exact))  # ties in random order
    can_give = order[((quotas < limits) & (exact - quotas > 1e-9))[order]]
    quotas[can_give[: max(num_wanted - int(quotas.sum()), 0)]] += 1
    return quotas
