"""Parts of the user's own in a recipe: a network, an optimizer, a transform."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from saccade.errors import HyperparameterError
from saccade.models.network import network_input
from saccade.space import Categorical, Space

OWN_PARTS = ("model", "opt", "train_transform")
"""The hyperparameters that may be objects of the user's own."""


@dataclass(frozen=True, repr=False)
class OwnPart:
    """An object of the user's own as a hyperparameter; it prints as a short name wherever configurations are shown.

    Attributes
    ----------
    value : object
        A module, a class or a function.

    Examples
    --------
    >>> OwnPart(nn.Flatten()), OwnPart(nn.Linear)
    (Flatten, Linear)
    """

    value: Any

    def __repr__(self) -> str:
        part = self.value
        while isinstance(part, functools.partial):
            part = part.func
        return getattr(part, "__name__", None) or type(part).__name__


def with_own_parts(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters, each object of the user's own (also as a choice) as an `OwnPart`."""
    return {name: _wrapped(value) if name in OWN_PARTS else value for name, value in hyperparameters.items()}


def _wrapped(value: Any) -> Any:
    if isinstance(value, Categorical):
        return Categorical(*(_wrapped(choice) for choice in value.data))
    is_own = callable(value) and not isinstance(value, OwnPart | Space)
    return OwnPart(value) if is_own else value


def build_own_network(own: OwnPart, num_outputs: int, in_chans: int = 3, img_size: int | None = None) -> nn.Module:
    """Return a network of the user's own, its outputs counted on one black image.

    Parameters
    ----------
    own : OwnPart
        A module, which is copied; or a function or class that makes one of the number of outputs.
    num_outputs : int
        How many outputs are wanted.
    in_chans, img_size : int
        Channels and side of the images; None is 224, or what a network of timm's wants.

    Raises
    ------
    HyperparameterError
        When no module comes of it, or it does not give as many outputs.

    Examples
    --------
    >>> def make(num_classes):
    ...     return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))
    >>> build_own_network(OwnPart(make), 5, img_size=8)[1].out_features
    5
    """
    network = copy.deepcopy(own.value) if isinstance(own.value, nn.Module) else own.value(num_outputs)
    if not isinstance(network, nn.Module):
        raise HyperparameterError(
            f"the own network {own!r} made {network!r:.100} of type {type(network).__name__}; expected a function "
            "f(num_classes) that returns a torch.nn.Module"
        )
    side = img_size or network_input(network).img_size
    was_training, device = network.training, next((p.device for p in network.parameters()), torch.device("cpu"))
    network.eval()
    with torch.no_grad():
        outputs = network(torch.zeros(1, in_chans, side, side, device=device))
    network.train(was_training)
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (1, num_outputs):
        given = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise HyperparameterError(
            f"the own network {own!r} turns one image of {side} x {side} pixels into {given}; expected a tensor of "
            f"shape (1, {num_outputs}), which is a row of {num_outputs} outputs. Give a function f(num_classes) that "
            "makes the network to measure"
        )
    return network
