"""The speed of this machine: of a training step, and of forward passes of the networks in a search."""

from __future__ import annotations

import itertools
import math
import time
from functools import cache
from pathlib import Path

import torch
from torch import nn

from saccade.autosearch.description import describe_recipe
from saccade.autosearch.features import NetworkDescription
from saccade.models.network import build_network
from saccade.numerics.device import Numerics, choose_device, cpu_threads, is_half_native
from saccade.space import Dict
from saccade.training.recipes.building import stored_channels
from saccade.training.recipes.recipe import choices, usual_side

# Estimated seconds of a step of `measure_log_speed` on the machine of the portfolio's recordings.
# The portfolio predicts 6.1 ms for an image of 224 pixels with mobilenetv2_100. On a CPU with float32, such an image
# took 14.4 times as long as one of the 8 images of a step. Measure the step again, together with that network, when its
# layers or the portfolio's costs change.
RECORDED_STEP_S = 0.0034
RECORDED_GMACS_PER_S = 400.0  # of forward passes there, if each image takes .6 GMACs in addition to its network
GMACS_PER_S = {"cuda": 10_000.0, "mps": 1000.0}  # small layers show little about a GPU, so that of a small one

MEASURED_S, MAX_STEPS = 0.25, 50  # seconds of timed training steps, and the most of them
NUM_IMAGES, NUM_RUNS = 4, 3  # of a timed forward pass; the fastest run counts, as other processes may use the machine
LONGEST_S = 2.0  # the most seconds for all forward passes


def measure_log_speed(
    device: torch.device | str = "cpu", num_threads: int | None = None, longest_s: float = LONGEST_S
) -> float:
    """Return the natural logarithm of the duration of training here, relative to the machine of the recordings.

    Steps of a small network (inverted residuals, as in MobileNetV2, and a dense convolution) are timed for about 0.3 s,
    at most `longest_s`. The fastest is compared with `RECORDED_STEP_S`. This is right within a factor of about two,
    since networks differ; the first epochs of a search correct it.
    """
    with cpu_threads(num_threads):
        seconds = _step_s(torch.device(device), longest_s)
    return math.log(max(seconds, 1e-6) / RECORDED_STEP_S)


def worker_speed() -> float:
    """Return the speed of training in this process, relative to the machine of the recordings."""
    return math.exp(-measure_log_speed(choose_device()))


@cache
def gmacs_per_second(device: str) -> float:
    """Return about how many billions of multiply-accumulates of forward passes a device does per second."""
    if device in GMACS_PER_S:
        return GMACS_PER_S[device]
    return RECORDED_GMACS_PER_S / math.exp(measure_log_speed(device))


def _step_s(device: torch.device, longest_s: float) -> float:
    """Return the seconds of a training step, scaled to 8 images of 112 pixels."""
    numerics = Numerics.choose(device, None)
    # On a GPU the launch of kernels would dominate with so few pixels.
    num_images, side = (8, 112) if device.type == "cpu" else (16, 224)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [*_convolution(3, 16, 3, 2)]
        for num_in, num_out in ((16, 24), (24, 32), (32, 64)):
            wide = 4 * num_in
            layers += _convolution(num_in, wide, 1)
            layers += _convolution(wide, wide, 3, 2, groups=wide)
            layers += _convolution(wide, num_out, 1)[:2]
        layers += _convolution(64, 64, 3)
        typical = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
        network = numerics.place(typical)
        x_BCHW = torch.rand(num_images, 3, side, side).contiguous(memory_format=torch.channels_last).to(device)
    y = torch.zeros(num_images, dtype=torch.int64, device=device)
    optimizer = torch.optim.AdamW(network.parameters())
    times: list[float] = []
    start_s = time.perf_counter()
    for number in range(1 + MAX_STEPS):
        step_start_s = time.perf_counter()
        if number >= 2 and step_start_s - start_s > min(longest_s, MEASURED_S + times[0]):
            break
        with numerics.autocast():
            outputs = network(x_BCHW)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(outputs.float(), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()  # synchronises the device
        times.append(time.perf_counter() - step_start_s)
    quickest = min(times[1:])  # the first one includes setup
    return quickest * (8 / num_images) * (112 / side) ** 2


def _convolution(num_in: int, num_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(num_in, num_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(num_out), nn.ReLU6()]


def forward_seconds(
    space: Dict,
    weights: Path | None = None,
    device: torch.device | None = None,
    num_threads: int | None = None,
    longest_s: float = LONGEST_S,
) -> dict[NetworkDescription, float]:
    """Return the seconds of a forward pass of an image, for each network and image size of a space.

    The recorded costs are those of a GPU, where small networks take about the same time. On a CPU one network may take
    five times as long as another one with as many parameters. Nothing is timed on other devices, with a single network,
    or after `longest_s`.
    """
    device = device or choose_device()
    networks = list(itertools.product(choices(space, "model"), choices(space, "img_size")))
    if device.type != "cpu" or len(networks) < 2:
        return {}
    in_chans, end_s = stored_channels(space), time.perf_counter() + longest_s
    found: dict[NetworkDescription, float] = {}
    for number, (model, img_size) in enumerate(networks):
        part_s = (end_s - time.perf_counter()) / (len(networks) - number)
        if not isinstance(model, str) or time.perf_counter() >= end_s:
            continue
        img_size = img_size or usual_side(model)
        described = describe_recipe({"model": model, "img_size": img_size}, weights=weights, device=device).network
        if described in found:
            continue
        with cpu_threads(num_threads):
            network = build_network(
                model, 2, pretrained=False, in_chans=in_chans, img_size=img_size, random_start=False
            )
            until_s = time.perf_counter() + part_s
            found[described] = _image_s(network, device, in_chans, described.input_size, until_s, end_s)
    return found


@torch.inference_mode()
def _image_s(
    network: nn.Module, device: torch.device, num_channels: int, side: int, until_s: float, end_s: float
) -> float:
    """Return the seconds of an image in a pass, with weights of 0; passes stop at `until_s`, a first one at `end_s`."""
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.zero_()  # uninitialised weights may be denormal numbers, which are slow
    numerics = Numerics.choose(device, amp=is_half_native(device))
    network = numerics.place(network.eval())
    x_BCHW = torch.zeros(NUM_IMAGES, num_channels, side, side).contiguous(memory_format=numerics.memory_format)

    def timed(num_images: int) -> float:
        start_s = time.perf_counter()
        with numerics.autocast():
            network(x_BCHW[:num_images])
        return (time.perf_counter() - start_s) / num_images

    seconds = timed(1)  # includes setup, so it counts only without time for another
    for number in range(1 + NUM_RUNS):
        if time.perf_counter() + NUM_IMAGES * seconds > (until_s if number else end_s):
            break
        seconds = min(seconds, timed(NUM_IMAGES))
    return seconds
