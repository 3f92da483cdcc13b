"""The gain from fused optimizer steps.

    python -m benchmarks.fused_steps [--networks mobilenetv2_100 …] [--sizes 224 64] [--rounds 5] [--json OUT]

Milliseconds of a training step with AdamW (see `frozen_layers`), with one operation after the other for each weight,
and fused (torch's ``fused``); and of the optimizer's part alone. Each step is in the faster of 32 and 16 bits; all are
measured in turns.
"""

from __future__ import annotations

import functools
from typing import Any

from benchmarks.arithmetic import wait
from benchmarks.frozen_layers import NETWORKS, Step, milliseconds
from benchmarks.measuring import Meter, arguments_of, table, write_json
from saccade.numerics.device import Numerics
from saccade.training.recipes.optimisation import NO_OPT_SCALE

WAYS = ("in turn", "at once")


def made(name: str, side: int, way: str) -> Step:
    """Return a step whose optimizer goes about it in one of the ways."""
    step = Step(name, side, NO_OPT_SCALE)
    for group in step.optimizer.param_groups:
        group["fused"] = way == "at once"
    return step


def measure(name: str, side: int, num_rounds: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a whole step, and of the optimizer's part of it, by the way."""
    steps = {way: made(name, side, way) for way in WAYS}

    def alone(way: str, numerics: Numerics) -> dict[str, float]:
        with Meter() as meter:
            steps[way].optimizer.step()  # with gradients that the whole step has left
            wait(numerics.device)
        return {"wall_s": meter.wall_s}

    found = {"step": milliseconds({way: step.timed for way, step in steps.items()}, num_rounds)}
    return found | {"optimizer": milliseconds({way: functools.partial(alone, way) for way in WAYS}, num_rounds)}


def rows_of(figures: dict[str, dict[str, dict[str, float]]]) -> list[list[Any]]:
    """Return a row for each network and size: milliseconds by the way, and how many times as fast the second is."""
    return [
        [name, *(value for ms in found.values() for value in (*ms.values(), ms[WAYS[0]] / ms[WAYS[1]]))]
        for name, found in figures.items()
    ]


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments_of(__doc__ or "")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="names in timm")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 64], help="side in pixels")
    given = parser.parse_args(argv)
    cases = [(name, side) for name in given.networks for side in given.sizes if side == 224 or "vit" not in name]
    figures = {f"{name}, {side}": measure(name, side, given.rounds) for name, side in cases}
    write_json(given.json, given, figures)
    print(table(["ms", *WAYS, "times", *(f"optimizer {way}" for way in WAYS), "times"], rows_of(figures)))


if __name__ == "__main__":
    main()
