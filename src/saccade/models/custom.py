"""Custom networks, optimizers and transforms as hyperparameters."""

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

CUSTOM_OBJECTS = ("model", "opt", "train_transform")  # hyperparameters that may be custom objects


@dataclass(frozen=True, repr=False)
class CustomObject:
    """A module, class or function as a hyperparameter; it prints as a short name where configurations are shown."""

    value: Any

    def __repr__(self) -> str:
        value = self.value
        while isinstance(value, functools.partial):
            value = value.func
        return getattr(value, "__name__", None) or type(value).__name__


def wrap_custom_objects(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters with each custom object, also among choices, wrapped as a `CustomObject`."""
    return {name: _wrapped(value) if name in CUSTOM_OBJECTS else value for name, value in hyperparameters.items()}


def _wrapped(value: Any) -> Any:
    if isinstance(value, Categorical):
        return Categorical(*(_wrapped(choice) for choice in value.data))
    is_custom = callable(value) and not isinstance(value, CustomObject | Space)
    return CustomObject(value) if is_custom else value


def build_custom_network(
    custom: CustomObject, num_outputs: int, in_chans: int = 3, img_size: int | None = None
) -> nn.Module:
    """Build a custom network, and check its output shape on one black image.

    A module is copied; a function or class makes one from the number of outputs. Without `img_size`, the image has 224
    pixels, or those of the pretraining of a timm network. Raises a HyperparameterError if the object does not make a
    module, or its outputs do not have shape (1, num_outputs).
    """
    network = copy.deepcopy(custom.value) if isinstance(custom.value, nn.Module) else custom.value(num_outputs)
    if not isinstance(network, nn.Module):
        raise HyperparameterError(
            f"The custom network {custom!r} made {network!r:.100} of type {type(network).__name__}; expected a "
            "function f(num_classes) that returns a torch.nn.Module."
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
            f"The custom network {custom!r} turns one image of {side} x {side} pixels into {given}; expected a tensor "
            f"of shape (1, {num_outputs}). Pass a function f(num_classes) that makes a network with that many outputs."
        )
    return network
