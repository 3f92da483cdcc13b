"""How long the threads of a worker should spin while they wait for each other, before they sleep.

    python -m benchmarks.waiting [--networks resnet18 …] [--sizes 64] [--num-images 300] [--rounds 3] [--json OUT]

Layers of small networks are short, and waking a thread takes time; but a spinning thread blocks its core for others.
GNU's OpenMP reads the variable GOMP_SPINCOUNT. Each row is a search of two trials in a worker, in the fastest numerics
there, in milliseconds of a training step: alone, and while another program keeps one core busy. *own* is the default of
the library (some milliseconds), which Saccade's workers use.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import arguments_of, busy_core, table, work_folder, write_json
from benchmarks.photos import make_photos, photos_of

NETWORKS = ("mobilenetv3_small_100", "resnet18", "regnetx_002")
SPINS = {"own": {}, "2,000": {"GOMP_SPINCOUNT": "2000"}, "none": {"GOMP_SPINCOUNT": "0"}}
"""The environment of each way to wait, by its name in the table."""

BATCH_SIZE = 16


def step_ms(photos: str, config: dict[str, Any], num_images: int, run: str) -> dict[str, float]:
    """Return the milliseconds of a training step in a worker."""
    import saccade as ag
    from saccade import ImagePredictor

    hyperparameters = {**config, "lr": ag.Real(1e-4, 1e-2, log=True)}
    ImagePredictor(path=run, verbosity=0).fit(
        photos_of(photos, num_images), time_limit=None, hyperparameters=hyperparameters, num_trials=2,
        searcher="random", scheduler="fifo",
    )  # fmt: skip
    records = [json.loads(line) for line in (Path(run) / "events.jsonl").read_text(encoding="ascii").splitlines()]
    passes_s = [record["metrics"]["train_s"] for record in records if record["kind"] == "epoch_done"]
    num_steps = -(-int(0.9 * num_images) // BATCH_SIZE)
    return {"step_ms": 1e3 * statistics.median(passes_s) / num_steps}


def measure(photos: Path, config: dict[str, Any], num_images: int, num_rounds: int, folder: Path) -> dict[str, float]:
    """Return the milliseconds of each way to wait, by name; with ``, busy`` beside another program."""
    found: dict[str, list[float]] = {}
    for number in range(num_rounds):
        for is_busy in (False, True):
            for name, environment in SPINS.items():
                key = name + ", busy" * is_busy
                run = folder / f"{config['model']}-{config['img_size']}-{number}-{len(found)}-{name}-{is_busy}"
                given = {"photos": str(photos), "config": config, "num_images": num_images, "run": str(run)}
                with busy_core() if is_busy else contextlib.nullcontext():
                    one = measuring.in_own_process(
                        step_ms, {"SACCADE_CACHE": str(folder / "cache"), **environment}, **given
                    )
                found.setdefault(key, []).append(one["step_ms"])
    return {key: statistics.median(values) for key, values in found.items()}


def rows_of(figures: dict[str, dict[str, float]]) -> list[list[Any]]:
    """Return rows of milliseconds: the library's own way, and how many times as long the others take."""
    rows = []
    for name, found in figures.items():
        row: list[Any] = [name]
        for busy in ("", ", busy"):
            own = found[f"own{busy}"]
            row += [own, *(found[spin + busy] / own for spin in SPINS if spin != "own")]
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments_of(__doc__ or "")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="names in timm")
    parser.add_argument("--sizes", nargs="+", type=int, default=[64], help="side in pixels")
    parser.add_argument("--num-images", type=int, default=300)
    given = parser.parse_args(argv)
    figures = {}
    with work_folder() as folder:
        photos = make_photos(folder / "photos", given.num_images)
        for network in given.networks:
            for side in given.sizes:
                config = {"model": network, "img_size": side, "epochs": 2, "batch_size": BATCH_SIZE,
                          "pretrained": False, "linear_probe": False}  # fmt: skip
                figures[f"{network}, {side}"] = measure(photos, config, given.num_images, given.rounds, folder)
    write_json(given.json, given, figures)
    others = [f"x {spin}" for spin in SPINS if spin != "own"]
    print(table(["milliseconds per step", "own", *others, "busy, own", *others], rows_of(figures)))


if __name__ == "__main__":
    main()
