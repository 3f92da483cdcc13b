"""The same network, weights, images, epochs and batch size in Saccade and in others: time, test accuracy, memory.

    python -m benchmarks.peers --peers DIR [--python autogluon=AG/bin/python] [--python fastai=FA/bin/python]
                               [--data DIR --weights FILE] [--network mobilenetv2_100] [--epochs 2] [--batch-size 8]
                               [--lr 1e-3] [--rounds 3] [--json OUT]

`--peers` is a folder with `handwritten.py` and `autogluon_fit.py`, scripts that take ``--data --weights --network
--epochs --batch-size --lr`` and print a line of JSON with ``import_s``, ``fit_s``, ``evaluate_s`` and ``test_acc``.
fastai's is `benchmarks/fastai_fit.py`. Each runs in the interpreter of `--python NAME=PATH`, or in this one, and is
skipped with a message if its requirements are not installed. Several learning rates are a search.

Everything is a new process, in turns, and its memory is that of its largest process. Saccade begins with an empty
cache; *saccade, again* is the same fit repeated, with decoded images and cached numerics; *saccade, 1/10* has a tenth
of the seconds of AutoGluon's fit as its time limit, to test whether that is enough for AutoGluon's accuracy.

`--data` has `train/` and `test/` with a folder for each class. Without it, photos are smooth noise with classes that
are easy to separate, and without `--weights` all start from the same random weights: then accuracies mean little.

The targets, on 2 cores: 3 times AutoGluon; 1.5 times the hand-written loop for mobilenetv2_100, 3 times for resnet18.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import ROOT, arguments_of, run_command, table, work_folder, write_json
from benchmarks.photos import make_photos

NEEDS = {
    "handwritten": ("timm", "torch", "torchvision"),
    "autogluon": ("autogluon.multimodal",),
    "fastai": ("fastai", "timm"),
}
SCRIPTS = {"handwritten": "handwritten.py", "autogluon": "autogluon_fit.py", "fastai": "fastai_fit.py"}
OURS, AGAIN, TENTH = "saccade", "saccade, again", "saccade, 1/10"
TARGETS = {"autogluon": {"": 3.0}, "handwritten": {"mobilenetv2_100": 1.5, "resnet18": 3.0}}


def saccade_fit(
    data: str,
    weights: str,
    network: str,
    epochs: int,
    batch_size: int,
    lr: list[float],
    run: str,
    time_limit: float | None = None,
) -> dict[str, Any]:
    """Fit in this process, and evaluate on the test images."""
    start_s = time.perf_counter()
    import saccade as ag
    from saccade import ImageDataset, ImagePredictor

    imported_s = time.perf_counter()
    train, _, test = ImageDataset.from_folders(data)
    config = {"model": network, "epochs": epochs, "batch_size": batch_size, "lr": lr[0]}
    search: dict[str, Any] = {}
    if len(lr) > 1:
        config["lr"] = ag.Categorical(*lr)
        search = {"num_trials": len(lr), "searcher": "grid", "scheduler": "fifo"}
    predictor = ImagePredictor(path=run, verbosity=0)
    predictor.fit(train, time_limit=time_limit, hyperparameters=config, weights=weights, **search)
    fitted_s = time.perf_counter()
    test_accuracy = predictor.evaluate(test)["top1"]
    seconds = {"import_s": imported_s - start_s, "fit_s": fitted_s - imported_s}
    seconds["evaluate_s"] = time.perf_counter() - fitted_s
    return {**seconds, "val_acc": predictor.fit_summary()["valid_acc"], "test_acc": test_accuracy}


def random_weights(network: str, path: str) -> dict[str, Any]:
    """Write random weights of a network, for all to start from."""
    import timm
    import torch
    from safetensors.torch import save_model

    torch.manual_seed(0)
    save_model(timm.create_model(network, pretrained=False), path)
    return {"path": path}


class Peer:
    """A library or script that is measured.

    Parameters
    ----------
    name : str
        In `SCRIPTS`.
    python : str
        The interpreter that has it.
    script : Path
        What to run.
    """

    def __init__(self, name: str, python: str, script: Path) -> None:
        self.name, self.python, self.script = name, python, script

    def lacks(self) -> str:
        """Return what is missing for it to run; "" when nothing is."""
        if not self.script.is_file():
            return f"there is no {self.script}; name its folder by --peers"
        code = "import importlib.util as u, sys; [u.find_spec(name) or sys.exit(name) for name in sys.argv[1:]]"
        try:
            done = subprocess.run(
                [self.python, "-c", code, *NEEDS[self.name]], capture_output=True, text=True, check=False
            )
        except OSError as error:
            return f"{self.python} cannot be run ({error.strerror})"
        if done.returncode:
            missing = (done.stderr.strip().splitlines() or ["?"])[-1]
            return f"{self.python} lacks {' or '.join(NEEDS[self.name])} ({missing}); name its interpreter by --python"
        return ""

    def fit(self, given: argparse.Namespace, data: Path, weights: Path) -> dict[str, Any]:
        """Run it once.

        Raises
        ------
        RuntimeError
            When it fails.
        """
        options = ["--data", data, "--weights", weights, "--network", given.network]
        options += ["--epochs", given.epochs, "--batch-size", given.batch_size, "--lr", *given.lr]
        if self.name == "autogluon" and len(given.lr) > 1:
            options += ["--num-trials", len(given.lr)]
        return self.run(options)

    def run(self, options: Sequence[object]) -> dict[str, Any]:
        """Run it once with these options, and return what it said last, and what it took.

        Raises
        ------
        RuntimeError
            When it fails.
        """
        command = [self.python, self.script, *map(str, options)]
        return _result(run_command(command, {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}))


def _result(ended: measuring.Ended) -> dict[str, Any]:
    figures = json.loads(ended.stdout.splitlines()[-1])
    return {**figures, "wall_s": ended.wall_s, "cpu_s": ended.cpu_s, "peak_mb": ended.peak_mb}


def run_saccade(
    given: argparse.Namespace, data: Path, weights: Path, place: Path, name: str, time_limit: float | None = None
) -> dict[str, Any]:
    """Fit in a process of its own, with the cache in `place`."""
    run = place / name.replace(" ", "_").replace("/", "_")
    arguments = {
        "data": str(data), "weights": str(weights), "network": given.network, "epochs": given.epochs,
        "batch_size": given.batch_size, "lr": given.lr, "run": str(run), "time_limit": time_limit,
    }  # fmt: skip
    code = "import json, sys; from benchmarks.peers import saccade_fit; "
    code += "print(json.dumps(saccade_fit(**json.loads(sys.argv[1]))))"
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    return _result(run_command(command, {"SACCADE_CACHE": str(place / "cache")}))


def one_round(
    given: argparse.Namespace, peers: Sequence[Peer], data: Path, weights: Path, place: Path
) -> dict[str, dict[str, Any]]:
    """Run all of them once."""
    results = {name: run_saccade(given, data, weights, place, name) for name in (OURS, AGAIN)}
    for peer in peers:
        print(f"{peer.name} …", flush=True)
        try:
            results[peer.name] = peer.fit(given, data, weights)
        except RuntimeError as error:  # the other results are still useful
            print(f"{peer.name} failed: {error}")
    if "autogluon" in results:
        limit_s = results["autogluon"]["fit_s"] / 10
        results[TENTH] = run_saccade(given, data, weights, place / "tenth", TENTH, limit_s)
    return results


def rows_of(rounds: Sequence[dict[str, dict[str, Any]]], network: str) -> list[list[Any]]:
    """Return the table's rows: medians, and ratios to Saccade's within each round."""
    rows = []
    for name in [name for name in rounds[0] if all(name in one for one in rounds)]:
        medians = [statistics.median(one[name][what] for one in rounds) for what in COLUMNS]
        ratios = [
            statistics.median(one[name][what] / one[OURS][what] for one in rounds)
            for what in ("fit_s", "wall_s", "peak_mb")
        ]
        targets = TARGETS.get(name, {})
        target = targets.get(network, targets.get(""))
        rows.append([name, *medians, *ratios, None if target is None else f"≥ {target}"])
    return rows


COLUMNS = ("import_s", "fit_s", "evaluate_s", "wall_s", "peak_mb", "test_acc")
HEADS = ("", "import s", "fit s", "evaluate s", "whole s", "MB", "test acc", "x fit", "x whole", "x MB", "target x fit")


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = arguments_of(__doc__)
    parser.add_argument("--data", type=Path, help="a folder with train/ and test/")
    parser.add_argument("--weights", type=Path, help="a file of the network's pretrained weights, safetensors")
    parser.add_argument("--peers", type=Path, help="a folder with handwritten.py and autogluon_fit.py")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="a peer's interpreter")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), help="peers to run")
    parser.add_argument("--network", default="mobilenetv2_100")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3], help="learning rates; several are a search")
    parser.add_argument("--num-images", type=int, default=240, help="generated images if no --data is given")
    given = parser.parse_args(argv)
    pythons = dict(entry.split("=", 1) for entry in given.python)
    peers = []
    for name in given.only:
        folder = ROOT / "benchmarks" if name == "fastai" else given.peers or Path()
        peer = Peer(name, pythons.get(name, sys.executable), folder / SCRIPTS[name])
        if lack := peer.lacks():
            print(f"{name} is skipped: {lack}")
        else:
            peers.append(peer)
    with work_folder() as work:
        data = given.data or _made(work / "data", given.num_images)
        weights = given.weights
        if weights is None:
            weights = work / "weights.safetensors"
            measuring.in_own_process(random_weights, network=given.network, path=str(weights))
        rounds = [one_round(given, peers, data, weights, work / str(number)) for number in range(given.rounds)]
    print(table(HEADS, rows_of(rounds, given.network)))
    write_json(given.json, given, rounds)


def _made(folder: Path, num_images: int) -> Path:
    make_photos(folder / "train", num_images)
    make_photos(folder / "test", max(16, num_images // 3), seed=1)
    return folder


if __name__ == "__main__":
    main()
