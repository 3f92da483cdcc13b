"""How fast the networks of a search are on this machine, by a few images each, before any of them was tried."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from saccade.autosearch.features import NetworkDescription
from saccade.autosearch.task_description import describe_recipe
from saccade.models.network import build_network
from saccade.numerics.device import Numerics, choose_device, cpu_threads, is_half_native
from saccade.space import Dict
from saccade.training.recipes.building import stored_channels
from saccade.training.recipes.recipe import choices

NUM_IMAGES = 4
"""Images in a forward pass that is timed."""

NUM_RUNS = 3
"""Passes that count; the quickest does, because others may use the machine as well."""

LONGEST_S = 2.0
"""Seconds that all measuring may take."""


def forward_seconds(
    space: Dict,
    weights: Path | None = None,
    device: torch.device | None = None,
    num_threads: int | None = None,
    longest_s: float = LONGEST_S,
) -> dict[NetworkDescription, float]:
    """Return the seconds that a forward pass of an image takes, by what the portfolio knows a network by.

    What recorded runs say of costs is of a GPU, on which small networks are all alike. On a CPU they are not: of two
    with as many parameters, one may take five times as long as the other.

    Parameters
    ----------
    space : Dict
        Whose networks, at whose image sizes.
    weights : Path or None
        As in `describe_recipe`.
    device : torch.device or None
        None is the best there is. Of any but a CPU nothing is measured: the portfolio knows those. Nor is anything
        where there is one network only, and nothing to compare.
    num_threads : int or None
        CPU threads of a trial; None leaves it to torch.
    longest_s : float
        Seconds after which no other network is measured.

    Examples
    --------
    >>> from saccade.space import Categorical
    >>> space = Dict(model=Categorical("test_resnet", "test_vit"), pretrained=False)
    >>> len(forward_seconds(space, device=torch.device("cpu"), longest_s=60.0))
    2
    """
    device = device or choose_device()
    num_networks = len(choices(space, "model")) * len(choices(space, "img_size"))
    if device.type != "cpu" or num_networks < 2:
        return {}
    end_s = time.perf_counter() + longest_s
    found: dict[NetworkDescription, float] = {}
    num_left = num_networks
    for model in choices(space, "model"):
        for img_size in choices(space, "img_size"):
            share_s = (end_s - time.perf_counter()) / num_left
            num_left -= 1
            if not isinstance(model, str) or time.perf_counter() >= end_s:
                continue
            described = describe_recipe({"model": model, "img_size": img_size}, weights=weights, device=device)
            if described.network not in found:
                with cpu_threads(num_threads):
                    network = build_network(
                        model,
                        2,
                        pretrained=False,
                        in_chans=stored_channels(space),
                        img_size=img_size,
                        random_start=False,
                    )
                    side = described.network.input_size
                    until_s = time.perf_counter() + share_s
                    found[described.network] = _image_s(network, device, stored_channels(space), side, until_s, end_s)
    return found


@torch.inference_mode()
def _image_s(
    network: nn.Module, device: torch.device, num_channels: int, side: int, until_s: float, end_s: float
) -> float:
    """Return the seconds of an image in a pass, by passes until one time, of which one may end later, but in time.

    The network's weights are lost.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.zero_()  # what it was built with may be any numbers, and very small ones are slow
    numerics = Numerics.choose(device, amp=is_half_native(device))
    network = numerics.place(network.eval())
    x_BCHW = torch.zeros(NUM_IMAGES, num_channels, side, side).contiguous(memory_format=numerics.memory_format)

    def timed(num_images: int) -> float:
        start_s = time.perf_counter()
        with numerics.autocast():
            network(x_BCHW[:num_images])
        return (time.perf_counter() - start_s) / num_images

    seconds = timed(1)  # this also sets things up, so it counts only where there is no time for another
    for number in range(1 + NUM_RUNS):
        if time.perf_counter() + NUM_IMAGES * seconds > (until_s if number else end_s):
            break
        seconds = min(seconds, timed(NUM_IMAGES))
    return seconds
