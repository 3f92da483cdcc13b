"""Descriptions of networks before training: size, input, accuracy, pretraining and kind."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import timm
import torch
from torch import nn

from saccade.autosearch.features import FAMILIES, NetworkDescription
from saccade.models.catalogue import published_top1, resolve_name, split_name
from saccade.models.network import network_input
from saccade.models.weights import WEIGHTS_FOLDER_VARIABLE, find_weights, networks_in_folder

# Parts of pretraining tags: of ImageNet-21k and its subsets, and of web-scale collections or self-training.
_LARGE = re.compile(r"inw?(21|22|12)k")
_WEB_SCALE = re.compile(
    r"(^|_)ns_|jft|laion|clip|openai|datacomp|dfn|webli|dino|swag|seer|lvd|ssl|swsl|wsl|yfcc|ig1b|m30m|m38m|merged|sa1b"
    r"|apple_pt|bamboo|cc12m|deepseek|gemma|ogvl|pali|qwen|radio|sat493m"
)

# Class names of attention modules, with queries and keys. Squeeze-and-excitation, spatial gates and attention pooling
# are not attention in this sense.
_ATTENTION = re.compile(r"attn|attention|^xca$|^litemla$|lambda_?layer", re.IGNORECASE)
_NO_ATTENTION = re.compile(r"split|selective|pool|flatten|^(channel|spatial)attn|^spatialattention", re.IGNORECASE)

_CONVOLUTIONS_OF_HYBRIDS = 0.4  # the fewest convolutions outside of attention blocks per attention module


def describe_network(
    name: str, *, pretrained: bool = True, img_size: int | None = None, weights: str | Path | None = None
) -> NetworkDescription:
    """Describe a network by its name. No weights are read or downloaded, and each network is built once.

    A network without pretrained weights still has the published accuracy, which ranks architectures as well. Parameters
    include a classifier layer of 1000 classes. The tag in the file name of local weights is that of its pretraining.
    """
    # The environment variable may name a folder of weights, so it is part of the cache key.
    folder = os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    return _describe(name, pretrained, img_size, None if weights is None else str(weights), folder)


def describe_module(
    network: nn.Module, *, pretrained: bool = False, img_size: int | None = None, name: str = ""
) -> NetworkDescription:
    """Describe a network that was built already; a network of timm has the published accuracy of its name."""
    config = getattr(network, "pretrained_cfg", None) or {}
    architecture, tag = str(config.get("architecture") or ""), str(config.get("tag") or "")
    return NetworkDescription(
        num_params=float(num_parameters(network)),
        input_size=img_size or network_input(network).img_size,
        top1=published_top1(architecture, tag or None) if architecture else None,
        pretraining=_pretraining(tag) if pretrained else 0,
        kind=kind_of(network),
        family=_family(architecture) if architecture else name,
    )


def num_parameters(network: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def kind_of(network: nn.Module) -> str:
    """Return ``conv``, ``transformer`` or ``hybrid``, by the modules of a network.

    A network without attention is ``conv``; one whose only convolution makes patches (MLP-Mixer) is ``transformer``. A
    network with attention is ``hybrid`` if it has more convolutions outside its attention blocks than a stem.

    Examples
    --------
    >>> kind_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    'conv'
    """
    attentions: list[str] = []  # the modules that are attention, but not those inside them
    convolutions: list[nn.Conv2d] = []
    spatial: list[str] = []  # convolutions with overlap; others make or merge patches
    for name, module in network.named_modules():
        words = type(module).__name__
        is_inside = name.startswith(tuple(f"{outer}." for outer in attentions if outer))
        if _ATTENTION.search(words) and not _NO_ATTENTION.search(words) and not is_inside:
            attentions.append(name)
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
            convolutions.append(module)
            if tuple(module.kernel_size) != tuple(module.stride):
                spatial.append(name)
    if not attentions:
        return "transformer" if convolutions and not spatial else "conv"
    # Convolutions in the same block as attention, such as XCiT's local interaction, belong to the block.
    blocks = tuple(f"{name.rpartition('.')[0]}." for name in attentions if "." in name)
    inside = (*blocks, *(f"{name}." for name in attentions))
    num_convolutions = sum(not name.startswith(inside) for name in spatial)
    return "hybrid" if num_convolutions > _CONVOLUTIONS_OF_HYBRIDS * len(attentions) else "transformer"


@cache
def _describe(
    name: str, pretrained: bool, img_size: int | None, weights: str | None, folder: str | None
) -> NetworkDescription:
    full = resolve_name(name)
    architecture, tag = split_name(full)
    if pretrained:
        default = timm.models.get_pretrained_cfg(architecture)
        tag = tag or _tag_of_file(architecture, weights or folder) or (default.tag if default else None) or None
    num_params, kind = _size_and_kind(architecture)
    known_tags = [split_name(name)[1] or "" for name in timm.models.get_arch_pretrained_cfgs(architecture)]
    known = f"{architecture}.{tag}" if tag in known_tags else full
    return NetworkDescription(
        num_params=float(num_params),
        input_size=img_size or network_input(known).img_size,
        top1=published_top1(architecture, tag),
        pretraining=_pretraining(tag or "") if pretrained else 0,
        kind=kind,
        family=_family(architecture),
    )


@cache
def _size_and_kind(architecture: str) -> tuple[int, str]:
    with torch.device("meta"):  # shapes only: no memory, and no time for random weights
        network = timm.create_model(architecture, pretrained=False, num_classes=1000)
    return num_parameters(network), kind_of(network)


def _tag_of_file(architecture: str, weights: str | None) -> str | None:
    """Return the tag in the name of the local file that would be loaded; None without one."""
    if weights is None:
        return None
    path = Path(weights).expanduser()
    if path.is_dir():
        if architecture not in networks_in_folder(path):
            return None
        path = find_weights(architecture, folder=path)
    named, tag = split_name(path.name.removesuffix(path.suffix))
    return tag if named == architecture else None


def _pretraining(tag: str) -> int:
    return 2 if _WEB_SCALE.search(tag) else 1 if _LARGE.search(tag) else 0


def _family(architecture: str) -> str:
    """Return the family: one of `FAMILIES`, or the first letters of the name."""
    for family in FAMILIES:
        if any(part.startswith(family) for part in architecture.split("_")):
            return family
    letters = re.match(r"[a-z]+", architecture.removeprefix("tf_"))
    return letters.group() if letters else architecture
