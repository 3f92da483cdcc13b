"""What it brings to leave batch normalisation to the convolutions before it, in prediction and in training.

    python -m benchmarks.normalisation [--networks resnet18 …] [--sizes 64 224] [--rounds 3] [--json OUT]

Images a second of batches of noise in memory, random weights, statistics that stay as they are: 32 images for
predictions, 16 for training steps with AdamW. *before* and *after* are each in the faster of 32 and 16 bits, channels
last, and measured in turns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.arithmetic import wait
from benchmarks.measuring import Meter, arguments_of, in_turns, table, write_json
from saccade.models.batch_norm_folding import fused
from saccade.models.frozen_norm import leave_norms_to_convolutions
from saccade.models.network import build_network
from saccade.numerics.device import Numerics, choose_device

NETWORKS = ("mobilenetv2_100", "mobilenetv3_small_100", "regnetx_002", "resnet18")
NUM_PREDICTED, NUM_TRAINED = 32, 16


def measure(name: str, side: int, num_rounds: int) -> dict[str, float | None]:
    """Return images a second of a network, before and after; None after where nothing can be left."""
    device = choose_device()
    network = build_network(name, 10, pretrained=False).to(device, memory_format=torch.channels_last).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    trained = copy.deepcopy(network)
    has_left = leave_norms_to_convolutions(trained, NUM_TRAINED, 3, side)
    predicting = fused(copy.deepcopy(network), 3, side)
    steps: dict[str, Callable[[Numerics], None]] = {
        "predict before": _prediction(copy.deepcopy(network).eval(), side),
        "train before": _training(network, side),
    }
    if predicting is not None:
        steps["predict after"] = _prediction(predicting, side)
    if has_left:
        steps["train after"] = _training(trained, side)
    found: dict[str, float | None] = dict.fromkeys(
        ("predict before", "predict after", "train before", "train after"), None
    )
    numerics = [Numerics.choose(device, amp=amp) for amp in (False, True)]
    timed = {(what, each): _timed(step, each) for what, step in steps.items() for each in numerics}
    in_turns(1, {str(number): one for number, one in enumerate(timed.values())})  # sets things up
    seconds = in_turns(num_rounds, {f"{what} {each}": one for (what, each), one in timed.items()})
    for what in steps:
        num_images = NUM_PREDICTED if what.startswith("predict") else NUM_TRAINED
        found[what] = num_images / min(seconds[f"{what} {each}"]["wall_s"] for each in numerics)
    return found


def _prediction(network: nn.Module, side: int) -> Callable[[Numerics], None]:
    x_BCHW = _noise(NUM_PREDICTED, side)

    @torch.inference_mode()
    def step(numerics: Numerics) -> None:
        with numerics.autocast():
            network(x_BCHW)

    return step


def _training(network: nn.Module, side: int) -> Callable[[Numerics], None]:
    x_BCHW, optimizer = _noise(NUM_TRAINED, side), torch.optim.AdamW(network.parameters(), lr=1e-5)
    y = torch.arange(NUM_TRAINED, device=x_BCHW.device) % 10

    def step(numerics: Numerics) -> None:
        with numerics.autocast():
            outputs = network(x_BCHW)
        optimizer.zero_grad()
        functional.cross_entropy(outputs.float(), y).backward()
        optimizer.step()

    return step


def _noise(num: int, side: int) -> torch.Tensor:
    return torch.randn(num, 3, side, side, device=choose_device()).contiguous(memory_format=torch.channels_last)


def _timed(step: Callable[[Numerics], None], numerics: Numerics) -> Callable[[], dict[str, float]]:
    def measure() -> dict[str, float]:
        with Meter() as meter:
            step(numerics)
            wait(numerics.device)
        return {"wall_s": meter.wall_s}

    return measure


def rows_of(figures: dict[str, dict[str, float | None]]) -> list[list[Any]]:
    """Return a row for each network and size, with the ratios."""
    rows = []
    for name, found in figures.items():
        row: list[Any] = [name]
        for what in ("predict", "train"):
            before, after = found[f"{what} before"], found[f"{what} after"]
            row += [before, after, after / before if before and after else None]
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments_of(__doc__ or "")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="timm's names")
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 224], help="pixels of a side")
    given = parser.parse_args(argv)
    figures = {f"{name}, {side}": measure(name, side, given.rounds) for name in given.networks for side in given.sizes}
    write_json(given.json, given, figures)
    print(table(["images a second", "predict", "after", "ratio", "train", "after", "ratio"], rows_of(figures)))


if __name__ == "__main__":
    main()
