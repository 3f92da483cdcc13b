"""Throughput of predictions with and without batch norm folding.

    python -m benchmarks.normalisation [--networks resnet18 …] [--sizes 64 224] [--rounds 3] [--json OUT]

Images per second of batches of 32 noise images in memory, with random weights. *before* and *after* are each in the
faster of 32 and 16 bits, channels last, and measured in turns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.arithmetic import wait
from benchmarks.measuring import Meter, arguments_of, in_turns, table, write_json
from saccade.models.batch_norm_folding import fold_batch_norm
from saccade.models.network import build_network
from saccade.numerics.device import Numerics, choose_device

NETWORKS = ("mobilenetv2_100", "mobilenetv3_small_100", "regnetx_002", "resnet18")
NUM_IMAGES = 32


def measure(name: str, side: int, num_rounds: int) -> dict[str, float | None]:
    """Return images per second of a network before and after folding; None after if nothing can be folded."""
    device = choose_device()
    network = build_network(name, 10, pretrained=False).to(device, memory_format=torch.channels_last).eval()
    networks = {"before": copy.deepcopy(network), "after": fold_batch_norm(network, 3, side)}
    numerics = [Numerics.choose(device, amp=amp) for amp in (False, True)]
    timed = {
        f"{what} {each}": _timed(one, side, each)
        for what, one in networks.items()
        if one is not None
        for each in numerics
    }
    in_turns(1, timed)  # warm-up
    seconds = in_turns(num_rounds, timed)
    return {
        what: None if one is None else NUM_IMAGES / min(seconds[f"{what} {each}"]["wall_s"] for each in numerics)
        for what, one in networks.items()
    }


def _timed(network: nn.Module, side: int, numerics: Numerics) -> Callable[[], dict[str, float]]:
    x_BCHW = torch.randn(NUM_IMAGES, 3, side, side, device=numerics.device).contiguous(
        memory_format=torch.channels_last
    )

    @torch.inference_mode()
    def measure() -> dict[str, float]:
        with Meter() as meter, numerics.autocast():
            network(x_BCHW)
            wait(numerics.device)
        return {"wall_s": meter.wall_s}

    return measure


def rows_of(figures: dict[str, dict[str, float | None]]) -> list[list[Any]]:
    """Return a row for each network and size, with the ratio."""
    rows: list[list[Any]] = []
    for name, found in figures.items():
        before, after = found["before"], found["after"]
        rows.append([name, before, after, after / before if before and after else None])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments_of(__doc__ or "")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="names in timm")
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 224], help="side in pixels")
    given = parser.parse_args(argv)
    figures = {f"{name}, {side}": measure(name, side, given.rounds) for name in given.networks for side in given.sizes}
    write_json(given.json, given, figures)
    print(table(["images per second", "before", "after", "ratio"], rows_of(figures)))


if __name__ == "__main__":
    main()
