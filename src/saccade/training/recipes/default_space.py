"""What a search tries if the user names no network, and how many images it uses within the time limit.

The defaults were found on photographs and small grey images with small networks on two cores: a few hundred steps whose
learning-rate schedule ends are worth more than many that are cut off, and label smoothing helps them. Rates are those
of small networks on two cores, which train on 80 photographs or 200 small images per second.
"""

from __future__ import annotations

import contextlib
import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saccade.data.decoding import ImageSource, image_size
from saccade.deadline import Deadline
from saccade.errors import ImageReadError, WeightsNotFoundError
from saccade.models.catalogue import split_name
from saccade.models.embedded import EMBEDDED, embedded_networks, package_faults
from saccade.models.ranking import expected_score, ranked_networks
from saccade.models.weights import find_weights, hub_answers, hub_failure, networks_in_folder, weights_place
from saccade.space import Categorical, Dict, Real
from saccade.training.recipes.building import weights_options
from saccade.training.recipes.recipe import Recipe, choices

MAX_NETWORKS = 24  # among which successive probing chooses

# Families of which this many are in every pool that has the time for them, besides one of each other family. No single
# one is the best on all data ("FEWTRANS", arXiv:2603.00478), and published results say little of the first.
PREFERRED = {
    r"_reg4_dinov2\.": 3,
    r"siglip_\d+\.v2_webli": 2,
    r"^eva02_\w*clip": 2,
    r"^convnext_": 2,
    r"^tiny_vit_": 1,
    r"efficientnet_lite": 3,
}

# Fractions of the time limit: for all downloads, for the probe of one network, and for the first images of all.
DOWNLOADS, PROBE, FIRST_PROBES = 0.25, 0.25, 0.15
BYTES_PER_SECOND, MAX_BYTES = 10e6, 6e9  # of a download, which decides how many are begun, and of all
LARGEST = 0.25  # part of all bytes that one network may have
MAX_GAP = 0.8  # by which the score of a network may be below the best

FIRST_IMAGES = 128  # of a first probe
FIXED_GMACS = 0.6  # work that an image takes in addition to that of the network
NO_LIMIT_S = 120.0  # the time limit that a pool is made for if there is none
MAX_SIDE = 288  # larger images take more time than they gain

# With fewer training images, learning rates are scaled down in proportion, at most to this fraction.
# A pretrained network that changes as fast with 200 images as with 1,000 ends below its linear probe.
MANY_IMAGES, LEAST_PART = 1000, 0.05

LONG_SEARCH_S = 900.0  # time limit from which longer training and stronger augmentation are tried as well
SMALL_SIDE = 56  # shorter side in pixels below which the input is smaller than the network's own size
NUM_MEASURED = 32  # images whose size is read

# An epoch has at most this many images for each so many seconds of the limit, so that several networks are probed.
PROBED, SECONDS_PER_PROBE = 4000, 120.0

LEAST_IN_EPOCH = 1500
MAX_LISTED = 4  # networks that a message names
LEAST_SPLIT = 1.5  # images are divided into smaller epochs if there are this many times as many as an epoch should have
USED_PER_SECOND = 200.0  # images per second of the time limit beyond which nothing more is used
TRAINED_PER_SECOND = 60.0  # images per second of the limit that a trial trains on, about half of what is possible

LEAST_EPOCHS, MAX_PASSES = 3, 3

HELD_OUT_PER_SECOND = 4.0
LEAST_HELD_OUT, MAX_HELD_OUT, HELD_OUT_PER_CLASS = 500, 5000, 2  # 5,000 give an accuracy within .5 points
GPU_FACTOR = 20.0  # speed of a GPU relative to two cores


def default_networks(
    weights: Path | None,
    num_images: float,
    time_limit_s: float | None,
    gmacs_per_s: Callable[[], float] = lambda: 75.0,
) -> list[str]:
    """Return the networks to search, those of which most is expected first.

    They are those of the local folder of weights, or else a pool of networks of the hub and of installed packages:
    those with the best scores of each family. Their licences allow any use. Downloads, and first probes with
    `gmacs_per_s`, fit into the limit.
    """
    if local := networks_in_folder(weights):
        scores = {name: -math.inf if (score := expected_score(name)) is None else score for name in local}
        return sorted(local, key=lambda name: -scores[name])[:MAX_NETWORKS]
    limit_s = NO_LIMIT_S if time_limit_s is None else time_limit_s
    rate, num_probed = gmacs_per_s(), min(num_images, PROBED)
    most_bytes = bytes_left = min(MAX_BYTES, BYTES_PER_SECOND * DOWNLOADS * limit_s)
    first_s = FIRST_PROBES * limit_s
    table = list(ranked_networks().values())
    embedded = {f"{name}.{EMBEDDED[name].tag}": name for name in embedded_networks()}
    pool = [network for network in table if network.name in embedded]
    image_s = {network.name: (network.gmacs + FIXED_GMACS) / rate for network in table}
    affordable = [
        network
        for network in table
        if network.img_size <= MAX_SIDE
        and num_probed * image_s[network.name] <= PROBE * limit_s
        and network.num_bytes <= LARGEST * most_bytes
    ]
    affordable = [network for network in affordable if network.score >= affordable[0].score - MAX_GAP]
    families = dict.fromkeys(_family(network.name) for network in affordable)
    for pattern, num in [*PREFERRED.items(), *((family, 1) for family in families)]:
        alike = [network for network in affordable if re.search(pattern, network.name)]
        num -= sum(re.search(pattern, network.name) is not None for network in pool)
        for network in alike if len(pool) < MAX_NETWORKS else ():
            first_image_s = FIRST_IMAGES * image_s[network.name]
            is_known = split_name(network.name)[0] in {split_name(each.name)[0] for each in pool}
            if num > 0 and not is_known and first_image_s <= first_s and network.num_bytes <= bytes_left:
                pool.append(network)
                num, first_s = num - 1, first_s - first_image_s
                bytes_left -= 0.0 if weights_place(network.name) == "hub cache" else network.num_bytes
    pool = sorted(pool, key=lambda network: -network.score) or [min(table, key=lambda network: network.params_m)]
    return [embedded.get(network.name, network.name) for network in pool]


