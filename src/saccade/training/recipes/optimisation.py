"""Optimizer, learning-rate schedule and mixup of one trial, from timm."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from timm.data import Mixup
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_class,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.scheduler import create_scheduler_v2

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.models.network import classifier_parameters
from saccade.tasks.problem import Problem
from saccade.training.recipes.recipe import Recipe

LAYER_DECAY = 0.75  # of pretrained networks: factor on the learning rate from each layer to the one before it

# Factor below which layers are frozen.
# They would hardly change, and take most of a step's time, because their feature maps are the largest. With them frozen
# a step takes .4 to .9 of the time, and short training reaches the same accuracy (`benchmarks.frozen_layers`).
NO_OPT_SCALE = 0.1


def make_optimizer(network: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer with a factor on the learning rate per layer; some layers are frozen."""
    groups = _parameter_groups(network, recipe)
    if isinstance(recipe.opt, str):
        check_optimizer(recipe.opt)
        kind = get_optimizer_class(recipe.opt.lower().removeprefix("lookahead_"), bind_defaults=False)
        is_device_known = next(network.parameters()).device.type in ("cpu", "cuda")
        # torch has a fused implementation of some optimizers (`benchmarks.fused_steps`).
        fused = {"fused": True} if is_device_known and "fused" in inspect.signature(kind).parameters else {}
        made: torch.optim.Optimizer = create_optimizer_v2(
            groups, opt=recipe.opt, lr=recipe.lr, momentum=recipe.momentum, weight_decay=0.0, **fused
        )
        return made
    parameters = inspect.signature(recipe.opt.value).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    given = {"lr": recipe.lr, "momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    taken = {name: value for name, value in given.items() if name in parameters or (takes_any and name == "lr")}
    # Learning rate and weight decay of a group override the optimizer's defaults.
    optimizer = recipe.opt.value([{**group, "lr": recipe.lr} for group in groups], **taken)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise HyperparameterError(
            f"The custom optimizer {recipe.opt!r} made {optimizer!r:.100} of type {type(optimizer).__name__}; expected "
            "a subclass of torch.optim.Optimizer."
        )
    return optimizer


def check_optimizer(name: str) -> None:
    """Check that timm has an optimizer of that name."""
    known = list_optimizers(exclude_filters=["fused*", "bnb*"])
    if name.lower().removeprefix("lookahead_") not in known:
        raise UnknownNameError.of("optimizer", name, known)


def _parameter_groups(network: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return timm's layer-wise parameter groups, split into classifier layer and backbone."""
    head = classifier_parameters(network)
    if not head and (recipe.transfer_lr_mult, recipe.output_lr_mult) != (1.0, 1.0):
        raise HyperparameterError(
            f"transfer_lr_mult and output_lr_mult require the classifier layer of the custom network {recipe.model!r}. "
            "Give it a method get_classifier(), or leave both at 1."
        )
    options: dict[str, Any] = {
        "weight_decay": recipe.weight_decay,
        "no_weight_decay_list": getattr(network, "no_weight_decay", set)(),
    }
    layer_decay = recipe.layer_decay or (LAYER_DECAY if recipe.starts_pretrained and head else 1.0)
    least = recipe.layer_decay_no_opt_scale
    if least is None:
        least = NO_OPT_SCALE if recipe.layer_decay is None else 0.0
    groups: list[dict[str, Any]]
    if layer_decay == 1.0:
        groups = [{"lr_scale": 1.0, **group} for group in param_groups_weight_decay(network, **options)]
    else:
        groups = param_groups_layer_decay(network, layer_decay=layer_decay, no_opt_scale=least or None, **options)
    # Multiply in the factors of backbone and classifier layer.
    in_head = {id(parameter) for name, parameter in network.named_parameters() if name in head}
    split = []
    for group in groups:
        for is_head, factor in ((False, recipe.transfer_lr_mult), (True, recipe.output_lr_mult)):
            members = [parameter for parameter in group["params"] if (id(parameter) in in_head) is is_head]
            if members:
                split.append({**group, "params": members, "lr_scale": group["lr_scale"] * factor})
    return split


def side_in_epoch(epoch: int, num_epochs: int, first: int, last: int) -> int:
    """Return the image size in pixels of an epoch, counted from 0, in progressive resizing, in multiples of 32.

    Small images at first save time, and regularise less as training proceeds (Tan and Le, "EfficientNetV2", ICML 2021).
    """
    if epoch == 0 and num_epochs > 1:
        return first
    if epoch >= num_epochs - 1:
        return last
    side = 32 * round((first + (last - first) * epoch / (num_epochs - 1)) / 32)
    return min(max(side, min(first, last)), max(first, last))


class LearningRate:
    """Learning-rate schedule over the steps of a trial, which ends before the deadline; `place` is a step's number.

    A trial that is stopped at a high learning rate is much worse than one with the same number of steps and a complete
    schedule. So the schedule advances faster as soon as the remaining time is too short for all steps.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, num_steps: int) -> None:
        # Warm-up takes at most a quarter of short trials.
        warmup_epochs = min(recipe.warmup_epochs, 0.25 * recipe.epochs)
        self._num_steps = recipe.epochs * num_steps
        self.place = 0.0
        self._schedule, _ = create_scheduler_v2(
            optimizer,
            sched=recipe.sched,
            num_epochs=recipe.epochs,
            decay_epochs=max(1, recipe.epochs // 3),
            decay_rate=1.0 if recipe.sched == "poly" else 0.1,  # an exponent for poly, a factor otherwise
            min_lr=recipe.min_lr,
            warmup_lr=recipe.lr / 100,
            warmup_epochs=warmup_epochs,
            step_on_epochs=False,
            updates_per_epoch=num_steps,
        )

    @property
    def progress(self) -> float:
        """Position in the schedule, from 0 to 1."""
        return self.place / self._num_steps

    def step(self, num_steps_taken: int, num_steps_possible: float = math.inf) -> None:
        """Set the learning rate for the next step."""
        self._schedule.step_update(round(self.place))
        num_left = max(1.0, min(self._num_steps - num_steps_taken, num_steps_possible))
        self.place += (self._num_steps - self.place) / num_left


class Mixing:
    """Mixup and CutMix of a batch, for batches of any size."""

    def __init__(self, recipe: Recipe, problem: Problem) -> None:
        problem.require_classes("mixup or cutmix")
        self._problem, self._smoothing = problem, recipe.smoothing
        self._mixup = Mixup(mixup_alpha=recipe.mixup, cutmix_alpha=recipe.cutmix, label_smoothing=0.0)

    def __call__(
        self, x_BCHW: torch.Tensor, y: torch.Tensor, weights: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return mixed images, class probabilities of shape (batch, classes), and mixed weights if there are any."""
        num = len(x_BCHW)
        if num % 2:  # timm pairs the images of a batch, so an odd batch gets an additional one
            x_BCHW, y = torch.cat([x_BCHW, x_BCHW[:1]]), torch.cat([y, y[:1]])
            weights = None if weights is None else torch.cat([weights, weights[:1]])
        # Mixing row numbers as classes returns the fraction of each image in each mixed one.
        self._mixup.num_classes = len(x_BCHW)
        x_mixed, parts = self._mixup(x_BCHW, torch.arange(len(x_BCHW), device=y.device))
        y_mixed = parts.float() @ self._problem.soft_targets(y, self._smoothing)
        mixed_weights = None if weights is None else (parts.float() @ weights)[:num]
        return x_mixed[:num], y_mixed[:num], mixed_weights
