"""The methods that `benchmarks.quality` compares: Saccade, other libraries and baselines, each in its own process."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measuring
from benchmarks.measuring import ROOT
from benchmarks.peers import SCRIPTS, Peer
from benchmarks.subsets import images_by_class

ONE_SIGMA = 0.6827
"""The confidence of an interval that is one standard error to both sides, where errors are normal."""

PRESETS = (
    "fast_inference", "medium_quality", "high_quality", "best_quality",
    "medium_quality_faster_train", "medium_quality_faster_inference", "good_quality_fast_inference",
)  # fmt: skip
"""Those that have names; the last three are AutoGluon's."""

OF_SACCADE: dict[str, dict[str, Any]] = {
    "saccade": {},
    **{name: {"presets": name} for name in PRESETS},
    "random": {"searcher": "random", "scheduler": "fifo", "ensemble": False},
}
"""Arguments of a fit besides images, weights and the time: `random` is the best trial of a plain random search."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "augmentation": {"hyperparameters": {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0}},
    "ensemble": {"ensemble": False},
    "freeze_bn": {"hyperparameters": {"freeze_bn": False}},
    "frozen_layers": {"hyperparameters": {"layer_decay_no_opt_scale": 0.0}},
    "layer_decay": {"hyperparameters": {"layer_decay": 1.0}},
    "linear_probe": {"hyperparameters": {"linear_probe": False}},
    "robust_loss": {"hyperparameters": {"robust_loss": 0.0}},
    "scheduler": {"scheduler": "fifo"},
    "searcher": {"searcher": "random"},
    "smoothing": {"hyperparameters": {"smoothing": 0.0}},
    "warmup": {"hyperparameters": {"warmup_epochs": 0.0}},
    "weight_decay": {"hyperparameters": {"weight_decay": 0.0}},
}
"""What takes an ingredient of the default fit out; of a searcher or scheduler, the plainest takes its place."""

ADDITIONS: dict[str, dict[str, Any]] = {
    "balanced_accuracy": {"eval_metric": "balanced_accuracy"},
    "model_ema": {"hyperparameters": {"model_ema": True}},
    "num_folds": {"num_folds": 5},
    "robust_training": {"hyperparameters": {"robust_loss": 0.7}},
    "tta": {"hyperparameters": {"tta": True}},
}
"""What the default fit does not do, put in."""

PEERS = {"fastai": "fastai", "autogluon": "autogluon", "autogluon search": "autogluon", "handwritten": "handwritten"}
"""Scripts by method."""

METHODS = ("saccade", *PRESETS, "random", "probe", *PEERS)

SEARCH = ("--num-trials", 4, "--searcher", "bayes", "--scheduler", "ASHA", "--lr", 1e-4, 3e-4, 1e-3)
"""The search of AutoGluon's documentation, over learning rates around its default."""


@dataclass(frozen=True)
class Task:
    """One fit.

    Attributes
    ----------
    method : str
        In `METHODS`, or the name of an ablation, as `arguments_of` takes it.
    data : Path
        With ``train`` and ``test``.
    time_limit_s : float
        For the fit.
    seed : int
        Of the fit.
    epoch_s : float or None
        Seconds of an epoch of the hand-written loop, where they are known.
    """

    method: str
    data: Path
    time_limit_s: float
    seed: int
    epoch_s: float | None = None


