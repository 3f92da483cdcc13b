"""What it brings to compute parts of a batch side by side, instead of sharing each operation among threads.

    python -m benchmarks.streams [--networks mobilenetv2_100 …] [--sizes 224] [--streams 1 2] [--rounds 5] [--json OUT]

Of 16 images of noise in memory, random weights, milliseconds of a training step as a fine-tuning takes it (see
`frozen_layers`), and of a prediction with normalisation folded away, by the number of streams; each in the faster of
32 and 16 bits, channels last, and all are measured in turns. The last figure of each is how many times as fast the best
is as one stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks.arithmetic import wait
from benchmarks.frozen_layers import NETWORKS, NUM_IMAGES, Step, milliseconds
from benchmarks.measuring import Meter, arguments_of, table, write_json
from saccade.models.batch_norm_folding import fused
from saccade.models.network import build_network
from saccade.numerics.device import Numerics, choose_device
from saccade.numerics.streams import Forward
from saccade.training.recipes.optimisation import NO_OPT_SCALE


class Prediction:
    """A prediction of a network whose normalisation is folded away."""

    def __init__(self, name: str, side: int) -> None:
        device = choose_device()
        network = build_network(name, 10, pretrained=False).to(device, memory_format=torch.channels_last).eval()
        self._network = fused(network, 3, side) or network
        noise = torch.randn(NUM_IMAGES, 3, side, side, device=device)
        self._x_BCHW = noise.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def timed(self, numerics: Numerics) -> dict[str, float]:
        """Predict, and return the seconds."""
        forward = Forward(self._network, numerics)
        with Meter() as meter:
            forward(self._x_BCHW)
            wait(numerics.device)
        return {"wall_s": meter.wall_s}


def measure(name: str, side: int, nums_streams: list[int], num_rounds: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a training step and of a prediction by the number of streams."""
    works: dict[str, Callable[[Numerics], dict[str, float]]] = {
        "train": Step(name, side, NO_OPT_SCALE).timed,
        "predict": Prediction(name, side).timed,
    }
    by_num = {
        f"{work} {num}": lambda numerics, run=run, num=num: run(replace(numerics, num_streams=num))  # type: ignore[misc]
        for work, run in works.items()
        for num in nums_streams
    }
    found = milliseconds(by_num, num_rounds)
    return {work: {str(num): found[f"{work} {num}"] for num in nums_streams} for work in works}


def rows_of(figures: dict[str, dict[str, dict[str, float]]]) -> list[list[Any]]:
    """Return a row for each network and size: milliseconds by streams, and how many times as fast the best is."""
    return [
        [
            name,
            *(value for ms in found.values() for value in (*ms.values(), next(iter(ms.values())) / min(ms.values()))),
        ]
        for name, found in figures.items()
    ]


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments_of(__doc__ or "")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="timm's names")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224], help="pixels of a side")
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 2], help="how many; the first is compared with")
    given = parser.parse_args(argv)
    figures = {
        f"{name}, {side}": measure(name, side, given.streams, given.rounds)
        for name in given.networks
        for side in given.sizes
    }
    write_json(given.json, given, figures)
    heads = [head for work in ("train", "predict") for head in (*(f"{work}, {n}" for n in given.streams), "times")]
    print(table(["ms, streams", *heads], rows_of(figures)))


if __name__ == "__main__":
    main()
