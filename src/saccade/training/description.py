"""Recipes as the learned portfolio sees them, and what its predictions of scores and seconds are matched with."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from saccade.models.description import describe_network, kind_of, num_parameters
from saccade.portfolio import Description, NetworkDescription
from saccade.training.metrics import Metric
from saccade.training.own_parts import OwnPart
from saccade.training.problem import Problem
from saccade.training.recipe import Recipe

RECORDED_STEP_S = 0.009
"""Seconds that a step of `measure_log_speed` would take on the machine on which the portfolio's runs were recorded.

Nobody has that machine here. The figure follows from the portfolio's own predictions: where a step took 0.03 s,
mobilenetv2_100 trained 45 images of 224 pixels a second, of the 147 a second that the portfolio predicts.
"""

_SCHEDULES = {"tanh": "cosine", "poly": "cosine", "constant": "plateau", "step": "step", "cosine": "cosine"}
_NUM_STEPS = 5


def describe_recipe(config: Mapping[str, Any]) -> Description:
    """Return a configuration as the portfolio sees it.

    Parameters
    ----------
    config : mapping
        Hyperparameters, as for `Recipe.of`.

    Examples
    --------
    >>> described = describe_recipe({"model": "resnet18", "lr": 0.01, "epochs": 3})
    >>> described.network.family, described.hyperparameters["layer_decay"], described.num_epochs
    ('resnet', 0.75, 3)
    """
    recipe = Recipe.of(config)
    layer_decay = recipe.layer_decay
    if layer_decay is None:
        layer_decay = 0.75 if recipe.starts_pretrained else 1.0
    augmentation = (recipe.auto_augment or "").split("-")[0] or None
    hyperparameters = {
        "lr": recipe.lr,
        "batch_size": recipe.batch_size,
        "opt": recipe.opt if isinstance(recipe.opt, str) else "own",
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "sched": _SCHEDULES[recipe.sched],
        "warmup_epochs": recipe.warmup_epochs,
        "layer_decay": layer_decay,
        "head_only": recipe.starts_pretrained and recipe.transfer_lr_mult == 0,
        "mixup": recipe.mixup,
        "cutmix": recipe.cutmix,
        "smoothing": recipe.smoothing,
        "drop": recipe.drop,
        "clip_grad": recipe.clip_grad,
        "augmentation": augmentation,
        "amp": bool(recipe.amp),
    }
    return Description(_network(recipe), hyperparameters, recipe.epochs)


def _network(recipe: Recipe) -> NetworkDescription:
    if not isinstance(recipe.model, OwnPart):
        return describe_network(recipe.model, img_size=recipe.img_size, pretrained=recipe.pretrained)
    module = recipe.model.value
    size = recipe.img_size or 224
    if not isinstance(module, nn.Module):  # a function that makes one; of that nothing is known
        return NetworkDescription(10e6, size, family=repr(recipe.model))
    return NetworkDescription(float(num_parameters(module)), size, kind=kind_of(module), family=repr(recipe.model))


def score_range(metric: Metric, problem: Problem, targets: np.ndarray) -> tuple[float, float]:
    """Return the score of guessing, and the best that there can be.

    Parameters
    ----------
    metric : Metric
        The figure that judges; scores are higher when better.
    problem : Problem
        What is predicted.
    targets : ndarray
        Encoded training labels.

    Returns
    -------
    tuple of float
        Lower and higher; where a metric cannot be computed on guesses, 0 and 1 (or -1 and 0 for what is to be small).
    """
    best = 1.0 if metric.greater_is_better else 0.0
    counts = np.asarray(targets, dtype=float)
    if problem.is_classification and problem.type != "multilabel":
        shares = np.bincount(np.asarray(targets, dtype=int), minlength=problem.num_outputs) / len(targets)
        guess = np.tile(shares, (len(targets), 1))
    else:
        guess = np.tile(counts.reshape(len(targets), -1).mean(axis=0), (len(targets), 1))
    try:
        low = metric.score(metric(targets, guess, problem))
    except Exception:  # an own function may refuse what is no sensible prediction
        low = math.nan
    if not math.isfinite(low) or low >= best - 1e-6:
        low = best - 1.0
    return low, best


def measure_log_speed(device: torch.device | str = "cpu", num_threads: int | None = None) -> float:
    """Return the natural logarithm of how many times as long training takes here as where the runs were recorded.

    A few steps of a small network of convolutions are timed, which takes about half a second on a CPU.

    Parameters
    ----------
    device
        Where trials are trained.
    num_threads
        CPU threads of a trial; None leaves it to torch.
    """
    device = torch.device(device)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(num_threads or before)
        seconds = _step_seconds(device)
    finally:
        torch.set_num_threads(before)
    return math.log(max(seconds, 1e-6) / RECORDED_STEP_S)


def _step_seconds(device: torch.device) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU()]
        for _ in range(3):
            layers += [
                nn.Conv2d(32, 96, 1),
                nn.ReLU(),
                nn.Conv2d(96, 96, 3, padding=1, groups=96),
                nn.Conv2d(96, 32, 1),
            ]
        network = nn.Sequential(*layers).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x_BCHW = torch.rand(4, 3, 112, 112, device=device).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(_NUM_STEPS + 1):
        start_s = time.perf_counter()
        network(x_BCHW).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start_s)
    return statistics.median(times[1:])  # the first one also sets things up