def _family(name: str) -> str:
    """Return a pattern for networks of the same kind and pretraining, such as ViTs that were trained with CLIP."""
    architecture, tag = split_name(name)
    letters = re.match(r"(tf_)?[a-z]+", architecture)
    word = re.search(r"dinov2|siglip|clip|openai|laion|webli|in\d+k$", f"{architecture}.{tag}")
    return f"^{letters.group() if letters else architecture}.*{word.group() if word else ''}"


def default_space(
    images: Sequence[ImageSource],
    *,
    weights: Path | None,
    is_gpu: bool,
    time_limit_s: float | None,
    gmacs_per_s: Callable[[], float] = lambda: 75.0,
) -> dict[str, Any]:
    """Return hyperparameters and spaces for a fit without named networks on a machine with this speed."""
    num_images = min(len(images), max_used(time_limit_s, is_gpu))
    in_epoch = images_per_epoch(num_images, time_limit_s, is_gpu)
    if in_epoch is None:
        epochs = num_passes = num_epochs(len(images), is_gpu)
    else:
        assert time_limit_s is not None
        epochs = num_short_epochs(num_images, in_epoch, time_limit_s, is_gpu)
        num_passes = math.ceil(epochs * in_epoch / num_images)
    networks = default_networks(weights, num_images, time_limit_s, gmacs_per_s)
    space: dict[str, Any] = {
        "model": Categorical(*networks),
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
    space: Dict, weights: Path | None, seconds_left: float = math.inf, *, is_single: bool = False
) -> tuple[Dict, str]:
    """Return the space with only those networks whose weights are available, and a message for the user.

    Networks of the hub stay in the space if it answers; their downloads follow (`saccade.models.downloads`). One is
    downloaded here if no other is available, or the fit `is_single`, a training of the first available network.
    Without any, the networks of the local folder replace them; without these, those of installed packages, or else a
    WeightsNotFoundError: random weights are never a fallback, unless training starts from them anyway. Downloads take
    at most `DOWNLOADS` of the time that is left.
    """
    if True not in choices(space, "pretrained"):
        return space, ""
    names: list[str] = choices(space, "model")
    available, errors = _available(names, weights, Deadline(DOWNLOADS * seconds_left), is_single=is_single)
    if not errors and not is_single:
        return space, ""
    available = available or networks_in_folder(weights)[:MAX_NETWORKS] or embedded_networks()
    if not available:
        raise WeightsNotFoundError("\n".join([str(errors[names[0]]), *package_faults()]))
    space = Dict({**space.data, "model": available[0] if len(available) == 1 else Categorical(*available)})
    if not errors:
        return space, ""
    failure = hub_failure()
    reason = f" (the Hugging Face hub {failure})" if failure else ""
    missing = [name for name in names if name in errors]
    listed = ", ".join(missing) if len(missing) <= MAX_LISTED else f"{len(missing)} of {len(names)} networks"
    message = (
        f"No pretrained weights are available for {listed}{reason}; this fit uses {', '.join(available)} "
        "instead. Name networks by hyperparameters={'model': …}."
    )
    return space, " ".join([message, *package_faults()])


def _available(
    names: list[str], weights: Path | None, downloads: Deadline, *, is_single: bool
) -> tuple[list[str], dict[str, WeightsNotFoundError]]:
    """Return the networks with weights on this machine, then those that the hub offers; and the errors of others."""
    local: list[str] = []
    remote: list[str] = []
    errors: dict[str, WeightsNotFoundError] = {}

    def find(name: str) -> None:
        try:
            where = weights_options(Recipe.of({"model": name}), weights)
            find_weights(name, **where, seconds_left=downloads.seconds_left())
            local.append(name)
        except WeightsNotFoundError as error:
            errors[name] = error

    folder = weights if weights is None or weights.is_dir() else None
    for name in names:
        is_remote = not is_single and weights_place(name, folder) == "hub"
        if is_remote and (remote or hub_answers(name, downloads.seconds_left())):
            remote.append(name)
        elif not (is_single and local):
            find(name)
    while remote and not local:
        find(remote.pop(0))
    return [*local, *remote], errors
