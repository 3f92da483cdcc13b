"""Build the network of a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from saccade.inference.classifier import Blueprint, Classifier
from saccade.models.catalogue import resolve_name
from saccade.models.custom import OwnPart, build_own_network
from saccade.models.network import build_network, classifier_parameters, network_input
from saccade.numerics.device import Numerics
from saccade.tasks.problem import Problem
from saccade.training.recipes.recipe import Recipe


def blueprint_of(network: torch.nn.Module, recipe: Recipe) -> Blueprint:
    """Return the blueprint of the recipe's network: what its weights were trained to see, unless told otherwise."""
    spec = network_input(network)
    spec = replace(
        spec,
        img_size=recipe.img_size or spec.img_size,
        crop_pct=recipe.crop_pct or spec.crop_pct,
        mean=_for_channels(spec.mean, recipe.in_chans),
        std=_for_channels(spec.std, recipe.in_chans),
    )
    if isinstance(recipe.model, OwnPart):
        return Blueprint(None, spec, recipe.img_size, recipe.tta, repr(recipe.model))
    return Blueprint(resolve_name(recipe.model), spec, recipe.img_size, recipe.tta)


def _for_channels(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    """Return the figures of so many channels from those of a network's own, as timm adapts its first layer."""
    if len(values) == in_chans:
        return values
    if in_chans == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(in_chans))


def weights_options(recipe: Recipe, weights: Path | None) -> dict[str, Any]:
    """Return where `build_network` and `find_weights` are to look for weights: the recipe's word counts first."""
    where = Path(recipe.weights).expanduser() if recipe.weights else weights
    if where is None or not recipe.pretrained:
        return {}
    return {"folder": where} if where.is_dir() else {"file": where}


def new_classifier(
    recipe: Recipe, problem: Problem, numerics: Numerics, weights: Path | None = None, *, is_loaded_next: bool = False
) -> Classifier:
    """Build the recipe's network, pretrained if it says so, with a new last layer for the problem.

    Parameters
    ----------
    recipe, problem, numerics
        What the network is, what its outputs mean, and where it is placed.
    weights : Path or None
        A file of pretrained weights, or a folder of them, for recipes that name none.
    is_loaded_next : bool
        Whether all weights are loaded into it next, so that it may be built without any.
    """
    if isinstance(recipe.model, OwnPart):
        network = build_own_network(recipe.model, problem.num_outputs, recipe.in_chans, recipe.img_size)
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
            random_start=not (recipe.starts_pretrained or is_loaded_next),  # the last layer starts from zero
        )
    if recipe.starts_pretrained:
        _quiet_head(network)
    return Classifier(blueprint_of(network, recipe), problem, network, numerics)


@torch.no_grad()
def _quiet_head(network: torch.nn.Module) -> None:
    """Start the new last layer from zero, so that its first gradients do not shake what was pretrained.

    Some of timm's heads start so large for few classes that the first steps undo the pretraining; from zero, the head
    learns first and the rest follows (compare Kumar et al., "Fine-tuning can distort pretrained features", 2022).
    """
    head = classifier_parameters(network)
    for name, parameter in network.named_parameters():
        if name in head:
            parameter.zero_()