@dataclass(frozen=True)
class Bench:
    """The shared settings of all fits.

    Attributes
    ----------
    place : Path
        A folder for runs and caches.
    weights : Path or None
        The folder of weights.
    network : str
        The one network of those that train only one.
    peers : dict
        By the name of their script; those that can run.
    options : dict
        Arguments for all fits of Saccade.
    """

    place: Path
    weights: Path | None
    network: str
    peers: Mapping[str, Peer] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> dict[str, Any]:
        """The arguments of all fits, in JSON types."""
        weights = None if self.weights is None else str(self.weights.resolve())
        return {"weights": weights, "network": self.network, "options": dict(self.options)}

    def fit(self, task: Task) -> dict[str, Any]:
        """Fit, and return figures: at least ``top1``, ``fit_s`` and ``wall_s``.

        Raises
        ------
        RuntimeError
            When it fails.
        """
        if task.method in PEERS:
            return self._peer_fit(task)
        arguments: dict[str, Any] = {"data": str(task.data), "time_limit_s": task.time_limit_s, "seed": task.seed}
        function: Callable[..., dict[str, Any]]
        if task.method == "probe":
            function, arguments["files"] = probe_fit, [str(file) for file in weight_files(self.weights)]
        else:
            function, arguments["arguments"] = saccade_fit, self._arguments(task.method)
            arguments |= {"weights": None if self.weights is None else str(self.weights)}
            arguments |= {"run": str(self._fresh("run"))}
        start_s = time.perf_counter()
        figures = measuring.in_own_process(function, {"SACCADE_CACHE": str(self._fresh("cache"))}, **arguments)
        return {**figures, "wall_s": time.perf_counter() - start_s}

    def _arguments(self, method: str) -> dict[str, Any]:
        given = arguments_of(method)
        hyperparameters = {**self.options.get("hyperparameters", {}), **given.get("hyperparameters", {})}
        return {**self.options, **given, **({"hyperparameters": hyperparameters} if hyperparameters else {})}

    def _peer_fit(self, task: Task) -> dict[str, Any]:
        peer = self.peers[PEERS[task.method]]
        options: list[object] = ["--data", task.data, "--network", self.network]
        options += ["--weights", self._weights_file()]
        match task.method:
            case "handwritten":
                return self._handwritten_fit(peer, [*options, "--seed", task.seed], task)
            case "fastai":
                predictions = self._fresh("predictions").with_suffix(".npz")
                options += ["--batch-size", 32, "--seed", task.seed, "--predictions", predictions]
                found = peer.run([*options, "--time-limit", task.time_limit_s])
                with np.load(predictions) as file:
                    figures = metrics_of(file["probabilities"], file["classes"], file["labels"])
                return {**found, **figures, "valid": found["val_acc"]}
            case "autogluon search":
                options += SEARCH
        found = peer.run([*options, "--time-limit", task.time_limit_s])
        return {**found, **metrics_of_accuracy(found["test_acc"], _num_test(task.data))}

    def _handwritten_fit(self, peer: Peer, options: Sequence[object], task: Task) -> dict[str, Any]:
        """Train for as many epochs as there is time for; how long one takes is found out before, on no one's time."""

        def fit(epochs: int) -> dict[str, Any]:
            found = peer.run([*options, "--epochs", epochs])
            figures = metrics_of_accuracy(found["test_acc"], _num_test(task.data))
            return {**found, **figures, "valid": found["val_acc"], "epochs": epochs}

        first = fit(1) if task.epoch_s is None else {}
        epoch_s = first["fit_s"] if task.epoch_s is None else task.epoch_s
        epochs = max(1, math.floor(task.time_limit_s / max(epoch_s, 1e-3)))
        return {**(first if first and epochs == 1 else fit(epochs)), "epoch_s": epoch_s}

    def _weights_file(self) -> Path:
        for file in weight_files(self.weights):
            if file.name.split(".")[0] == self.network:
                return file
        raise RuntimeError(f"{self.weights} has no weights of {self.network}, with which others train; see --network")

    def _fresh(self, name: str) -> Path:
        """Return a new path."""
        return self.place / f"{name}-{time.time_ns()}"


def arguments_of(method: str) -> dict[str, Any]:
    """Return what a fit of Saccade is given; ``saccade - ensemble`` is the default without, ``saccade + tta`` with.

    Examples
    --------
    >>> arguments_of("saccade - ensemble"), arguments_of("saccade")
    ({'ensemble': False}, {})
    """
    for sign, table in ((" - ", ABLATIONS), (" + ", ADDITIONS)):
        _, found, name = method.partition(sign)
        if found:
            return table[name]
    return OF_SACCADE[method]


def ablation(name: str) -> str:
    """Return the method without an ingredient, or with it.

    Examples
    --------
    >>> ablation("ensemble"), ablation("num_folds")
    ('saccade - ensemble', 'saccade + num_folds')
    """
    return f"saccade {'-' if name in ABLATIONS else '+'} {name}"


def saccade_fit(
    data: str, time_limit_s: float, seed: int, arguments: dict[str, Any], weights: str | None, run: str
) -> dict[str, Any]:
    """Fit in this process, and evaluate on the test images."""
    from saccade import ImageDataset, ImagePredictor

    train, _, test = ImageDataset.from_folders(data)
    if hyperparameters := arguments.get("hyperparameters"):
        arguments = {
            **arguments,
            "hyperparameters": {name: _of_json(name, hyperparameters[name]) for name in hyperparameters},
        }
    arguments = dict(arguments)
    predictor = ImagePredictor(path=run, verbosity=0, eval_metric=arguments.pop("eval_metric", None))
    start_s = time.perf_counter()
    predictor.fit(train, time_limit=time_limit_s, weights=weights, random_state=seed, **arguments)
    fit_s = time.perf_counter() - start_s
    summary = predictor.fit_summary()
    start_s = time.perf_counter()
    told = predictor.evaluate(test, detailed=True, interval=ONE_SIGMA)
    evaluate_s = time.perf_counter() - start_s
    return {
        **with_errors(told),
        "fit_s": fit_s,
        "images_per_s": len(test) / evaluate_s,
        "valid": summary["valid_acc"],
        "model": str(summary["best_config"]["model"]),
        "num_networks": len(summary.get("ensemble") or [0]),
        "num_trials": summary["num_trials"],
    }


