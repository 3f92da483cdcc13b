"""What a search tries where the user names no network: networks that can be had here, and recipes that suit the images.

The recipes were found on photographs and small grey pictures with small networks on two cores: a few hundred steps
whose learning rate comes down to nothing are worth more than many that are cut off, and label smoothing helps them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saccade.data.decoding import ImageSource, image_size
from saccade.errors import ImageReadError
from saccade.models.weights import networks_in_folder
from saccade.space import Categorical, Real
from saccade.training.recipes.data_budget import images_per_epoch, most_used, num_epochs_of_many

MAX_NETWORKS = 6
"""Networks of a local folder that are searched; those with the largest files come first."""

ON_CPU = ("mobilenetv3_large_100", "efficientnet_b0", "tiny_vit_5m_224", "convnext_pico")
ON_GPU = (
    "convnext_tiny.in12k_ft_in1k",
    "tiny_vit_21m_224.dist_in22k_ft_in1k",
    "beitv2_base_patch16_224.in1k_ft_in22k_in1k",
    "convnext_base.fb_in22k_ft_in1k",
)
"""Networks whose weights are taken from the hub, or from its cache, where there is no local folder."""

FROM_SCRATCH = ("resnet10t", "resnet18")
"""Networks that learn most from few images without pretrained weights."""

MANY_IMAGES, LEAST_PART = 1000, 0.05
"""Training images from which on learning rates are those of many, and the least part of these that few images get.

A pretrained network that learns as fast from 200 images as from 1,000 forgets what it knew: it ends below its probe.
"""

LONG_SEARCH_S = 900.0
"""Time limit from which on longer trainings and stronger augmentation are tried as well."""

SMALL_SIDE = 56
"""Pixels of the shorter side below which a network gets fewer pixels than it was made for."""

NUM_MEASURED = 32
"""Images whose size is looked at."""


def default_networks(weights: Path | None, is_gpu: bool) -> list[str]:
    """Return the networks to search: those of the local folder of weights, or else well-known ones of the hub.

    Parameters
    ----------
    weights : Path or None
        A folder of weights, or one file; None is the folder that ``SACCADE_WEIGHTS`` names, if any.
    is_gpu : bool
        Whether they are trained on a GPU.
    """
    return networks_in_folder(weights)[:MAX_NETWORKS] or list(ON_GPU if is_gpu else ON_CPU)


def default_space(
    images: Sequence[ImageSource], *, weights: Path | None, is_gpu: bool, time_limit_s: float | None
) -> dict[str, Any]:
    """Return hyperparameters and spaces for a fit that names no network.

    Parameters
    ----------
    images : sequence of image
        The training images; the sizes of a few are looked at.
    weights, is_gpu
        As in `default_networks`.
    time_limit_s : float or None
        Of the fit. None makes the space finite, so that the search ends by itself.

    Examples
    --------
    >>> import numpy as np
    >>> images = [np.zeros((28, 28, 3), np.uint8)] * 100
    >>> space = default_space(images, weights=None, is_gpu=False, time_limit_s=300)
    >>> space["img_size"], space["epochs"]
    (128, 20)
    """
    num_images = min(len(images), most_used(time_limit_s, is_gpu))
    in_epoch = images_per_epoch(num_images, time_limit_s, is_gpu)
    if in_epoch is None:
        epochs = num_passes = num_epochs(len(images), is_gpu)
    else:
        assert time_limit_s is not None
        epochs = num_epochs_of_many(num_images, in_epoch, time_limit_s, is_gpu)
        num_passes = math.ceil(epochs * in_epoch / num_images)
    space: dict[str, Any] = {
        "model": Categorical(*default_networks(weights, is_gpu)),
        "epochs": epochs,
        "batch_size": 32 if is_gpu else 16,
        "smoothing": 0.1,
    }
    if in_epoch is not None:
        space["images_per_epoch"] = in_epoch
    if (side := _small_side(images)) is not None:
        space["img_size"] = side
    part = min(1.0, max(LEAST_PART, len(images) / MANY_IMAGES))
    if time_limit_s is None:
        space["lr"] = _rounded(1e-3 * part)
    else:
        space["lr"] = Real(_rounded(2e-4 * part), _rounded(3e-3 * part), log=True, default=_rounded(1e-3 * part))
        space["weight_decay"] = Real(1e-5, 1e-1, log=True, default=1e-2)
    is_long = time_limit_s is not None and time_limit_s >= LONG_SEARCH_S
    if not is_long:
        space["scale"] = (least_area(num_passes), 1.0)
    else:
        space["epochs"] = Categorical(epochs, 3 * epochs)
        space["auto_augment"] = Categorical(None, "randaugment")
    return space


def scratch_space(num_images: int, is_gpu: bool) -> dict[str, Any]:
    """Return what takes the place of the default where there are no pretrained weights at all.

    Parameters
    ----------
    num_images : int
        Training images.
    is_gpu : bool
        Whether they are trained on a GPU.
    """
    epochs = 4 * num_epochs(num_images, is_gpu)
    return {
        "model": Categorical(*FROM_SCRATCH),
        "pretrained": False,
        "epochs": epochs,
        "scale": (least_area(epochs), 1.0),
        "lr": Real(5e-4, 5e-3, log=True, default=2e-3),
        "weight_decay": Real(1e-3, 1e-1, log=True, default=5e-2),
        "smoothing": 0.1,
        "img_size": 96,
    }


def num_epochs(num_images: int, is_gpu: bool) -> int:
    """Return how many epochs make a few hundred steps on a CPU, and a few thousand on a GPU."""
    num_seen, most = (30_000, 40) if is_gpu else (6_000, 20)
    return min(most, max(3, math.ceil(num_seen / max(num_images, 1))))


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def least_area(epochs: int) -> float:
    """Return the smallest area of the random crop: what is seen a few times only is not to be varied much.

    Examples
    --------
    >>> [least_area(epochs) for epochs in (3, 6, 20)]
    [0.9, 0.6, 0.35]
    """
    return round(min(0.9, max(0.35, 1.2 - 0.1 * epochs)), 2)


def _small_side(images: Sequence[ImageSource]) -> int | None:
    """Return the input size for small images: about four times their own; None where the network's own is right."""
    sides = []
    for image in images[:: max(1, len(images) // NUM_MEASURED)]:
        try:
            sides.append(min(image_size(image)))
        except ImageReadError:
            continue
    if not sides or (side := statistics.median(sides)) >= SMALL_SIDE:
        return None
    return max(64, 32 * math.ceil(4 * side / 32))
