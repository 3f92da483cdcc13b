"""What a search tries if the user names no network, and how many images it uses within the time limit.

The defaults were found on photographs and small grey images with small networks on two cores: a few hundred steps whose
learning-rate schedule ends are worth more than many that are cut off, and label smoothing helps them. Rates are those
of small networks on two cores, which train on 80 photographs or 200 small images per second.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saccade.data.decoding import ImageSource, image_size
from saccade.deadline import Deadline
from saccade.errors import ImageReadError, WeightsNotFoundError
from saccade.models.embedded import embedded_networks, package_faults
from saccade.models.weights import find_weights, hub_failure, networks_in_folder
from saccade.space import Categorical, Dict, Real
from saccade.training.recipes.building import weights_options
from saccade.training.recipes.recipe import Recipe, choices

MAX_NETWORKS = 6  # networks of a local folder that are searched; those with the largest files come first

# Networks whose weights come from the hub or its cache if there is no local folder.
ON_CPU = ("mobilenetv3_large_100", "efficientnet_b0", "tiny_vit_5m_224", "convnext_pico")
ON_GPU = (
    "convnext_tiny.in12k_ft_in1k",
    "tiny_vit_21m_224.dist_in22k_ft_in1k",
    "beitv2_base_patch16_224.in1k_ft_in22k_in1k",
    "convnext_base.fb_in22k_ft_in1k",
)

# Fraction of the time limit after which networks that are still to be downloaded are left out.
DOWNLOADS = 0.25

# With fewer training images, learning rates are scaled down in proportion, at most to this fraction.
# A pretrained network that changes as fast with 200 images as with 1,000 ends below its linear probe.
MANY_IMAGES, LEAST_PART = 1000, 0.05

LONG_SEARCH_S = 900.0  # time limit from which longer training and stronger augmentation are tried as well
SMALL_SIDE = 56  # shorter side in pixels below which the input is smaller than the network's own size
NUM_MEASURED = 32  # images whose size is read

# An epoch has at most this many images for each so many seconds of the limit, so that several networks are probed.
PROBED, SECONDS_PER_PROBE = 4000, 120.0

LEAST_IN_EPOCH = 1500
LEAST_SPLIT = 1.5  # images are divided into smaller epochs if there are this many times as many as an epoch should have
USED_PER_SECOND = 200.0  # images per second of the time limit beyond which nothing more is used
TRAINED_PER_SECOND = 60.0  # images per second of the limit that a trial trains on, about half of what is possible

LEAST_EPOCHS, MAX_PASSES = 3, 3

HELD_OUT_PER_SECOND = 4.0
LEAST_HELD_OUT, MAX_HELD_OUT, HELD_OUT_PER_CLASS = 500, 5000, 2  # 5,000 give an accuracy within .5 points
GPU_FACTOR = 20.0  # speed of a GPU relative to two cores


def default_networks(weights: Path | None, is_gpu: bool) -> list[str]:
    """Return the networks to search: those of the local folder of weights, or else common ones from the hub."""
    return networks_in_folder(weights)[:MAX_NETWORKS] or list(ON_GPU if is_gpu else ON_CPU)


def default_space(
    images: Sequence[ImageSource], *, weights: Path | None, is_gpu: bool, time_limit_s: float | None
) -> dict[str, Any]:
    """Return hyperparameters and spaces for a fit without named networks."""
    num_images = min(len(images), max_used(time_limit_s, is_gpu))
    in_epoch = images_per_epoch(num_images, time_limit_s, is_gpu)
    if in_epoch is None:
        epochs = num_passes = num_epochs(len(images), is_gpu)
    else:
        assert time_limit_s is not None
        epochs = num_short_epochs(num_images, in_epoch, time_limit_s, is_gpu)
        num_passes = math.ceil(epochs * in_epoch / num_images)
    space: dict[str, Any] = {
        "model": Categorical(*default_networks(weights, is_gpu)),
        "epochs": epochs,
        "batch_size": 32 if is_gpu else 16,
        "smoothing": 0.1,
    }
    if in_epoch is not None:
        space["images_per_epoch"] = in_epoch
    sides = []
    for image in images[:: max(1, len(images) // NUM_MEASURED)]:
        with contextlib.suppress(ImageReadError):
            sides.append(min(image_size(image)))
    if sides and (side := statistics.median(sides)) < SMALL_SIDE:
        space["img_size"] = max(64, 32 * math.ceil(4 * side / 32))  # about four times their own size
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


def num_epochs(num_images: int, is_gpu: bool) -> int:
    """Return the epochs of a few hundred steps on a CPU, or a few thousand on a GPU."""
    num_seen, most = (30_000, 40) if is_gpu else (6_000, 20)
    return min(most, max(3, math.ceil(num_seen / max(num_images, 1))))


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def least_area(epochs: int) -> float:
    """Return the smallest area of the random crop: the fewer epochs, the weaker the augmentation."""
    return round(min(0.9, max(0.35, 1.2 - 0.1 * epochs)), 2)


def max_used(limit_s: float | None, is_gpu: bool) -> float:
    """Return the most images that a fit with default networks uses."""
    return math.inf if limit_s is None else math.ceil(USED_PER_SECOND * limit_s * (GPU_FACTOR if is_gpu else 1.0))


def images_per_epoch(num_images: float, limit_s: float | None, is_gpu: bool) -> int | None:
    """Return the images of an epoch, so that several epochs are possible; None is all of them."""
    if limit_s is None:
        return None
    factor = GPU_FACTOR if is_gpu else 1.0
    num = round(factor * max(LEAST_IN_EPOCH, min(PROBED, PROBED * limit_s / SECONDS_PER_PROBE)))
    return num if num_images >= LEAST_SPLIT * num else None


def num_short_epochs(num_images: float, in_epoch: int, limit_s: float, is_gpu: bool) -> int:
    """Return the epochs of a trial whose epochs do not cover all images."""
    num_trained = TRAINED_PER_SECOND * limit_s * (GPU_FACTOR if is_gpu else 1.0)
    return max(LEAST_EPOCHS, round(min(num_trained, MAX_PASSES * num_images) / in_epoch))


def max_held_out(limit_s: float | None, is_gpu: bool, num_classes: int = 1) -> int:
    """Return the most images to hold out by default, so that validation takes a small part of the time."""
    num = MAX_HELD_OUT
    if limit_s is not None:
        rate = HELD_OUT_PER_SECOND * (GPU_FACTOR if is_gpu else 1.0)
        num = min(max(round(rate * limit_s), LEAST_HELD_OUT), MAX_HELD_OUT)
    return max(num, HELD_OUT_PER_CLASS * num_classes)


def fall_back_to_available_models(
    space: Dict, weights: Path | None, seconds_left: float = math.inf
) -> tuple[Dict, str]:
    """Return the space with only those networks whose weights are available, and a message for the user.

    Without any, the networks of the local folder replace them; without these, those of installed packages, or else a
    WeightsNotFoundError: random weights are never a fallback, unless training starts from them anyway. Downloads take
    at most `DOWNLOADS` of the time that is left.
    """
    if True not in choices(space, "pretrained"):
        return space, ""
    names: list[str] = choices(space, "model")
    downloads = Deadline(DOWNLOADS * seconds_left)
    missing: list[WeightsNotFoundError] = []
    available = []
    for name in names:
        try:
            where = weights_options(Recipe.of({"model": name}), weights)
            find_weights(name, **where, seconds_left=downloads.seconds_left())
            available.append(name)
        except WeightsNotFoundError as error:
            missing.append(error)
    if not missing:
        return space, ""
    available = available or networks_in_folder(weights)[:MAX_NETWORKS] or embedded_networks()
    if not available:
        raise WeightsNotFoundError("\n".join([str(missing[0]), *package_faults()]))
    model = available[0] if len(available) == 1 else Categorical(*available)
    failure = hub_failure()
    reason = f" (the Hugging Face hub {failure})" if failure else ""
    missing_names = ", ".join(name for name in names if name not in available)
    message = (
        f"No pretrained weights are available for {missing_names}{reason}; this fit uses {', '.join(available)} "
        "instead. Name networks by hyperparameters={'model': …}."
    )
    return Dict({**space.data, "model": model}), " ".join([message, *package_faults()])