def _of_json(name: str, value: Any) -> Any:
    """Return a hyperparameter as it was before JSON turned tuples into lists."""
    from saccade import Categorical

    if not isinstance(value, list):
        return value
    return Categorical(*value) if name == "model" else tuple(value)


def probe_fit(data: str, time_limit_s: float, seed: int, files: list[str]) -> dict[str, Any]:
    """Fit a logistic regression to frozen features in this process, and evaluate it on the test images."""
    import sklearn.linear_model  # noqa: F401  imports are not timed
    import timm  # noqa: F401

    from benchmarks.frozen_probe import FrozenNetwork, fit_probe

    paths, labels = _listed(Path(data) / "train")
    probe = fit_probe([Path(file) for file in files], paths, labels, time_limit_s, seed)
    test_paths, test_labels = _listed(Path(data) / "test")
    probabilities = probe.classifier.predict_proba(FrozenNetwork(probe.network, probe.file).features(test_paths))
    figures = metrics_of(probabilities, probe.classifier.classes_, np.array(test_labels))
    return {**figures, "fit_s": probe.fit_s, "valid": probe.accuracy, "model": probe.network, "tried": probe.tried}


def metrics_of(probabilities: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the metrics of `ImagePredictor.evaluate` for given probabilities.

    Parameters
    ----------
    probabilities : ndarray, shape (num_images, num_classes)
    classes : ndarray of str, shape (num_classes,)
        The columns. A class that is not among them has the probability 0.
    labels : ndarray of str, shape (num_images,)
        The right ones.
    """
    from saccade.inference.evaluation import evaluation
    from saccade.tasks.problem import Problem

    problem = Problem.of(sorted({*classes.tolist(), *labels.tolist()}))
    columns = [list(problem.classes).index(name) for name in classes.tolist()]
    all_probabilities = np.zeros((len(labels), problem.num_outputs))
    all_probabilities[:, columns] = probabilities
    targets = problem.encode(labels.tolist())
    told = evaluation(targets, all_probabilities, all_probabilities, problem, detailed=True, interval=ONE_SIGMA)
    return with_errors(told)


def metrics_of_accuracy(accuracy: float, num_images: int) -> dict[str, float]:
    """Return the metrics of a method that reports only its accuracy."""
    return {"top1": accuracy, "top1_se": math.sqrt(accuracy * (1 - accuracy) / num_images)}


def with_errors(told: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics, each with its standard error instead of an interval of that width."""
    figures = {}
    for name in ("top1", "log_loss", "ece"):
        low, high = told[f"{name}_interval"]
        figures |= {name: float(told[name]), f"{name}_se": float(high - low) / 2}
    return {**figures, "ece_by_chance": float(told["ece_by_chance"])}


def weight_files(weights: Path | None) -> list[Path]:
    """Return the files of weights in a folder, the largest first."""
    files = [] if weights is None else sorted(weights.glob("*.safetensors"))
    return sorted(files, key=lambda file: -file.stat().st_size)


def peers_for(methods: Sequence[str], folder: Path | None, pythons: Mapping[str, str]) -> tuple[dict[str, Peer], str]:
    """Return the peers that can run, by script, and messages about the others.

    Parameters
    ----------
    methods : sequence of str
        That are wanted.
    folder : Path or None
        With the scripts of AutoGluon and of the hand-written loop.
    pythons : mapping
        Interpreters by script.
    """
    peers, told = {}, []
    for name in dict.fromkeys(PEERS[method] for method in methods if method in PEERS):
        place = ROOT / "benchmarks" if name == "fastai" else folder or Path()
        peer = Peer(name, pythons.get(name) or sys.executable, place / SCRIPTS[name])
        if lack := peer.lacks():
            told.append(f"{name} is left out: {lack}")
        else:
            peers[name] = peer
    return peers, "\n".join(told)


def _listed(folder: Path) -> tuple[list[Path], list[str]]:
    images = images_by_class(folder)
    return [path for paths in images.values() for path in paths], [
        name for name, paths in images.items() for _ in paths
    ]


def _num_test(data: Path) -> int:
    return sum(map(len, images_by_class(data / "test").values()))
