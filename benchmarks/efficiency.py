"""The time of a fit over that of the arithmetic it needs: the bare forward and backward passes and optimizer steps.

    python -m benchmarks.efficiency [--data DIR --weights DIR] [--networks resnet18 vit_tiny_patch16_224] [--sizes 224]
                                    [--trials 8] [--epochs 2] [--num-images 1000] [--rounds 3] [--json OUT]

*cold* is a fit of one trial in a new process with an empty cache: it decodes the images and measures its numerics.
*warm* is another one after that, and *search* is one of several trials. The bare arithmetic (`benchmarks.arithmetic`)
runs in its own process before and after these, in the same round, so that a busy machine slows all of them. Imports are
not counted; `benchmarks.startup` measures them.

Below each line of ratios is the time of each part of the fit, over that of the bare arithmetic, from the run's events.
The excess consists of *training* (the schedule, augmentation in a thread, waiting for data) and *validation*, both
minus the arithmetic, and all other parts. The ratio *cpu* uses the seconds of all cores together: it is less
informative on a machine with several cores, but correct on a busy one.

Without `--data`, the photos are smooth noise of 500 by 375 pixels; without `--weights`, networks start from random
weights. The targets: 1.10 warm, 1.05 for a search of eight, 1.25 cold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Meter, arguments_of, table, work_folder, write_json
from benchmarks.photos import make_photos, photos_of

NETWORKS = ("resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224")
TARGETS = {"warm": 1.10, "search": 1.05, "cold": 1.25}
PARTS = ("checks", "images", "search set up", "trial set up", "training", "data", "validation", "writing", "between",
         "finishing", "closing")  # fmt: skip
"""Of a fit, in order; *between* are reports and their answers, and all that no event tells of."""


def fit(
    photos: str, config: dict[str, Any], num_images: int, num_trials: int, run: str, weights: str | None
) -> dict[str, Any]:
    """Return the seconds of one fit in this process, by part."""
    import saccade as ag
    from saccade import ImagePredictor

    train = photos_of(photos, num_images)
    hyperparameters, options = dict(config), {}
    if num_trials > 1:
        hyperparameters["lr"] = ag.Real(1e-4, 1e-2, log=True)
        options = {"num_trials": num_trials, "searcher": "random", "scheduler": "fifo"}
    predictor = ImagePredictor(path=run, verbosity=0)
    called = time.time()
    with Meter() as meter:
        predictor.fit(train, time_limit=None, hyperparameters=hyperparameters, weights=weights, report=False, **options)
    parts = parts_s(Path(run) / "events.jsonl", called, called + meter.wall_s)
    return {"wall_s": meter.wall_s, "cpu_s": meter.cpu_s, "parts_s": parts, "numerics": remembered_numerics()}


def bare(photos: str, config: dict[str, Any], num_images: int, folder: str, weights: str | None) -> dict[str, Any]:
    """Return the seconds of each pass of the arithmetic of one trial in this process, its batches in memory."""
    from benchmarks.arithmetic import Arithmetic, make_task  # imports torch

    arithmetic = Arithmetic(make_task(photos, config, Path(folder), num_images, weights), config)
    train_s, val_s = [], []
    with Meter() as meter:
        for _ in range(config["epochs"]):
            train_s.append(arithmetic.train_s())
            val_s.append(arithmetic.val_s())
    numerics = {"training": str(arithmetic.training), "inference": str(arithmetic.inference)}
    return {"train_s": train_s, "val_s": val_s, "cpu_s": meter.cpu_s, "numerics": numerics}


def parts_s(events: Path, called: float, returned: float) -> dict[str, float]:
    """Return the seconds of a fit by part, from the times in its log; with one worker they cover all of it."""
    records = [json.loads(line) for line in events.read_text(encoding="ascii").splitlines()]
    time_of = {record["kind"]: record["time"] for record in reversed(records)}  # of the first of each kind
    last_job = max(record["time"] for record in records if record["kind"] == "job_done")
    reports = [record for record in records if record["kind"] == "epoch_done"]
    parts = dict.fromkeys(PARTS, 0.0)
    parts["checks"] = time_of["run_started"] - called
    parts["images"] = time_of["data_ready"] - time_of["run_started"]
    parts["search set up"] = time_of["job_started"] - time_of["data_ready"]
    started = {record["trial"]: record["time"] for record in reversed(records) if record["kind"] == "job_started"}
    for report in reports:
        metrics = report["metrics"]
        parts["data"] += metrics.get("data_s", 0.0)
        parts["training"] += metrics["train_s"] - metrics.get("data_s", 0.0)
        parts["validation"] += metrics["val_s"]
        parts["writing"] += report["seconds"] - metrics["train_s"] - metrics["val_s"]
        if (start := started.pop(report["trial"], None)) is not None:
            parts["trial set up"] += report["time"] - report["seconds"] - start
    known = sum(parts[name] for name in ("trial set up", "training", "data", "validation", "writing"))
    parts["between"] = last_job - time_of["job_started"] - known
    parts["finishing"] = time_of["run_finished"] - last_job
    parts["closing"] = returned - time_of["run_finished"]
    return parts


def remembered_numerics() -> dict[str, str]:
    """Return the cached numerics by purpose: the last choice for one network and size."""
    import torch

    from saccade.numerics.choice import MEMORY
    from saccade.numerics.device import Numerics

    if not MEMORY.path.exists():
        return {}
    choices = json.loads(MEMORY.path.read_text(encoding="utf-8"))["choices"]
    found = {}
    for key, choice in choices.items():
        found[key.split(" |")[0]] = str(Numerics.from_json(choice["numerics"], torch.device("cpu")))
    return found


def one_round(photos: Path, config: dict[str, Any], given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure the bare arithmetic, the three fits, and the arithmetic again."""
    own = measuring.in_own_process
    same = {"photos": str(photos), "config": config, "num_images": given.num_images, "weights": given.weights}
    # The arithmetic has a cache of its own: its numerics are not those that a fit has found in its little time.
    bare_cache, fit_cache = ({"SACCADE_CACHE": str(folder / name)} for name in ("bare", "fit"))
    bares = [own(bare, bare_cache, folder=str(folder), **same)]
    fits = {}
    for name, num_trials in (("cold", 1), ("warm", 1), ("search", given.trials)):
        if name != "search" or num_trials > 1:
            fits[name] = own(fit, fit_cache, num_trials=num_trials, run=str(folder / name), **same)
    bares.append(own(bare, bare_cache, folder=str(folder), **same))
    return {"bares": bares, "fits": fits}


