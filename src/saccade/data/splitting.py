"""Setting validation images aside: stratified, seeded, and never the same image on both sides."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from saccade.errors import DataError, HyperparameterError

Positions = npt.NDArray[np.int64]


@dataclass
class _Stratum:
    """The images of one class: groups of equal images that move together, and how many images to hold out."""

    num_images: int = 0
    num_groups: int = 0
    movable: list[list[int]] = field(default_factory=list)  # groups that may be held out
    quota: int = 0

    @property
    def max_groups_held_out(self) -> int:
        """One group at least stays in training."""
        return min(len(self.movable), self.num_groups - 1)


def split_holdout(
    labels: Sequence[Any] | npt.NDArray[Any] | pd.Series[Any],
    holdout_frac: float,
    random_state: int | np.random.Generator | None,
    groups: Sequence[Hashable] | npt.NDArray[Any] | None = None,
    stratify: bool = True,
) -> tuple[Positions, Positions]:
    """Split images into training and validation.

    Parameters
    ----------
    labels
        One label per image.
    holdout_frac
        Share of the images for validation, strictly between 0 and 1.
    random_state
        Seed; the same seed gives the same split. None draws a fresh one.
    groups
        One key per image, `ImageStore.digests` for instance: images with equal keys stay on one side. An
        image with an empty key ("" or None) is a group of its own.
    stratify
        Take the same share of each class. False for regression: labels are not looked at.

    Returns
    -------
    train_positions, val_positions : ndarray of int64
        Ascending, disjoint, together all images; neither is empty.

    Raises
    ------
    HyperparameterError
        `holdout_frac` is not strictly between 0 and 1.
    DataError
        There are too few different images to hold one out.

    Notes
    -----
    Every class keeps at least one image in training, and gives at least one to validation if its share rounds
    to one or more and it has two different images. What rounding leaves over goes to the classes that lost
    most by it. Images that occur under two labels stay in training: validation must not judge by them.

    Examples
    --------
    >>> train, val = split_holdout(["cat", "dog"] * 10, 0.1, random_state=0)
    >>> len(train), len(val)
    (18, 2)
    """
    if isinstance(holdout_frac, bool) or not 0 < holdout_frac < 1:
        raise HyperparameterError(f"holdout_frac must be strictly between 0 and 1, got {holdout_frac!r}.")
    num_images = len(labels)
    if groups is not None and len(groups) != num_images:
        raise DataError(f"There are {num_images} labels, but {len(groups)} groups: give one group per image.")
    rng = np.random.default_rng(random_state)
    classes = _class_numbers(labels) if stratify else np.zeros(num_images, dtype=np.int64)
    strata = _strata(classes, _grouped(num_images, groups))
    _set_quotas(strata, num_images, holdout_frac, rng)
    held_out = [position for stratum in strata for position in _draw(stratum, rng)]
    if not held_out:
        raise DataError(
            f"None of the {num_images} images can be held out for validation: that takes a class with two "
            "different images. Add images, or give the validation data yourself."
        )
    in_val = np.zeros(num_images, dtype=np.bool_)
    in_val[held_out] = True
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)


def _class_numbers(labels: Sequence[Any] | npt.NDArray[Any] | pd.Series[Any]) -> npt.NDArray[np.int64]:
    codes, _ = pd.factorize(pd.Series(list(labels), dtype=object), use_na_sentinel=False)
    return np.asarray(codes, dtype=np.int64)


def _grouped(num_images: int, groups: Sequence[Hashable] | npt.NDArray[Any] | None) -> list[list[int]]:
    """Return the positions of each group, in the order of their first images."""
    if groups is None:
        return [[position] for position in range(num_images)]
    members: dict[Hashable, list[int]] = {}
    for position, key in enumerate(groups):
        is_alone = key is None or key == ""
        members.setdefault(("alone", position) if is_alone else ("group", key), []).append(position)
    return list(members.values())


def _strata(classes: npt.NDArray[np.int64], grouped: list[list[int]]) -> list[_Stratum]:
    num_classes = int(classes.max()) + 1 if len(classes) else 0
    strata = [_Stratum() for _ in range(num_classes)]
    class_of = classes.tolist()
    for positions in grouped:
        in_classes = {class_of[position] for position in positions}
        for position in positions:
            strata[class_of[position]].num_images += 1
        for number in in_classes:
            strata[number].num_groups += 1
        if len(in_classes) == 1:
            strata[in_classes.pop()].movable.append(positions)
    return strata


def _set_quotas(strata: list[_Stratum], num_images: int, holdout_frac: float, rng: np.random.Generator) -> None:
    """Decide how many images each class gives, by largest remainders."""
    shares = [stratum.num_images * holdout_frac for stratum in strata]
    for stratum, share in zip(strata, shares, strict=True):
        if stratum.max_groups_held_out > 0:
            stratum.quota = max(math.floor(share), 1 if share >= 0.5 else 0)
    num_missing = max(1, round(num_images * holdout_frac)) - sum(stratum.quota for stratum in strata)
    shuffled = rng.permutation(len(strata)).tolist()  # so that no class wins every tie
    for number in sorted(shuffled, key=lambda number: strata[number].quota - shares[number]):
        if num_missing <= 0:
            break
        if strata[number].quota < strata[number].max_groups_held_out:
            strata[number].quota += 1
            num_missing -= 1


def _draw(stratum: _Stratum, rng: np.random.Generator) -> list[int]:
    """Draw whole groups at random until the quota is met, without going beyond it if that is possible."""
    order = rng.permutation(len(stratum.movable)).tolist()
    drawn: list[int] = []
    num_groups = 0
    for number in order:
        if num_groups == stratum.max_groups_held_out or len(drawn) >= stratum.quota:
            break
        if len(drawn) + len(stratum.movable[number]) <= stratum.quota:
            drawn += stratum.movable[number]
            num_groups += 1
    if not drawn and stratum.quota > 0 and stratum.max_groups_held_out > 0:
        smallest = min(order, key=lambda number: len(stratum.movable[number]))
        drawn = list(stratum.movable[smallest])
    return drawn
