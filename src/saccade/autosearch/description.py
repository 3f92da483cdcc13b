"""Descriptions of networks and recipes for the learned portfolio, and the range of scores of a metric."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Hashable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from saccade.autosearch.features import ADAPTIVE, FAMILIES, Description, NetworkDescription
from saccade.data.splitting import stratified_order
from saccade.models.catalogue import published_top1, resolve_name, split_name
from saccade.models.network import CustomObject, network_input
from saccade.models.weights import WEIGHTS_FOLDER_VARIABLE, find_weights, networks_in_folder
from saccade.numerics.device import Numerics, choose_device
from saccade.tasks.metrics import Metric
from saccade.tasks.problem import Problem
from saccade.training.recipes.optimisation import LAYER_DECAY
from saccade.training.recipes.recipe import Recipe

# The most similar schedule in the recordings, which end at a low rate or keep it while scores rise.
_SCHEDULES = {"cosine": "cosine", "tanh": "cosine", "poly": "cosine", "step": "step", "constant": "plateau"}
_LIKE_SGD = ("sgd", "momentum", "nesterov", "lars", "larc", "nlars", "nlarc", "muon")

MAX_IMAGES = 2000  # the most images on which constant predictions are scored

# Parts of pretraining tags: of ImageNet-21k and its subsets, and of web-scale collections or self-training.
_LARGE = re.compile(r"inw?(21|22|12)k")
_WEB_SCALE = re.compile(
    r"(^|_)ns_|jft|laion|clip|openai|datacomp|dfn|webli|dino|swag|seer|lvd|ssl|swsl|wsl|yfcc|ig1b|m30m|m38m|merged|sa1b"
    r"|apple_pt|bamboo|cc12m|deepseek|gemma|ogvl|pali|qwen|radio|sat493m"
)

# Class names of attention modules, with queries and keys. Squeeze-and-excitation, spatial gates and attention pooling
# are not attention in this sense.
_ATTENTION = re.compile(r"attn|attention|^xca$|^litemla$|lambda_?layer", re.IGNORECASE)
_NO_ATTENTION = re.compile(r"split|selective|pool|flatten|^(channel|spatial)attn|^spatialattention", re.IGNORECASE)

_CONVOLUTIONS_OF_HYBRIDS = 0.4  # the fewest convolutions outside of attention blocks per attention module


def describe_recipe(
    config: Mapping[str, Any], *, weights: str | Path | None = None, device: torch.device | None = None
) -> Description:
    """Return the description of a configuration for a device; None is the best available."""
    recipe = Recipe.of(config)
    is_head_only = recipe.transfer_lr_mult == 0
    # The portfolio has one learning rate: that of the trained layers, most of which are pretrained.
    factor = (recipe.output_lr_mult if is_head_only else recipe.transfer_lr_mult) or 1.0
    # The most similar optimizer in the recordings; AdamW for an unknown one, since most of timm decay as it.
    opt = (recipe.opt if isinstance(recipe.opt, str) else repr(recipe.opt)).lower().removeprefix("lookahead_")
    opt = "momentum" if opt.startswith(_LIKE_SGD) else opt if opt in ADAPTIVE else "adamw"
    layer_decay = recipe.layer_decay
    if layer_decay is None:
        has_classifier = isinstance(recipe.model, str) or hasattr(recipe.model.value, "get_classifier")
        layer_decay = LAYER_DECAY if recipe.starts_pretrained and has_classifier else 1.0
    augmentation = recipe.auto_augment if recipe.train_transform is None else None  # which replaces all others
    if augmentation is not None and augmentation.startswith("rand"):
        augmentation = "randaugment"
    hyperparameters: dict[str, Any] = {
        "lr": recipe.lr * factor,
        "batch_size": recipe.batch_size,
        "opt": opt,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "sched": _SCHEDULES[recipe.sched],
        # Limited as in the trainer.
        "warmup_epochs": min(recipe.warmup_epochs, 0.25 * recipe.epochs),
        "warmup_lr": recipe.lr * factor / 100,
        "decay_epochs": max(1, recipe.epochs // 3) if recipe.sched == "step" else None,
        "plateau_patience": 10.0 if recipe.sched == "constant" else None,
        "layer_decay": layer_decay,
        # Recorded runs with `head_only` ended after an epoch; those with all other layers frozen did not.
        "frozen_part": 1.0 if is_head_only else 0.0,
        "mixup": recipe.mixup,
        "cutmix": recipe.cutmix,
        "mix_prob": 1.0,
        "smoothing": recipe.smoothing,
        "drop": recipe.drop,
        "clip_grad": recipe.clip_grad,
        "augmentation": augmentation,
        "amp": Numerics.choose(device or choose_device(), recipe.amp).dtype is not torch.float32,
    }
    starts_with_probe = recipe.starts_pretrained and recipe.linear_probe
    if isinstance(recipe.model, str):
        network = describe_network(
            recipe.model, pretrained=recipe.pretrained, img_size=recipe.img_size, weights=recipe.weights or weights
        )
    else:
        describe = _describe_own if isinstance(recipe.model.value, Hashable) else _describe_own.__wrapped__
        network = describe(recipe.model, recipe.starts_pretrained, recipe.img_size)
    return Description(network, hyperparameters, recipe.epochs, starts_with_probe)


@lru_cache(maxsize=32)
def _describe_own(own: CustomObject, pretrained: bool, img_size: int | None) -> NetworkDescription:
    """Describe the user's own network; a function that builds one is called once."""
    network = own.value
    if not isinstance(network, nn.Module):
        with torch.random.fork_rng(devices=[]):  # its random weights must not change other random numbers
            network = network(10)
    return describe_module(network, pretrained=pretrained, img_size=img_size, name=repr(own))


