"""What can be said of a network before it is trained, for those who choose among networks."""

from __future__ import annotations

import re
from functools import cache

import timm
import torch
from torch import nn

from saccade.models.catalogue import resolve_name, split_name
from saccade.models.network import network_input
from saccade.models.published import PUBLISHED_TOP1
from saccade.portfolio import NetworkDescription
from saccade.portfolio.features import FAMILIES

_LARGE_SCALE = ("in21k", "in22k", "in12k", "22k", "21k")
_WEB_SCALE = ("ns_", "jft", "laion", "clip", "dino", "swag", "lvd", "openai", "ssl", "swsl")


@cache
def describe_network(name: str, *, img_size: int | None = None, pretrained: bool = True) -> NetworkDescription:
    """Describe a network by its name; no weights are read.

    Parameters
    ----------
    name : str
        A name that `resolve_name` knows.
    img_size : int or None
        Pixels of a side of the images; None is the network's own.
    pretrained : bool
        Whether it starts from pretrained weights.

    Returns
    -------
    NetworkDescription
        Its accuracy is None where `PUBLISHED_TOP1` does not have it.

    Raises
    ------
    UnknownModelError
        If there is no such network.

    Examples
    --------
    >>> network = describe_network("resnet18")
    >>> round(network.num_params / 1e6, 1), network.input_size, network.top1, network.kind
    (11.7, 224, 0.698, 'conv')
    """
    full = resolve_name(name)
    architecture, tag = split_name(full)
    with torch.device("meta"):  # shapes without memory, and without the time to draw random weights
        network = timm.create_model(architecture, pretrained=False)
    size = img_size or network_input(full).img_size
    pretraining = _pretraining(tag or _default_tag(architecture)) if pretrained else 0
    return NetworkDescription(
        num_params=float(num_parameters(network)),
        input_size=size,
        top1=PUBLISHED_TOP1.get(architecture),
        pretraining=pretraining,
        kind=kind_of(network),
        family=_family(architecture),
    )


def num_parameters(network: nn.Module) -> int:
    """Return how many parameters a network has."""
    return sum(parameter.numel() for parameter in network.parameters())


def kind_of(network: nn.Module) -> str:
    """Return ``conv``, ``transformer`` or ``hybrid``, by the modules that a network is made of.

    Examples
    --------
    >>> kind_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    'conv'
    """
    modules = list(network.modules())
    # A convolution of a large kernel whose stride is as large cuts an image into patches, and squeeze-and-excitation
    # is an attention by name only; so attention is known by its projections of queries and keys.
    has_attention = any(isinstance(module, nn.MultiheadAttention) or hasattr(module, "qkv") for module in modules)
    has_attention |= any(hasattr(module, "qkv_proj") or hasattr(module, "q") for module in modules)
    if not has_attention:
        return "conv"
    dense = [
        module
        for module in modules
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and module.groups == 1
        and module.stride < module.kernel_size
    ]  # fmt: skip
    mixing = [module for module in modules if isinstance(module, nn.Conv2d) and module.groups > 1]
    name = type(network).__name__.lower()
    is_hybrid = any(part in name for part in ("mobilevit", "byob", "edgenext", "coat", "levit", "maxxvit", "nextvit"))
    return "hybrid" if is_hybrid or (len(dense) > 8 and len(mixing) > 8) else "transformer"


def _default_tag(architecture: str) -> str:
    config = timm.models.get_pretrained_cfg(architecture)
    return str(getattr(config, "tag", None) or "")


def _pretraining(tag: str) -> int:
    if any(part in tag for part in _WEB_SCALE):
        return 2
    return 1 if any(part in tag for part in _LARGE_SCALE) else 0


def _family(architecture: str) -> str:
    """Return the family's name: one that the portfolio knows, or the letters that the name begins with."""
    for family in FAMILIES:
        if architecture.removeprefix("tf_").startswith(family):
            return family
    letters = re.match(r"[a-z]+", architecture.removeprefix("tf_"))
    return letters.group() if letters else architecture
