"""What a search space names: found before the search, so that a wrong name fails at once."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from saccade.data.augmentation import policy
from saccade.errors import HyperparameterError
from saccade.models.catalogue import resolve_name
from saccade.models.custom import OwnPart, build_own_network
from saccade.models.network import InputSpec, network_input
from saccade.models.weights import find_weights
from saccade.space import Dict
from saccade.training.recipes.building import weights_options
from saccade.training.recipes.optimisation import check_optimizer
from saccade.training.recipes.recipe import Recipe, choices


def check_networks(space: Dict, weights: Path | None, num_outputs: int) -> None:
    """See that every network of a search space exists, and that its weights can be had where they are wanted.

    Raises
    ------
    UnknownModelError, WeightsNotFoundError
        With what to do about it.
    HyperparameterError
        When a network of the user's own does not give `num_outputs` outputs.
    """
    for model in choices(space, "model"):
        if isinstance(model, OwnPart):
            for img_size in choices(space, "img_size"):
                build_own_network(model, num_outputs, stored_channels(space), img_size)
            continue
        resolve_name(model)
        for pretrained in choices(space, "pretrained"):
            for file in choices(space, "weights"):
                if pretrained:
                    find_weights(model, **weights_options(Recipe.of({"model": model, "weights": file}), weights))


def check_methods(space: Dict) -> None:
    """See that every optimizer and augmentation policy that a search space names exists.

    Raises
    ------
    UnknownNameError
        With near names.
    """
    for opt in choices(space, "opt"):
        if isinstance(opt, str):
            check_optimizer(opt)
    for name in choices(space, "auto_augment"):
        if name is not None:
            policy(name)


def stored_side(space: Dict, num_outputs: int) -> int:
    """Return the shorter side in pixels that the images need for all networks of a search space."""
    sides = []
    for model in choices(space, "model"):
        spec = _input_of(model, num_outputs)
        for img_size in choices(space, "img_size"):
            for crop_pct in choices(space, "crop_pct"):
                sides.append(round((img_size or spec.img_size) / (crop_pct or spec.crop_pct)))
    return max(sides)


def stored_channels(space: Dict) -> int:
    """Return how many channels the images need.

    Raises
    ------
    HyperparameterError
        When trials would need different ones.
    """
    channels = choices(space, "in_chans")
    if len(set(channels)) > 1:
        raise HyperparameterError(
            f"in_chans was given {channels}; expected one number, because images are decoded once for all trials"
        )
    return int(channels[0])


def _input_of(model: str | OwnPart, num_outputs: int) -> InputSpec:
    if isinstance(model, str):
        return network_input(resolve_name(model))
    network = model.value if isinstance(model.value, nn.Module) else model.value(num_outputs)
    return network_input(network)
