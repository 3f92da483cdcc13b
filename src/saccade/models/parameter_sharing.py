"""Copies of a network that share its tensors."""

from __future__ import annotations

import copy

from torch import nn


def twin_of(network: nn.Module) -> nn.Module:
    """Return a copy of a network's modules with the same parameters and buffers.

    What the copy's modules note for themselves is their own, and they may be exchanged; a tensor that is changed in
    place is changed in both.

    Examples
    --------
    >>> network = nn.Linear(2, 3)
    >>> twin_of(network).weight is network.weight
    True
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, shared)
