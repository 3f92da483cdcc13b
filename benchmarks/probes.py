"""Classifiers on frozen features: Saccade's logistic regression, nearest neighbours, and an average of both.

    python -m benchmarks.probes --data DIR --weights DIR [--images-per-class 5 20 all] [--draws 3] [--json OUT]

For each network in the folder of weights, the features of all images are computed once. Then classifier layers are
fitted to that many training images of each class, drawn anew each time, and evaluated on the images in `test/`. The
table has the mean accuracy of single networks, the accuracy of the average of all networks, the same for the log-loss,
and the seconds to fit, or to find neighbours, for one network, beside those of its features.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.crop import features
from benchmarks.measuring import table, write_json
from saccade import ImageDataset
from saccade.models.weights import networks_in_folder
from saccade.tasks.problem import Problem
from saccade.training.probes.heads import HeadFitter

NUM_NEIGHBOURS = 10
PART = 0.2
"""Of neighbours in the mean of both: what the training images choose as a rule."""

LEAST = 1e-2
"""What a class gets that none of the neighbours has, so that log-losses are finite."""

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray, Problem], np.ndarray]


def regression(x: np.ndarray, targets: np.ndarray, asked: np.ndarray, problem: Problem) -> np.ndarray:
    """Return probabilities by a probe whose penalty is chosen by cross-validation."""
    head = HeadFitter(x, targets, problem).fit()
    return problem.activate(torch.from_numpy(asked @ head.weight.T + head.bias)).numpy()


def neighbours(x: np.ndarray, targets: np.ndarray, asked: np.ndarray, problem: Problem) -> np.ndarray:
    """Return probabilities by the nearest training images, by the angle between features."""
    num = min(NUM_NEIGHBOURS, len(x))
    fitted = KNeighborsClassifier(num, weights="distance", metric="cosine", algorithm="brute").fit(x, targets)
    rows = np.zeros((len(asked), problem.num_outputs))
    rows[:, fitted.classes_] = fitted.predict_proba(asked)
    return (1 - LEAST) * rows + LEAST / problem.num_outputs


def both(x: np.ndarray, targets: np.ndarray, asked: np.ndarray, problem: Problem) -> np.ndarray:
    """Return an average of the two."""
    return (1 - PART) * regression(x, targets, asked, problem) + PART * neighbours(x, targets, asked, problem)


METHODS: dict[str, Predict] = {"logistic regression": regression, "nearest neighbours": neighbours, "both": both}


def read(folder: Path) -> tuple[list[str], list[str]]:
    """Return the paths of images, and their labels."""
    paths = [str(path) for path in ImageDataset.from_folder(folder)["image"]]
    return paths, [Path(path).parent.name for path in paths]


def drawn(targets: np.ndarray, most: int | None, rng: np.random.Generator) -> np.ndarray:
    """Return the positions of at most that many images of each class."""
    return np.concatenate([rng.permutation(np.flatnonzero(targets == one))[:most] for one in np.unique(targets)])


def figures_of(given: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Return figures by images per class and method."""
    (paths, labels), (asked, asked_labels) = read(given.data / "train"), read(given.data / "test")
    problem = Problem.of(labels, "multiclass")
    targets, asked_targets = problem.encode(labels), problem.encode(asked_labels)
    x, features_s = {}, []
    for name in networks_in_folder(given.weights):
        start_s = time.perf_counter()
        x[name] = features(paths + asked, name, 1.0, given.weights, problem)
        features_s.append(time.perf_counter() - start_s)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for most in given.images_per_class:
        rng, each = np.random.default_rng(given.seed), None if most == "all" else int(most)
        parts = [drawn(targets, each, rng) for _ in range(given.draws if each else 1)]
        found[most] = {}
        for method, predict in METHODS.items():
            rows = [_judged(predict, x, targets, part, asked_targets, problem) for part in parts]
            means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
            found[most][method] = {**means, "features_s": float(np.mean(features_s))}
    return found


def _judged(
    predict: Predict,
    x: dict[str, np.ndarray],
    targets: np.ndarray,
    part: np.ndarray,
    asked_targets: np.ndarray,
    problem: Problem,
) -> dict[str, float]:
    start_s = time.perf_counter()
    said = [predict(rows[part], targets[part], rows[len(targets) :], problem) for rows in x.values()]
    fit_s = (time.perf_counter() - start_s) / len(said)
    mean = np.mean(said, axis=0)
    return {
        "single": float(np.mean([(rows.argmax(1) == asked_targets).mean() for rows in said])),
        "mean": float((mean.argmax(1) == asked_targets).mean()),
        "single_log_loss": float(np.mean([problem.image_losses(rows, asked_targets).mean() for rows in said])),
        "mean_log_loss": problem.image_losses(mean, asked_targets).mean(),
        "fit_s": fit_s,
    }


def rows_of(figures: dict[str, dict[str, dict[str, float]]]) -> list[list[Any]]:
    """Return a row for each number of images and method."""
    return [[most, method, *found.values()] for most, methods in figures.items() for method, found in methods.items()]


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="with a folder for each class in train/ and in test/")
    parser.add_argument("--weights", type=Path, required=True, help="folder of safetensors files")
    parser.add_argument("--images-per-class", nargs="+", default=["5", "20", "all"], help="numbers, or all")
    parser.add_argument("--draws", type=int, default=3, help="number of draws")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws")
    parser.add_argument("--json", type=Path, help="file for all measurements")
    given = parser.parse_args(argv)
    figures = figures_of(given)
    write_json(given.json, given, figures)
    heads = ["images a class", "method", "accuracy", "mean of networks", "log-loss", "of the mean", "s", "features s"]
    print(table(heads, rows_of(figures)))


if __name__ == "__main__":
    main()
