"""How many images a time limit has use for: where there are many more, most would be decoded and never learned from.

The figures are those of small networks on two cores, which learn from some 80 photographs a second, or 200 small
images, and of a GPU, which is taken to be some twenty times as fast as these.
"""

from __future__ import annotations

import math

SECONDS_A_PROBE = 120.0
"""Of a time limit, for each `PROBED` images of an epoch, so that networks can be probed one after the other."""

PROBED = 4000
LEAST_IN_EPOCH = 1500

MANY = 1.5
"""How many times as many images as are to be in an epoch are enough to divide them."""

USED_A_SECOND = 200.0
"""Images for each second of a limit beyond which nothing more is used."""

LEARNED_A_SECOND = 60.0
"""Images that one training learns from, for each second of a limit: about half of what there is time for."""

LEAST_EPOCHS, MOST_PASSES = 3, 3

HELD_OUT_A_SECOND = 4.0
LEAST_HELD_OUT, MOST_HELD_OUT, HELD_OUT_OF_CLASS = 500, 5000, 2
"""Images that judge are never fewer for being many, nor more: by 5,000, accuracies are known to half a point."""

GPU_FACTOR = 20.0


def most_used(limit_s: float | None, is_gpu: bool) -> float:
    """Return how many images a fit has use for that chooses its networks itself.

    Parameters
    ----------
    limit_s : float or None
        Its time limit; None is none.
    is_gpu : bool
        Whether networks are trained on a GPU.

    Examples
    --------
    >>> most_used(60.0, is_gpu=False), most_used(None, is_gpu=False)
    (12000, inf)
    """
    return math.inf if limit_s is None else math.ceil(USED_A_SECOND * limit_s * (GPU_FACTOR if is_gpu else 1.0))


def images_per_epoch(num_images: float, limit_s: float | None, is_gpu: bool) -> int | None:
    """Return how many images an epoch is to have, so that several are possible; None is all of them.

    Parameters
    ----------
    num_images : int
        How many there are.
    limit_s, is_gpu
        As in `most_used`.

    Examples
    --------
    >>> images_per_epoch(100_000, 60.0, is_gpu=False), images_per_epoch(2000, 60.0, is_gpu=False)
    (2000, None)
    """
    if limit_s is None:
        return None
    factor = GPU_FACTOR if is_gpu else 1.0
    num = round(factor * max(LEAST_IN_EPOCH, min(PROBED, PROBED * limit_s / SECONDS_A_PROBE)))
    return num if num_images >= MANY * num else None


def num_epochs_of_many(num_images: float, in_epoch: int, limit_s: float, is_gpu: bool) -> int:
    """Return how many epochs a training has where there are too many images for an epoch to go over all of them.

    Parameters
    ----------
    num_images : float
        All that are used.
    in_epoch : int
        As `images_per_epoch` returned it.
    limit_s, is_gpu
        As in `most_used`.

    Examples
    --------
    >>> [num_epochs_of_many(200 * limit_s, 4000, limit_s, is_gpu=False) for limit_s in (120, 600, 3600)]
    [3, 9, 54]
    """
    num_learned = LEARNED_A_SECOND * limit_s * (GPU_FACTOR if is_gpu else 1.0)
    return max(LEAST_EPOCHS, round(min(num_learned, MOST_PASSES * num_images) / in_epoch))


def most_held_out(limit_s: float | None, is_gpu: bool, num_classes: int = 1) -> int:
    """Return how many images are held out at most where nobody says: judging is to take a small part of the time.

    Parameters
    ----------
    limit_s, is_gpu
        As in `most_used`.
    num_classes : int
        Of which each is to have two.

    Examples
    --------
    >>> [most_held_out(limit_s, is_gpu=False) for limit_s in (60.0, 300.0, None)]
    [500, 1200, 5000]
    """
    if limit_s is None:
        return max(MOST_HELD_OUT, HELD_OUT_OF_CLASS * num_classes)
    num = round(HELD_OUT_A_SECOND * limit_s * (GPU_FACTOR if is_gpu else 1.0))
    return max(min(max(num, LEAST_HELD_OUT), MOST_HELD_OUT), HELD_OUT_OF_CLASS * num_classes)
