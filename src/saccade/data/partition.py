"""Dealing rows out into parts so that each group is in every part in the same proportion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def stratified_parts(groups: npt.ArrayLike, shares: Sequence[float], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Deal rows out at random into a first part, which keeps the rest, and one more part for each share.

    Each group gives to each part its exact share, rounded up or down (largest remainders first, so that the
    totals are right as well), but keeps at least one row in the first part.

    Parameters
    ----------
    groups : array of shape (num_rows,)
        The group of each row, of any sortable values.
    shares : sequence of float
        Shares of the rows for the parts 1, 2, ...; together less than 1.
    rng : numpy.random.Generator
        Where chance comes from.

    Returns
    -------
    numpy.ndarray
        The number of each row's part, int64 of shape (num_rows,); 0 is the first part.

    Examples
    --------
    >>> groups = ["cat"] * 10 + ["dog"] * 20
    >>> parts = stratified_parts(groups, [0.1, 0.2], np.random.default_rng(0))
    >>> np.bincount(parts).tolist(), np.bincount(parts[:10]).tolist()
    ([21, 3, 6], [7, 1, 2])
    """
    _, group_of_row = np.unique(np.asarray(groups), return_inverse=True)
    num_rows = np.bincount(group_of_row)
    left = num_rows - 1  # one row of each group stays in the first part
    takes = []
    for share in shares:
        take = _apportioned(num_rows, share, left, rng)
        left = left - take
        takes.append(take)
    parts = np.zeros(len(group_of_row), dtype=np.int64)
    for group in range(len(num_rows)):
        rows = rng.permutation(np.flatnonzero(group_of_row == group))
        start = 0
        for part, take in enumerate(takes, start=1):
            parts[rows[start : start + take[group]]] = part
            start += take[group]
    return parts


def _apportioned(
    num_rows: npt.NDArray[Any], share: float, most: npt.NDArray[Any], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """How many rows each group gives: its share rounded down, and one more where most is lost by that."""
    exact = num_rows * share
    take: npt.NDArray[np.int64] = np.minimum(np.floor(exact + 1e-9).astype(np.int64), most)
    num_more = round(float(exact.sum())) - int(take.sum())
    # Ties fall at random, for otherwise the first classes would always give.
    order = np.lexsort((rng.random(len(exact)), take - exact))
    can_give = order[(take < most)[order] & (exact - take > 1e-9)[order]]
    take[can_give[: max(num_more, 0)]] += 1
    return take
