"""Recipes as the learned portfolio sees them, and what its predictions of scores and seconds are matched with."""

from __future__ import annotations

import math
import time
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
from saccade.models.custom import CustomObject
from saccade.numerics.device import Numerics, choose_device
from saccade.tasks.metrics import Metric
from saccade.tasks.problem import Problem
from saccade.training.recipes.recipe import Recipe

RECORDED_STEP_S = 0.0034
"""Seconds that a step of `measure_log_speed` would take on the machine on which the portfolio's runs were recorded.

Nobody has that machine here. The figure follows from the portfolio's own predictions, which are 6.1 ms for an image of
224 pixels and mobilenetv2_100: on a CPU in 32 bits such an image took 14.4 times as long as one of the 8 images of a
step. The step is to be measured anew, beside that network, when its layers or the portfolio's costs change.
"""

# What the recordings have that is nearest: they end their schedules at a low rate, or keep it as long as scores rise.
_SCHEDULES = {"cosine": "cosine", "tanh": "cosine", "poly": "cosine", "step": "step", "constant": "plateau"}
_ADAPTIVE = ("adam", "adamp", "adamw", "adabelief", "lamb", "lion", "nadam", "nadamw", "radam", "rmsprop", "rmsproptf")
_LIKE_SGD = ("sgd", "momentum", "nesterov", "lars", "larc", "nlars", "nlarc", "muon")

_MAX_GUESSES = 2000
"""Images on which guessing is judged; more would not change the figure."""

_MEASURED_S, _MAX_STEPS, _MIN_STEPS = 0.25, 50, 3


