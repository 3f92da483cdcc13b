"""Low-rank adaptation (LoRA): pretrained weights stay fixed, and a product of two small matrices is added to them.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. Fewer values are trained, so the optimizer
takes less memory, and few images overfit less. Trained weights are saved with the product added (`merged_weights`), so
they are those of the plain network.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.utils import parametrize

from saccade.errors import HyperparameterError
from saccade.models.network import classifier_parameters

_ADDED = ".parametrizations."  # in the names of tensors that torch gives to a parametrized module


class LowRankUpdate(nn.Module):
    """The parametrization ``weight + up @ down`` of a weight of shape (outputs, inputs); it starts at `weight`."""

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        num_outputs, num_inputs = weight.shape
        self.down = nn.Parameter(weight.new_empty(rank, num_inputs))
        self.up = nn.Parameter(weight.new_zeros(num_outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the updated weight."""
        return weight + self.up @ self.down


def add_updates(network: nn.Module, rank: int, name: str = "the network") -> None:
    """Freeze a network but for its classifier layer, and add an update to each linear layer of its backbone.

    Raises a HyperparameterError for a network whose backbone has no linear layers, as most convolutional ones.
    """
    head = classifier_parameters(network)
    linear = {
        layer: module
        for layer, module in network.named_modules()
        if isinstance(module, nn.Linear) and f"{layer}.weight" not in head
    }
    if not linear:
        raise HyperparameterError(
            f"lora_rank={rank} adapts the linear layers of a transformer, and {name} has none besides its classifier "
            "layer. Leave lora_rank out, or choose a vision transformer"
        )
    for parameter_name, parameter in network.named_parameters():
        parameter.requires_grad_(parameter_name in head and parameter.requires_grad)
    for module in linear.values():
        # Dimensions of a small layer bound the rank of any update.
        update = LowRankUpdate(module.weight, min(rank, *module.weight.shape))
        parametrize.register_parametrization(module, "weight", update)


def merged_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state dict of the network without updates, whose outputs are the same."""
    state: dict[str, torch.Tensor] = network.state_dict()
    if not any(_ADDED in name for name in state):
        return state
    merged = {name: tensor for name, tensor in state.items() if _ADDED not in name}
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            merged[f"{name}.weight"] = module.weight.detach()
    return merged