def figures_of(rounds: list[dict[str, Any]], num_trials: int) -> dict[str, Any]:
    """Return ratios of medians over rounds, and the time of each part over that of the arithmetic."""
    from benchmarks.arithmetic import trials_s

    figures: dict[str, Any] = {}
    for name in rounds[0]["fits"]:
        num = num_trials if name == "search" else 1

        def bare_s(one: dict[str, Any], what: str, num: int = num) -> float:
            return statistics.fmean(trials_s(passes[what], num) for passes in one["bares"])

        walls, cpus, parts = [], [], []
        for one in rounds:
            did = one["fits"][name]
            whole_s = bare_s(one, "train_s") + bare_s(one, "val_s")
            walls.append(did["wall_s"] / whole_s)
            cpus.append(did["cpu_s"] / (num * statistics.fmean(passes["cpu_s"] for passes in one["bares"])))
            more = {**did["parts_s"]}
            more["training"] -= bare_s(one, "train_s")
            more["validation"] -= bare_s(one, "val_s")
            parts.append({part: seconds / whole_s for part, seconds in more.items()})
        figures[name] = {
            "ratio": statistics.median(walls),
            "cpu_ratio": statistics.median(cpus),
            "overhead": {part: statistics.median(one[part] for one in parts) for part in PARTS},
        }
    passes = [one["train_s"][-1] + one["val_s"][-1] for both in rounds for one in both["bares"]]
    figures["bare_epoch_s"] = statistics.median(passes)
    figures["numerics"] = {"bare": rounds[-1]["bares"][-1]["numerics"], "fit": rounds[-1]["fits"]["warm"]["numerics"]}
    return figures


def print_figures(cases: list[dict[str, Any]]) -> None:
    """Print the ratios, and below them the time of each part."""
    names = [name for name in TARGETS if name in cases[0]["figures"]]
    heads = ["network", "px", "bare s/epoch", *(f"{name} (≤ {TARGETS[name]:.2f})" for name in names)]
    heads += [f"{name} cpu" for name in names]
    rows = []
    for case in cases:
        figures = case["figures"]
        row = [case["network"], case["img_size"], figures["bare_epoch_s"]]
        row += [figures[name][key] for key in ("ratio", "cpu_ratio") for name in names]
        rows.append(row)
    print(table(heads, rows))
    print("\ntime beyond the arithmetic, in percent of it")
    rows = []
    for case in cases:
        for name in names:
            overhead = case["figures"][name]["overhead"]
            label = f"{case['network']} {case['img_size']} {name}"
            rows.append([label, *(f"{100 * overhead[part]:.1f}" for part in PARTS)])
    print(table(["fit", *PARTS], rows))
    for case in cases:
        numerics = case["figures"]["numerics"]
        differing = [what for what, chosen in numerics["fit"].items() if chosen != numerics["bare"].get(what)]
        for what in differing:
            print(
                f"{case['network']} {case['img_size']}: {what} in {numerics['fit'][what]}, though measured at length "
                f"{numerics['bare'].get(what)} is the fastest"
            )


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = arguments_of(__doc__)
    parser.add_argument("--data", type=Path, help="a folder of photos, one folder a class; it may be in train/")
    parser.add_argument("--weights", help="a folder of pretrained weights, or a file")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 64], help="side in pixels")
    parser.add_argument("--trials", type=int, default=8, help="trials of a search; 1 for none")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--num-images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=16)
    given = parser.parse_args(argv)
    cases = []
    with work_folder() as folder:
        photos = given.data or make_photos(folder / "photos", given.num_images)
        for network in given.networks:
            for img_size in given.sizes:
                # A probe before the training, and frozen statistics, are other arithmetic: not what is measured here.
                config = {"model": network, "img_size": img_size, "epochs": given.epochs, "lr": 1e-3,
                          "batch_size": given.batch_size, "pretrained": given.weights is not None,
                          "linear_probe": False, "freeze_bn": False}  # fmt: skip
                rounds = []
                for number in range(given.rounds):
                    place = folder / f"{network}-{img_size}-{number}"
                    rounds.append(one_round(photos, config, given, place))
                figures = figures_of(rounds, given.trials)
                cases.append({"network": network, "img_size": img_size, "figures": figures, "rounds": rounds})
                ratios = ", ".join(f"{name} {figures[name]['ratio']:.2f}" for name in TARGETS if name in figures)
                print(f"{network} {img_size}: {ratios}", flush=True)
    print()
    print_figures(cases)
    write_json(given.json, given, cases)


if __name__ == "__main__":
    main()
