"""Descriptions of recipes for the learned portfolio, and the range of scores of a metric."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from saccade.autosearch.features import Description, NetworkDescription
from saccade.autosearch.network_description import describe_module, describe_network
from saccade.data.splitting import stratified_order
from saccade.models.custom import CustomObject
from saccade.numerics.device import Numerics, choose_device
from saccade.tasks.metrics import Metric
from saccade.tasks.problem import Problem
from saccade.training.recipes.optimisation import LAYER_DECAY
from saccade.training.recipes.recipe import Recipe

# The most similar schedule in the recordings, which end at a low rate or keep it while scores rise.
_SCHEDULES = {"cosine": "cosine", "tanh": "cosine", "poly": "cosine", "step": "step", "constant": "plateau"}
_ADAPTIVE = ("adam", "adamp", "adamw", "adabelief", "lamb", "lion", "nadam", "nadamw", "radam", "rmsprop", "rmsproptf")
_LIKE_SGD = ("sgd", "momentum", "nesterov", "lars", "larc", "nlars", "nlarc", "muon")

MAX_IMAGES = 2000  # the most images on which constant predictions are scored


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
    opt = "momentum" if opt.startswith(_LIKE_SGD) else opt if opt in _ADAPTIVE else "adamw"
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
    return Description(_network(recipe, weights), hyperparameters, recipe.epochs, starts_with_probe)


def _network(recipe: Recipe, weights: str | Path | None) -> NetworkDescription:
    if isinstance(recipe.model, str):
        return describe_network(
            recipe.model, pretrained=recipe.pretrained, img_size=recipe.img_size, weights=recipe.weights or weights
        )
    describe = _describe_own if isinstance(recipe.model.value, Hashable) else _describe_own.__wrapped__
    return describe(recipe.model, recipe.starts_pretrained, recipe.img_size)


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
