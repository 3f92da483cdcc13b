"""Ways to use the frozen features of several networks: means of probes, stacking, a concatenated head, class means.

    python -m benchmarks.heads --data DIR --weights DIR [--draws 4] [--held-out] [--json OUT]

The features of all images are computed once. Then heads are fitted to so many training images of each class, drawn
anew each time, and evaluated on the images in `test/`; with `--held-out` on a third of `train/`, so that choice and
report use different images. The table has the mean accuracy and log-loss of each way, and the mean
difference to ensemble selection with its standard error over the draws; ``all`` are 9 of 10 training images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.crop import features
from benchmarks.measuring import table, write_json
from benchmarks.probes import drawn, read
from saccade.inference.calibration import Calibration, fit_calibration
from saccade.inference.postprocessing import weighted_mean
from saccade.models.weights import networks_in_folder
from saccade.selection.ensemble import select_weights
from saccade.tasks.problem import Problem
from saccade.training.probes.heads import HeadFitter

SELECTED = "ensemble selection"
Rows = tuple[np.ndarray, np.ndarray]
"""Predictions for the training images, out of fold, and for the test images."""


def methods_of(
    x: list[np.ndarray], train: np.ndarray, test: np.ndarray, y: np.ndarray, problem: Problem
) -> dict[str, Rows]:
    """Return the predictions of each way; `x` has the features of all images by each network."""

    def activated(outputs: np.ndarray) -> np.ndarray:
        return problem.activate(torch.from_numpy(np.ascontiguousarray(outputs, np.float32))).numpy()

    def probe(features: np.ndarray) -> Rows:
        head = HeadFitter(features[train], y[train], problem).fit()
        assert head.held_out is not None
        rows = activated(head.held_out), activated(features[test] @ head.weight.T + head.bias)
        temperature = Calibration(fit_calibration(rows[0], y[train], problem).temperature)
        return temperature.apply(rows[0], problem), temperature.apply(rows[1], problem)

    def both(combine: Callable[[list[np.ndarray]], np.ndarray]) -> Rows:
        return combine([each[0] for each in probes]), combine([each[1] for each in probes])

    probes = [probe(features) for features in x]
    weights = select_weights([each[0] for each in probes], y[train], problem)
    units = [features / np.linalg.norm(features, axis=1, keepdims=True) for features in x]
    together = np.concatenate([each / each[train].std(0).mean() for each in units], 1)
    logs = np.zeros((len(y), len(x) * problem.num_outputs), np.float32)
    logs[train], logs[test] = both(lambda rows: np.log(np.clip(np.concatenate(rows, 1), 1e-6, 1)))
    centred = together - together[train].mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    means = np.stack([centred[train][y[train] == number].mean(0) for number in range(problem.num_outputs)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    best = max(range(len(x)), key=lambda number: (probes[number][0].argmax(1) == y[train]).mean())
    return {
        "the best probe": probes[best],
        SELECTED: both(lambda rows: weighted_mean(rows, weights)),
        "equal weights": both(lambda rows: np.mean(rows, axis=0)),
        "mean of log-probabilities": both(
            lambda rows: activated(sum(w * np.log(np.clip(row, 1e-9, 1)) for w, row in zip(weights, rows, strict=True)))
        ),
        "stacking": probe(logs),
        "concatenated features": probe(together),
        "nearest class mean": (activated(10 * centred[train] @ means.T), activated(10 * centred[test] @ means.T)),
    }


def figures_of(given: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Return figures by images per class and method."""
    (paths, labels), (test_paths, test_labels) = read(given.data / "train"), read(given.data / "test")
    problem = Problem.of(labels, "multiclass")
    y, num_train = problem.encode([*labels, *test_labels]), len(paths)
    names = given.networks or networks_in_folder(given.weights)
    x = [features(paths + test_paths, name, 1.0, given.weights, problem) for name in names]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for most in given.images_per_class:
        draws: dict[str, list[tuple[float, float]]] = {}
        for number in range(given.draws):
            rng = np.random.default_rng([given.seed, number])
            pool, test = rng.permutation(num_train), np.arange(num_train, len(y))
            if given.held_out:
                test, pool = pool[: num_train // 3], pool[num_train // 3 :]
            train = pool[: round(0.9 * len(pool))] if most == "all" else pool[drawn(y[pool], int(most), rng)]
            for name, (seen, rows) in methods_of(x, train, test, y, problem).items():
                temperature = Calibration(fit_calibration(seen, y[train], problem).temperature)
                loss = problem.image_losses(temperature.apply(rows, problem), y[test]).mean()
                draws.setdefault(name, []).append(((rows.argmax(1) == y[test]).mean(), loss))
        found[most] = {}
        for name, each in draws.items():
            gain, error = [], []
            for values, base in zip(np.array(each).T, np.array(draws[SELECTED]).T, strict=True):
                gain.append(float((values - base).mean()))
                error.append(float((values - base).std(ddof=1) / len(each) ** 0.5) if len(each) > 1 else 0.0)
            accuracy, loss = np.mean(each, axis=0).tolist()
            found[most][name] = {
                "accuracy": accuracy, "gain": gain[0], "gain_error": error[0],
                "log_loss": loss, "loss_gain": gain[1], "loss_error": error[1],
            }  # fmt: skip
    return found


def rows_of(figures: dict[str, dict[str, dict[str, float]]]) -> list[list[Any]]:
    """Return a row for each number of images and method."""
    return [[f"{most}, {name}", *found.values()] for most, ways in figures.items() for name, found in ways.items()]


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="with a folder for each class in train/ and in test/")
    parser.add_argument("--weights", type=Path, required=True, help="folder of safetensors files")
    parser.add_argument("--networks", nargs="+", help="names; without them all in the folder of weights")
    parser.add_argument("--images-per-class", nargs="+", default=["5", "20", "all"], help="numbers, or all")
    parser.add_argument("--draws", type=int, default=4, help="number of draws")
    parser.add_argument("--held-out", action="store_true", help="evaluate on a third of the training images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws")
    parser.add_argument("--json", type=Path, help="file for all measurements")
    given = parser.parse_args(argv)
    figures = figures_of(given)
    write_json(given.json, given, figures)
    heads = ["images a class, way", "accuracy", "gain", "its error", "log-loss", "difference", "its error"]
    print(table(heads, rows_of(figures)))


if __name__ == "__main__":
    main()
