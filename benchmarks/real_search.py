"""A search on real photographs: `auto` against full random trials, on the test images.

``python -m benchmarks.real_search --data clothing10 --weights DIR`` fits each method with each seed in its own process,
on two cores, and prints the accuracy on the test images with its spread over seeds. `DIR/train` and `DIR/test`
hold a folder for each class. `--jobs` runs several fits at once, each on its own cores; on a machine with no more
than two cores, run nothing else. The arguments of the method `default` are the images, the weights and the time limit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

DEFAULT = "default"
"""The method that says nothing: networks, recipes and all else are what a fit without arguments chooses."""

METHODS = {
    DEFAULT: {},
    "auto": {},
    "random + fifo": {"searcher": "random", "scheduler": "fifo"},
    "random + asha": {"searcher": "random", "scheduler": "asha"},
}
NETWORKS = (
    "mobilenetv1_100",
    "mobilenetv2_035",
    "mobilenetv2_100",
    "regnetx_002",
    "tf_mobilenetv3_small_100",
)


def fit_once(data: Path, weights: Path, method: str, seed: int, time_limit_s: float, num_epochs: int) -> dict[str, Any]:
    """Return the results of one fit in this process."""
    import saccade as ag
    from saccade import ImageDataset, ImagePredictor

    train, test = ImageDataset.from_folder(data / "train"), ImageDataset.from_folder(data / "test")
    space: dict[str, Any] | None = {
        "model": ag.Categorical(*NETWORKS),
        "lr": ag.Real(1e-4, 1e-2, log=True, default=1e-3),
        "batch_size": ag.Categorical(16, 8, 32),
        "weight_decay": ag.Real(1e-6, 1e-1, log=True, default=1e-2),
        "epochs": num_epochs,
    }
    if method == DEFAULT:
        space = None
    with tempfile.TemporaryDirectory() as folder:
        start_s = time.perf_counter()
        predictor = ImagePredictor(path=Path(folder) / "run", verbosity=0).fit(
            train,
            time_limit=time_limit_s,
            hyperparameters=space,
            weights=weights,
            random_state=seed,
            ngpus_per_trial=None if method == DEFAULT else 0,
            **METHODS[method],
        )
        wall_s = time.perf_counter() - start_s
        summary = predictor.fit_summary()
        return {
            "method": method,
            "seed": seed,
            "test": predictor.evaluate(test)["top1"],
            "valid": summary["valid_acc"],
            "model": summary["best_config"]["model"],
            "best_epoch": summary["best_epoch"],
            "num_trials": summary["num_trials"],
            "num_epochs": int(predictor.leaderboard()["epochs_done"].sum()),
            "wall_s": wall_s,
        }


def run_in_process(args: argparse.Namespace, method: str, seed: int, cores: list[int]) -> dict[str, Any]:
    """Fit in a new process that has these cores alone."""
    command = [sys.executable, "-m", "benchmarks.real_search", "--data", args.data, "--weights", args.weights]
    command += ["--time-limit", str(args.time_limit), "--epochs", str(args.epochs), "--one", method, str(seed)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    pin = (lambda: os.sched_setaffinity(0, cores)) if hasattr(os, "sched_setaffinity") else None
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=pin,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{method}, seed {seed}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(results: list[dict[str, Any]]) -> str:
    """Return a line for each method, with its values over the seeds."""
    lines = [
        f"{'method':15} {'test':>6} {'sd':>6} {'lowest':>7} {'valid':>6} {'trials':>7} {'epochs':>7} {'wall s':>7}"
    ]
    for method in dict.fromkeys(result["method"] for result in results):
        of = [result for result in results if result["method"] == method]
        tests = [result["test"] for result in of]
        valid, trials, epochs, wall_s = (
            statistics.mean(result[name] for result in of) for name in ("valid", "num_trials", "num_epochs", "wall_s")
        )
        spread = statistics.stdev(tests) if len(tests) > 1 else float("nan")
        lines.append(
            f"{method:15} {statistics.mean(tests):6.3f} {spread:6.3f} {min(tests):7.3f} {valid:6.3f} {trials:7.1f} "
            f"{epochs:7.1f} {wall_s:7.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder with train/ and test/")
    parser.add_argument("--weights", required=True, help="the folder of the five networks' weights")
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds for each fit")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of a full training")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["auto", "random + fifo"])
    parser.add_argument("--jobs", type=int, default=1, help="simultaneous fits")
    parser.add_argument("--cores", type=int, default=2, help="cores of each fit")
    parser.add_argument("--json", help="file for all measurements")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        method, seed = args.one
        found = fit_once(Path(args.data), Path(args.weights), method, int(seed), args.time_limit, args.epochs)
        print(json.dumps(found))
        return
    places: Queue[list[int]] = Queue()
    for job in range(args.jobs):
        places.put([core % (os.cpu_count() or 1) for core in range(args.cores * job, args.cores * (job + 1))])

    def run(task: tuple[str, int]) -> dict[str, Any]:
        cores = places.get()
        try:
            result = run_in_process(args, *task, cores)
            print(json.dumps(result), flush=True)
            return result
        finally:
            places.put(cores)

    tasks = [(method, seed) for seed in range(args.seeds) for method in args.methods]
    with ThreadPoolExecutor(args.jobs) as pool:
        results = sorted(pool.map(run, tasks), key=lambda result: args.methods.index(result["method"]))
    print(table(results))
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
