"""Build the network of a recipe, and check the networks and methods of a search space before the search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from saccade.data.augmentation import policy
from saccade.errors import HyperparameterError
from saccade.inference.classifier import Blueprint, Classifier
from saccade.models.catalogue import resolve_name
from saccade.models.network import (
    CustomObject,
    build_custom_network,
    build_network,
    classifier_parameters,
    network_input,
)
from saccade.models.weights import find_weights
from saccade.numerics.device import Numerics
from saccade.space import Dict
from saccade.tasks.problem import Problem
from saccade.training.recipes.optimisation import check_optimizer
from saccade.training.recipes.recipe import Recipe, choices, usual_side


def new_classifier(
    recipe: Recipe, problem: Problem, numerics: Numerics, weights: Path | None = None, *, is_loaded_next: bool = False
) -> Classifier:
    """Build the recipe's network, pretrained if the recipe says so, with a new classifier layer."""
    if isinstance(recipe.model, CustomObject):
        network = build_custom_network(recipe.model, problem.num_outputs, recipe.in_chans, recipe.img_size)
    else:
        where = weights_options(recipe, weights)
        network = build_network(
            recipe.model,
            problem.num_outputs,
            pretrained=recipe.pretrained,
            in_chans=recipe.in_chans,
            img_size=recipe.img_size,
            drop_rate=recipe.drop or None,
            drop_path_rate=recipe.drop_path,
            weights_file=where.get("file"),
            weights_folder=where.get("folder"),
            random_start=not (recipe.starts_pretrained or is_loaded_next),
        )
    if recipe.starts_pretrained:
        # The classifier layer starts from zero. Some of timm's start so large for few classes that the first gradients
        # undo the pretraining (compare Kumar et al., "Fine-tuning can distort pretrained features", 2022).
        head = classifier_parameters(network)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name in head:
                    parameter.zero_()
    # The recipe overrides the input of the pretraining.
    spec = network_input(network)
    spec = replace(
        spec,
        img_size=recipe.img_size or spec.img_size,
        crop_pct=recipe.crop_pct or spec.crop_pct,
        mean=_for_channels(spec.mean, recipe.in_chans),
        std=_for_channels(spec.std, recipe.in_chans),
    )
    if isinstance(recipe.model, CustomObject):
        blueprint = Blueprint(None, spec, recipe.img_size, recipe.tta, repr(recipe.model))
    else:
        blueprint = Blueprint(resolve_name(recipe.model), spec, recipe.img_size, recipe.tta)
    return Classifier(blueprint, problem, network, numerics)


def _for_channels(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    """Return means or deviations for another number of channels, as timm adapts the first layer."""
    if len(values) == in_chans:
        return values
    if in_chans == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(in_chans))


def weights_options(recipe: Recipe, weights: Path | None) -> dict[str, Any]:
    """Return the arguments ``file`` or ``folder`` of `find_weights`; those of the recipe come first."""
    where = Path(recipe.weights).expanduser() if recipe.weights else weights
    if where is None or not recipe.pretrained:
        return {}
    return {"folder": where} if where.is_dir() else {"file": where}


def check_networks(
    space: Dict,
    weights: Path | None,
    num_outputs: int,
    seconds_left: Callable[[], float] = lambda: math.inf,
    *,
    finds_weights: bool = True,
) -> None:
    """Check that every network of a search space exists, and with `finds_weights` that its weights are available."""
    for model in choices(space, "model"):
        if isinstance(model, CustomObject):
            for img_size in choices(space, "img_size"):
                build_custom_network(model, num_outputs, stored_channels(space), img_size)
            continue
        resolve_name(model)
        for file in choices(space, "weights") if finds_weights and any(choices(space, "pretrained")) else ():
            where = weights_options(Recipe.of({"model": model, "weights": file}), weights)
            find_weights(model, **where, seconds_left=seconds_left())


def check_methods(space: Dict) -> None:
    """Check that every optimizer and augmentation policy of a search space exists."""
    for opt in choices(space, "opt"):
        if isinstance(opt, str):
            check_optimizer(opt)
    for name in choices(space, "auto_augment"):
        if name is not None:
            policy(name)


def stored_side(space: Dict, num_outputs: int) -> int:
    """Return the shorter side in pixels that stored images need for all networks of a search space."""
    sides = []
    for model in choices(space, "model"):
        network: Any = resolve_name(model) if isinstance(model, str) else model.value
        if not isinstance(network, str | torch.nn.Module):
            network = network(num_outputs)
        spec = network_input(network)
        for img_size, crop_pct in itertools.product(choices(space, "img_size"), choices(space, "crop_pct")):
            side = img_size or usual_side(model) or spec.img_size
            sides.append(round(side / (crop_pct or spec.crop_pct)))
    return max(sides)


def stored_channels(space: Dict) -> int:
    """Return the number of channels that stored images need."""
    channels = choices(space, "in_chans")
    if len(set(channels)) > 1:
        raise HyperparameterError(
            f"in_chans was given {channels}; expected one number, because images are decoded once for all trials"
        )
    return int(channels[0])
