"""The gain in time from freezing layers whose learning rate is a small part of the classifier layer's.

    python -m benchmarks.frozen_layers [--networks mobilenetv2_100 …] [--sizes 224] [--factors 0 .05 .1 .2] [--rounds 5]
                                       [--json OUT]

Milliseconds of a training step with AdamW: 16 images of noise in memory, random weights, layer decay .75, fixed
batch statistics, as in fine-tuning. Each factor is measured in the faster of 32 and 16 bits, channels last, in turns.
`quality --ablate frozen_layers` reports the effect on accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from benchmarks.arithmetic import wait
from benchmarks.measuring import Meter, arguments_of, in_turns, table, write_json
from saccade.models.network import build_network
from saccade.numerics.device import Numerics, choose_device
from saccade.training.recipes.optimisation import LAYER_DECAY, make_optimizer
from saccade.training.recipes.recipe import Recipe
from saccade.training.trial.frozen import train_mode

NETWORKS = ("mobilenetv2_100", "mobilenetv3_small_100", "regnetx_002", "resnet18", "vit_tiny_patch16_224")
NUM_IMAGES = 16


class Step:
    """A training step with its `optimizer`; layers of a smaller factor are not trained."""

    def __init__(self, name: str, side: int, factor: float) -> None:
        recipe = Recipe(layer_decay=LAYER_DECAY, layer_decay_no_opt_scale=factor, freeze_bn=True, lr=1e-5)
        device = choose_device()
        network = build_network(name, 10, pretrained=False).to(device, memory_format=torch.channels_last)
        self._network, self.optimizer = network, make_optimizer(network, recipe)
        train_mode(network, recipe)
        noise = torch.randn(NUM_IMAGES, 3, side, side, device=device)
        self._x_BCHW = noise.contiguous(memory_format=torch.channels_last)
        self._y = torch.arange(NUM_IMAGES, device=device) % 10

    def timed(self, numerics: Numerics) -> dict[str, float]:
        """Take the step, and return its seconds."""
        with Meter() as meter:
            with numerics.autocast():
                outputs = self._network(self._x_BCHW)
            self.optimizer.zero_grad()
            functional.cross_entropy(outputs.float(), self._y).backward()
            self.optimizer.step()
            wait(numerics.device)
        return {"wall_s": meter.wall_s}


def milliseconds(works: Mapping[str, Callable[[Numerics], dict[str, float]]], num_rounds: int) -> dict[str, float]:
    """Return what each takes in the faster of 32 and 16 bits, all of them measured in turns."""
    numerics = [Numerics.choose(choose_device(), amp=amp) for amp in (False, True)]
    timed = {
        f"{name} {each}": lambda work=work, each=each: work(each)  # type: ignore[misc]
        for name, work in works.items()
        for each in numerics
    }
    in_turns(1, timed)  # warm-up
    seconds = in_turns(num_rounds, timed)
    return {name: 1000 * min(seconds[f"{name} {each}"]["wall_s"] for each in numerics) for name in works}


def measure(name: str, side: int, factors: list[float], num_rounds: int) -> dict[str, float]:
    """Return the milliseconds of a step by the factor."""
    return milliseconds({str(factor): Step(name, side, factor).timed for factor in factors}, num_rounds)


def rows_of(figures: dict[str, dict[str, float]]) -> list[list[Any]]:
    """Return a row for each network and size: milliseconds, and in the last place the least part of the first."""
    return [
        [name, *found.values(), min(found.values()) / next(iter(found.values()))] for name, found in figures.items()
    ]


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments_of(__doc__ or "")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="names in timm")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224], help="side in pixels")
    parser.add_argument("--factors", nargs="+", type=float, default=[0.0, 0.05, 0.1, 0.2], help="learning rate factors")
    given = parser.parse_args(argv)
    figures = {
        f"{name}, {side}": measure(name, side, given.factors, given.rounds)
        for name in given.networks
        for side in given.sizes
    }
    write_json(given.json, given, figures)
    print(table(["ms per step, by factor", *map(str, given.factors), "least / first"], rows_of(figures)))


if __name__ == "__main__":
    main()