def score_range(metric: Metric, problem: Problem, targets: np.ndarray) -> tuple[float, float]:
    """Return the score of constant predictions, and the best possible score: two finite numbers, the first smaller.

    Constant predictions are the class frequencies, or the mean for regression. If the metric (such as a user's own)
    fails on these predictions, the range is 0 to 1, or -1 to 0 for an error.
    """
    some = targets[stratified_order(problem.strata(targets), np.random.default_rng(0))[:MAX_IMAGES]]
    best = _score(metric, some, problem.perfect_predictions(some), problem)
    if best is None:
        best = 1.0 if metric.greater_is_better and not metric.name.startswith("neg_") else 0.0
    constant = np.tile(problem.constant_prediction(targets), (len(some), 1))
    low = _score(metric, some, constant, problem)
    if low is None or best - low <= 1e-6 * max(1.0, abs(best)):
        low = best - 1.0
    return low, best


def _score(metric: Metric, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float | None:
    """Return a score; None if the metric fails or is not finite."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some metrics divide by zero on constant predictions
            score = metric.score(metric(targets, predictions, problem))
    except Exception:  # a user's function may raise anything on unusual predictions
        return None
    return score if math.isfinite(score) else None


def describe_network(
    name: str, *, pretrained: bool = True, img_size: int | None = None, weights: str | Path | None = None
) -> NetworkDescription:
    """Describe a network by its name. No weights are read or downloaded, and each network is built once.

    A network without pretrained weights still has the published accuracy, which ranks architectures as well. Parameters
    include a classifier layer of 1000 classes. The tag in the file name of local weights is that of its pretraining.
    """
    # The environment variable may name a folder of weights, so it is part of the cache key.
    folder = os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    return _describe(name, pretrained, img_size, None if weights is None else str(weights), folder)


def describe_module(
    network: nn.Module, *, pretrained: bool = False, img_size: int | None = None, name: str = ""
) -> NetworkDescription:
    """Describe a network that was built already; a network of timm has the published accuracy of its name."""
    config = getattr(network, "pretrained_cfg", None) or {}
    architecture, tag = str(config.get("architecture") or ""), str(config.get("tag") or "")
    return NetworkDescription(
        num_params=float(num_parameters(network)),
        input_size=img_size or network_input(network).img_size,
        top1=published_top1(architecture, tag or None) if architecture else None,
        pretraining=_pretraining(tag) if pretrained else 0,
        kind=kind_of(network),
        family=_family(architecture) if architecture else name,
    )


def num_parameters(network: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def kind_of(network: nn.Module) -> str:
    """Return ``conv``, ``transformer`` or ``hybrid``, by the modules of a network.

    A network without attention is ``conv``; one whose only convolution makes patches (MLP-Mixer) is ``transformer``. A
    network with attention is ``hybrid`` if it has more convolutions outside its attention blocks than a stem.
    """
    attentions: list[str] = []  # the modules that are attention, but not those inside them
    convolutions: list[nn.Conv2d] = []
    spatial: list[str] = []  # convolutions with overlap; others make or merge patches
    for name, module in network.named_modules():
        words = type(module).__name__
        is_inside = name.startswith(tuple(f"{outer}." for outer in attentions if outer))
        if _ATTENTION.search(words) and not _NO_ATTENTION.search(words) and not is_inside:
            attentions.append(name)
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
            convolutions.append(module)
            if tuple(module.kernel_size) != tuple(module.stride):
                spatial.append(name)
    if not attentions:
        return "transformer" if convolutions and not spatial else "conv"
    # Convolutions in the same block as attention, such as XCiT's local interaction, belong to the block.
    blocks = tuple(f"{name.rpartition('.')[0]}." for name in attentions if "." in name)
    inside = (*blocks, *(f"{name}." for name in attentions))
    num_convolutions = sum(not name.startswith(inside) for name in spatial)
    return "hybrid" if num_convolutions > _CONVOLUTIONS_OF_HYBRIDS * len(attentions) else "transformer"


@cache
def _describe(
    name: str, pretrained: bool, img_size: int | None, weights: str | None, folder: str | None
) -> NetworkDescription:
    full = resolve_name(name)
    architecture, tag = split_name(full)
    if pretrained:
        default = timm.models.get_pretrained_cfg(architecture)
        tag = tag or _tag_of_file(architecture, weights or folder) or (default.tag if default else None) or None
    num_params, kind = _size_and_kind(architecture)
    known_tags = [split_name(name)[1] or "" for name in timm.models.get_arch_pretrained_cfgs(architecture)]
    known = f"{architecture}.{tag}" if tag in known_tags else full
    return NetworkDescription(
        num_params=float(num_params),
        input_size=img_size or network_input(known).img_size,
        top1=published_top1(architecture, tag),
        pretraining=_pretraining(tag or "") if pretrained else 0,
        kind=kind,
        family=_family(architecture),
    )


@cache
def _size_and_kind(architecture: str) -> tuple[int, str]:
    with torch.device("meta"):  # shapes only: no memory, and no time for random weights
        network = timm.create_model(architecture, pretrained=False, num_classes=1000)
    return num_parameters(network), kind_of(network)


def _tag_of_file(architecture: str, weights: str | None) -> str | None:
    """Return the tag in the name of the local file that would be loaded; None without one."""
    if weights is None:
        return None
    path = Path(weights).expanduser()
    if path.is_dir():
        if architecture not in networks_in_folder(path):
            return None
        path = find_weights(architecture, folder=path)
    named, tag = split_name(path.name.removesuffix(path.suffix))
    return tag if named == architecture else None


def _pretraining(tag: str) -> int:
    return 2 if _WEB_SCALE.search(tag) else 1 if _LARGE.search(tag) else 0


def _family(architecture: str) -> str:
    """Return the family: one of `FAMILIES`, or the first letters of the name."""
    for family in FAMILIES:
        if any(part.startswith(family) for part in architecture.split("_")):
            return family
    letters = re.match(r"[a-z]+", architecture.removeprefix("tf_"))
    return letters.group() if letters else architecture
