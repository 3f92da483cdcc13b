"""After which epochs a training is judged: those that somebody needs, and others while that costs hardly anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from saccade.training.recipes.recipe import Recipe

JUDGING_PART = 1 / 3
"""What it takes to judge an image, of what it takes to train on one: backward takes twice as long as forward."""

MOST_PART = 0.05
"""Where nobody needs them, judgements take no more than this part of the training."""


def judged_epochs(
    recipe: Recipe, num_train: int, num_val: int, compared: Collection[int] | None
) -> Callable[[int], bool]:
    """Return what tells of an epoch, counted from 1, whether it is judged; the last one is, whatever this says.

    It goes by numbers of images, not by seconds, so that a training comes to the same at whatever speed.

    Parameters
    ----------
    recipe : Recipe
        Its ``val_interval``; and whether it stops by scores, for which every one is needed.
    num_train, num_val : int
        Images of an epoch, and images that judge.
    compared : collection of int or None
        The epochs whose scores the scheduler needs; None is all of them.

    Examples
    --------
    >>> is_judged = judged_epochs(Recipe(), num_train=1000, num_val=500, compared=[1, 3])
    >>> [epoch for epoch in range(1, 13) if is_judged(epoch)]
    [1, 3, 4, 8, 12]
    """
    interval = recipe.val_interval
    if interval is None:
        needs_all = compared is None or recipe.stops_by_score
        interval = 1 if needs_all else max(1, math.ceil(JUDGING_PART / MOST_PART * num_val / num_train))
    needed = frozenset(compared or ())
    return lambda epoch: epoch % interval == 0 or epoch in needed
