"""Splits of images into parts or folds, and samples: stratified, seeded, and with groups of images on the same side.

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
    *,
    moves_mixed_groups: bool = False,
) -> tuple[Positions, Positions]:
    """Split images into training and validation images; return the ascending positions of both, neither of them empty.

    Every class (or other stratum) keeps at least one image in training, and gives at least one to validation if its
    fraction rounds to one or more and it has two different images. Groups with images of several classes stay in
    training, as equal images under two labels should, unless `moves_mixed_groups`. Raises a DataError for too few
    different images.
    """
    fraction("holdout_frac", holdout_frac)
    if groups is not None and len(groups) != len(labels):
        raise DataError(f"There are {len(labels)} labels, but {len(groups)} groups: give one group per image.")
    rng = np.random.default_rng(random_state)
    if moves_mixed_groups and (strata_of := _strata_of_groups(labels, groups)).has_mixed:
        in_val = strata_of.hold_out(holdout_frac, rng)
    else:
        in_val = split_parts(labels, [holdout_frac], rng, groups, cover_classes=True) == 1
    if not in_val.any():
        what, num_groups = "two different images", len(_group_numbers(len(labels), groups)[1])
        if moves_mixed_groups:
            what = f"images of two groups, and there {'is 1 group' if num_groups == 1 else f'are {num_groups} groups'}"
        raise DataError(
            f"None of the {len(labels)} images can be held out for validation: that takes a class with {what}. "
            "Add images, or pass validation data (tuning_data)."
        )
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)


def split_by_time(
    labels: Sequence[Any] | npt.NDArray[Any] | pd.Series[Any],
    times: Sequence[float] | npt.NDArray[Any],
    holdout_frac: float,
    groups: Groups = None,
) -> tuple[Positions, Positions]:
    """Split images so that no training image is later than a validation image's group; return the positions of both.

    As near to the fraction as possible of the latest images validate, with images of the same time on one side. A group
    is as late as its latest image. A class without earlier images stays in training. Raises a DataError if times do not
    divide the images.
    """
    fraction("holdout_frac", holdout_frac)
    stratum_of, (group_of, first) = _codes(labels), _group_numbers(len(labels), groups)
    latest = np.full(len(first), -np.inf)
    np.maximum.at(latest, group_of, np.asarray(times, float))
    when = latest[group_of]
    may_validate = np.ones(len(when), bool)
    while True:
        values, counts = np.unique(when[may_validate], return_counts=True)
        num_from = counts[::-1].cumsum()[::-1]  # images of each time or later
        in_val = np.zeros(len(when), bool)
        if len(values) > 1:
            cut = values[1:][np.abs(num_from[1:] - holdout_frac * len(when)).argmin()]
            in_val = may_validate & (when >= cut)
        if not in_val.any() or in_val.mean() > (1 + holdout_frac) / 2:
            raise DataError(
                f"time does not divide the {len(when)} images into earlier training and later validation images: "
                f"{counts.max(initial=0)} of them, or of their groups, have one time. Pass finer times, or validation "
                "data (tuning_data)"
            )
        only_late = np.setdiff1d(stratum_of[in_val], stratum_of[~in_val])
        if not len(only_late):
            break
        may_validate &= ~np.isin(group_of, group_of[np.isin(stratum_of, only_late)])
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)


def joined_groups(num_images: int, *groups: Groups) -> Positions:
    """Return one group number per image, equal for images that any of the `groups` keeps together, also by a chain."""
    codes = [_group_numbers(num_images, each)[0] for each in groups if each is not None]
    joined, before = np.arange(num_images), None
    while before is None or (joined != before).any():
        before = joined
        for code in codes:
            smallest = np.full(num_images, num_images)
            np.minimum.at(smallest, code, joined)
            joined = smallest[code]
    return joined


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

    Groups, the largest first, go where their classes have the fewest images; with too few, the last folds are empty. A
    single group is divided as if there were none, since out-of-fold predictions need two folds.
    """
    group_of, first = _group_numbers(len(strata), groups)
    if 1 < len(first) < len(group_of):
        return _strata_of_groups(strata, groups).fold_of_images(num_folds, rng)
    order = np.lexsort([rng.random(len(strata)), _codes(strata)])
    folds = np.empty(len(strata), np.int64)
    folds[order] = np.arange(len(strata)) % num_folds
    return folds


class _StrataOfGroups:
    """Groups whose images may be of several strata, with greedy assignments of whole groups."""

    def __init__(self, stratum_of: npt.NDArray[np.int64], group_of: Positions) -> None:
        self.group_of = group_of
        self.totals = np.bincount(stratum_of)
        pairs, counts = np.unique(group_of * len(self.totals) + stratum_of, return_counts=True)
        starts = np.flatnonzero(np.diff(pairs // len(self.totals), prepend=-1))
        # The strata of each group, and how many images it has of each.
        self.strata = np.split(pairs % len(self.totals), starts[1:])
        self.counts = np.split(counts, starts[1:])

    @property
    def has_mixed(self) -> bool:
        return any(len(strata) > 1 for strata in self.strata)

    def hold_out(self, part: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Return which images are held out: groups in random order, if each brings the strata nearer to their part."""
        held, wanted = np.zeros(len(self.totals)), part * self.totals
        is_held = np.zeros(len(self.strata), bool)

        def take(group: int, is_needed: bool) -> bool:
            strata, counts = self.strata[group], self.counts[group]
            after = held[strata] + counts
            gain = (held[strata] - wanted[strata]) ** 2 - (after - wanted[strata]) ** 2
            if (after < self.totals[strata]).all() and (is_needed or (gain / self.totals[strata]).sum() > 0):
                held[strata], is_held[group] = after, True
            return bool(is_held[group])

        for group in rng.permutation(len(self.strata)).tolist():
            take(group, False)
        by_size = sorted(range(len(self.strata)), key=lambda group: self.counts[group].sum())
        for stratum in np.flatnonzero(wanted >= 0.5):
            if not held[stratum]:
                any(take(group, True) for group in by_size if stratum in self.strata[group])
        if not is_held.any():
            any(take(group, True) for group in by_size)
        return is_held[self.group_of]

    def fold_of_images(self, num_folds: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        fold_of_group, loads = np.empty(len(self.strata), np.int64), np.zeros((num_folds, len(self.totals)))
        sizes = np.array([counts.sum() for counts in self.counts])
        for group in np.lexsort([rng.random(len(sizes)), -sizes]).tolist():
            strata, counts = self.strata[group], self.counts[group]
            crowd = loads[:, strata] @ (counts / self.totals[strata])
            fold = fold_of_group[group] = np.lexsort([loads.sum(1), crowd])[0]
            loads[fold, strata] += counts
        return fold_of_group[self.group_of]


def _strata_of_groups(strata: Sequence[Any] | npt.NDArray[Any] | pd.Series[Any], groups: Groups) -> _StrataOfGroups:
    return _StrataOfGroups(_codes(strata), _group_numbers(len(strata), groups)[0])


def stratified_order(strata: npt.NDArray[Any], rng: np.random.Generator) -> Positions:
    """Return a random order of images of which each beginning is a stratified sample; parts of the images begin it.

    The first `MIN_OF_STRATUM` images of a rare stratum come earlier than its proportion.
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
    if isinstance(groups, np.ndarray) and groups.dtype.kind in "iu":
        _, first, codes = np.unique(groups, return_index=True, return_inverse=True)
        return codes.astype(np.int64), first.astype(np.int64)
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