def describe_recipe(
    config: Mapping[str, Any], *, weights: str | Path | None = None, device: torch.device | None = None
) -> Description:
    """Return a configuration as the portfolio sees it.

    Parameters
    ----------
    config : mapping
        Hyperparameters, as for `Recipe.of`.
    weights : path or None
        A file of pretrained weights or a folder of them, for recipes that name none.
    device : torch.device or None
        Where it will be trained; None is the best there is.

    Raises
    ------
    HyperparameterError, UnknownModelError
        When it is no recipe, or there is no such network.

    Examples
    --------
    >>> described = describe_recipe({"model": "resnet18", "lr": 0.01, "epochs": 3})
    >>> described.network.family, described.hyperparameters["layer_decay"], described.num_epochs
    ('resnet', 0.75, 3)
    """
    recipe = Recipe.of(config)
    is_head_only = recipe.transfer_lr_mult == 0
    # The portfolio knows one rate: that of the layers which are trained, and most of them are the pretrained ones.
    factor = (recipe.output_lr_mult if is_head_only else recipe.transfer_lr_mult) or 1.0
    hyperparameters: dict[str, Any] = {
        "lr": recipe.lr * factor,
        "batch_size": recipe.batch_size,
        "opt": _optimizer(recipe.opt),
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "sched": _SCHEDULES[recipe.sched],
        # As the trainer makes it; epochs count as such, because that is how scores are predicted.
        "warmup_epochs": min(recipe.warmup_epochs, 0.25 * recipe.epochs),
        "warmup_lr": recipe.lr * factor / 100,
        "decay_epochs": max(1, recipe.epochs // 3) if recipe.sched == "step" else None,
        "plateau_patience": 10.0 if recipe.sched == "constant" else None,
        "layer_decay": _layer_decay(recipe),
        # Recorded runs of the last layer alone ended after an epoch; those with all other layers frozen did not.
        "frozen_part": 1.0 if is_head_only else 0.0,
        "mixup": recipe.mixup,
        "cutmix": recipe.cutmix,
        "mix_prob": 1.0,
        "smoothing": recipe.smoothing,
        "drop": recipe.drop,
        "clip_grad": recipe.clip_grad,
        "augmentation": _augmentation(recipe),
        "amp": Numerics.choose(device or choose_device(), recipe.amp).dtype is not torch.float32,
    }
    starts_with_probe = recipe.starts_pretrained and recipe.linear_probe
    return Description(_network(recipe, weights), hyperparameters, recipe.epochs, starts_with_probe)


def _optimizer(opt: str | CustomObject) -> str:
    """Return the recorded optimizer that one is most like; of an unknown one, AdamW, as most of timm's decay so."""
    name = (opt if isinstance(opt, str) else repr(opt)).lower().removeprefix("lookahead_")
    if name.startswith(_LIKE_SGD):
        return "momentum"
    return name if name in _ADAPTIVE else "adamw"


def _layer_decay(recipe: Recipe) -> float:
    if recipe.layer_decay is not None:
        return recipe.layer_decay
    knows_head = isinstance(recipe.model, str) or hasattr(recipe.model.value, "get_classifier")
    return 0.75 if recipe.starts_pretrained and knows_head else 1.0


def _augmentation(recipe: Recipe) -> str | None:
    if recipe.auto_augment is None or recipe.train_transform is not None:  # which takes the place of all others
        return None
    return "randaugment" if recipe.auto_augment.startswith("rand") else recipe.auto_augment


def _network(recipe: Recipe, weights: str | Path | None) -> NetworkDescription:
    if isinstance(recipe.model, str):
        return describe_network(
            recipe.model, pretrained=recipe.pretrained, img_size=recipe.img_size, weights=recipe.weights or weights
        )
    describe = _describe_own if isinstance(recipe.model.value, Hashable) else _describe_own.__wrapped__
    return describe(recipe.model, recipe.starts_pretrained, recipe.img_size)


@lru_cache(maxsize=32)
def _describe_own(own: CustomObject, pretrained: bool, img_size: int | None) -> NetworkDescription:
    """Describe a network of the user's own; a function that makes one is called once, for any number of classes."""
    network = own.value
    if not isinstance(network, nn.Module):
        with torch.random.fork_rng(devices=[]):  # so that its random weights move no other random numbers
            network = network(10)
    return describe_module(network, pretrained=pretrained, img_size=img_size, name=repr(own))


def score_range(metric: Metric, problem: Problem, targets: np.ndarray) -> tuple[float, float]:
    """Return the score of guessing, and the best that there can be.

    Guessing is to give each image what is known before it is looked at: how frequent the classes are, or the mean of
    the numbers. For accuracy that is the share of the most frequent class, 1 / num_classes where all are as frequent.

    Parameters
    ----------
    metric : Metric
        The figure that judges.
    problem : Problem
        What is predicted.
    targets : ndarray, shape (num_images,) or (num_images, num_classes)
        As `Problem.encode` returned them, of the training images.

    Returns
    -------
    tuple of float
        Two scores, as `Metric.score` gives them: finite, and the first less than the second. Where a metric (somebody's
        own, say) cannot be computed on guesses or on what is right, 0 and 1, or -1 and 0 for what is to be small.

    Examples
    --------
    >>> from saccade.tasks.metrics import make_metric
    >>> problem = Problem.of(["cat", "dog", "cow", "owl"])
    >>> score_range(make_metric("accuracy", problem), problem, np.array([0, 1, 2, 3]))
    (0.25, 1.0)
    """
    some = _some_images(targets, problem)
    guess, right = _guesses(targets, len(some), problem), problem.perfect_predictions(some)
    best = _score(metric, some, right, problem)
    if best is None:
        best = 1.0 if metric.greater_is_better and not metric.name.startswith("neg_") else 0.0
    low = _score(metric, some, guess, problem)
    if low is None or best - low <= 1e-6 * max(1.0, abs(best)):
        low = best - 1.0
    return low, best


def _score(metric: Metric, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float | None:
    """Return a score, or None where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant predictions leave some metrics with nothing to divide by
            score = metric.score(metric(targets, predictions, problem))
    except Exception:  # an own function may refuse what no network predicts
        return None
    return score if math.isfinite(score) else None


def _some_images(targets: np.ndarray, problem: Problem) -> np.ndarray:
    """Return the targets of so many images at most, and of each class one at least."""
    if len(targets) <= _MAX_GUESSES:
        return targets
    chosen = np.random.default_rng(0).choice(len(targets), _MAX_GUESSES, replace=False)
    if problem.has_one_class and problem.num_outputs <= _MAX_GUESSES:
        chosen = np.union1d(chosen, np.unique(targets, return_index=True)[1])
    return targets[chosen]


def _guesses(targets: np.ndarray, num_images: int, problem: Problem) -> np.ndarray:
    """Return the same prediction for each of some images, as `Problem.activate` would: (num_images, num_outputs)."""
    return np.tile(problem.constant_prediction(targets), (num_images, 1))


def measure_log_speed(device: torch.device | str = "cpu", num_threads: int | None = None) -> float:
    """Return the natural logarithm of how many times as long training takes here as where the runs were recorded.

    Steps of a small network (inverted residuals, as in MobileNetV2, and a dense convolution) are timed for about 0.3 s,
    in the number format that trials have by default; the quickest counts, because others may use the machine as well.
    `RECORDED_STEP_S` says what they are compared with. Networks differ in what suits a machine, so that it is right
    within a factor of about two only; the searcher corrects it by the first epochs.

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
        seconds = _step_s(device)
    finally:
        torch.set_num_threads(before)
    return math.log(max(seconds, 1e-6) / RECORDED_STEP_S)


def _step_s(device: torch.device) -> float:
    """Return the seconds of a training step on 8 images of 112 pixels, or of as much work."""
    numerics = Numerics.choose(device, None)
    # Only the start of its kernels would be measured on a GPU with so few pixels.
    num_images, side = (8, 112) if device.type == "cpu" else (16, 224)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = numerics.place(_typical_network())
        x_BCHW = torch.rand(num_images, 3, side, side).contiguous(memory_format=torch.channels_last).to(device)
    y = torch.zeros(num_images, dtype=torch.int64, device=device)
    optimizer = torch.optim.AdamW(network.parameters())
    times: list[float] = []
    start_s = time.perf_counter()
    while len(times) < 1 + _MIN_STEPS or (
        len(times) <= _MAX_STEPS and time.perf_counter() - start_s < _MEASURED_S + times[0]
    ):
        step_start_s = time.perf_counter()
        with numerics.autocast():
            outputs = network(x_BCHW)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(outputs.float(), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()  # waits for the device
        times.append(time.perf_counter() - step_start_s)
    quickest = min(times[1:])  # the first one also sets things up
    return quickest * (8 / num_images) * (112 / side) ** 2


def _typical_network() -> nn.Module:
    layers = [*_convolution(3, 16, 3, 2)]
    for num_in, num_out in ((16, 24), (24, 32), (32, 64)):
        wide = 4 * num_in
        layers += _convolution(num_in, wide, 1)
        layers += _convolution(wide, wide, 3, 2, groups=wide)
        layers += _convolution(wide, num_out, 1)[:2]
    layers += _convolution(64, 64, 3)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _convolution(num_in: int, num_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(num_in, num_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(num_out), nn.ReLU6()]
