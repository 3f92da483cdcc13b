"""Features of a configuration for the portfolio: numbers that describe network, recipe and data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# The hyperparameters among the features, with their defaults.
# `l2_sp`, `delta`, `bss`, `co_tuning` and `stochastic_norm` are regularisers of transfer learning in the recorded runs;
# Saccade's recipes do not have them.
HYPERPARAMETERS: dict[str, Any] = {
    **dict.fromkeys(("warmup_epochs", "frozen_part", "mixup", "cutmix", "smoothing", "drop"), 0.0),
    **dict.fromkeys(("l2_sp", "delta", "bss", "co_tuning"), 0.0),
    **dict.fromkeys(("head_only", "amp", "stochastic_norm"), False),
    **dict.fromkeys(("clip_grad", "augmentation", "betas", "decay_epochs", "plateau_patience"), None),
    "lr": 1e-3,
    "batch_size": 16,
    "opt": "adamw",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "layer_decay": 1.0,
    "sched": "cosine",
    "warmup_lr": 1e-5,
    "decay_rate": 0.1,
    "mix_prob": 1.0,
}

ADAPTIVE = ("adam", "adamw", "adamp", "lamb", "lion", "nadam", "nadamw", "radam", "adabelief", "rmsprop", "rmsproptf")
_SCHEDULES = ("cosine", "step", "multistep", "plateau")
_AUGMENTATIONS = ("randaugment", "trivialaugment", "autoaugment")

# Families of the recorded networks; other families have no feature of their own.
FAMILIES = ("beit", "convnext", "deit", "dla", "edgenext", "efficientnet", "mobilevit", "swin", "volo", "xcit")

NETWORK_FEATURES = (
    *("log_params", "log_input", "top1", "pretraining", "is_convolutional", "is_transformer"),
    *(f"family_{name}" for name in FAMILIES),
)
RECIPE_FEATURES = (
    *("log_lr", "log_batch", "log_lr_per_image", "log_lr_comparable", "log_lr_effective"),
    *("is_adaptive", "is_adam", "is_adamw", "is_adamp", "is_plain_sgd", "log_weight_decay"),
    *(f"sched_{name}" for name in _SCHEDULES),
    *("warmup_epochs", "layer_decay", "frozen_part", "head_only"),
    *("mixup", "cutmix", "mix_prob", "cutmix_prob", "smoothing", "drop", "clipping"),
    *(f"augment_{name}" for name in _AUGMENTATIONS),
    *("amp", "momentum", "beta1", "beta2", "log_warmup_lr", "decay_epochs", "decay_rate", "plateau_patience"),
    *("log_l2_sp", "log_delta", "log_bss", "co_tuning", "stochastic_norm"),
)
DATA_FEATURES = ("log_images", "log_classes", "log_images_per_class", "log_steps")
# The names of all features, in the order of their columns.
FEATURES = (*NETWORK_FEATURES, *RECIPE_FEATURES, *DATA_FEATURES)


@dataclass(frozen=True)
class NetworkDescription:
    """Features of a network before training."""

    num_params: float  # with or without the classifier layer, which does not matter
    input_size: int = 224  # side in pixels
    top1: float | None = None  # published ImageNet-1k accuracy, 0 to 1; None if unknown
    pretraining: int = 0  # 0 ImageNet-1k or none, 1 ImageNet-21k or similar, 2 web-scale or self-training
    kind: str = "conv"  # conv, hybrid or transformer
    family: str = ""  # one of `FAMILIES`, or another name


@dataclass(frozen=True)
class DatasetDescription:
    """The number of training images, and of classes."""

    num_images: int
    num_classes: int


@dataclass(frozen=True)
class Description:
    """The description of a configuration, from which its features are computed."""

    network: NetworkDescription
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)  # by the names in `HYPERPARAMETERS`
    num_epochs: int = 50
    starts_with_probe: bool = False  # training starts from a linear probe, which is reported as epoch 0


def features(description: Description, data: DatasetDescription, top1: float) -> np.ndarray:
    """Return features of a configuration in the order of `FEATURES`; `top1` is the published or predicted accuracy."""
    network, recipe = description.network, {**HYPERPARAMETERS, **description.hyperparameters}
    log_lr = math.log10(max(recipe["lr"], 1e-12))  # a factor on the rate may be 0
    log_batch = math.log2(recipe["batch_size"])
    opt, sched, augmentation = str(recipe["opt"]).lower(), str(recipe["sched"]), str(recipe["augmentation"])
    is_adaptive = opt in ADAPTIVE
    momentum = recipe["momentum"] if opt in ("momentum", "nesterov", "sgd") else 0.0
    mixes = recipe["mixup"] > 0 or recipe["cutmix"] > 0
    clip = recipe["clip_grad"]
    log_images, log_classes = (math.log10(max(num, 1)) for num in (data.num_images, data.num_classes))
    row = [
        # The network
        math.log10(max(network.num_params, 1e3) / 1e6),
        math.log2(network.input_size / 224),
        top1,
        network.pretraining,
        network.kind == "conv",
        network.kind == "transformer",
        *(network.family == name for name in FAMILIES),
        # The recipe
        log_lr,
        log_batch,
        log_lr - 0.15 * log_batch,
        log_lr if is_adaptive else log_lr - 1.5,  # SGD needs rates about thirty times as high
        log_lr - math.log10(max(1.0 - momentum, 1e-3)),
        is_adaptive,
        *(opt == name for name in ("adam", "adamw", "adamp")),
        not is_adaptive and momentum == 0,
        math.log10(max(recipe["weight_decay"], 1e-6)),
        *(sched == name for name in _SCHEDULES),
        *(recipe[name] for name in ("warmup_epochs", "layer_decay", "frozen_part", "head_only")),
        math.log1p(recipe["mixup"]),
        math.log1p(recipe["cutmix"]),
        recipe["mix_prob"] * mixes,
        recipe["mix_prob"] * (recipe["cutmix"] > 0),
        recipe["smoothing"],
        recipe["drop"],
        0.0 if not clip else 2.0 if clip <= 1 else 1.0,
        *(augmentation == name for name in _AUGMENTATIONS),
        bool(recipe["amp"]),
        momentum,
        *(recipe["betas"] or (0.9, 0.999)),
        math.log10(max(recipe["warmup_lr"], 1e-7)),
        recipe["decay_epochs"] or 200.0,
        recipe["decay_rate"],
        recipe["plateau_patience"] or 20.0,
        *(math.log10(max(recipe[name], 1e-5)) for name in ("l2_sp", "delta", "bss")),
        recipe["co_tuning"],
        recipe["stochastic_norm"],
        # The data set
        log_images,
        log_classes,
        log_images - log_classes,
        log_images - log_batch * math.log10(2),
    ]
    return np.array(row, dtype=float)
