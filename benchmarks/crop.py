"""Accuracy by the part of the shorter side that the central crop keeps.

    python -m benchmarks.crop --data DIR --weights DIR [--crops 1.0 0.875] [--folds 5] [--seed 0] [--json OUT]

For each network in the folder of weights, a logistic regression on its frozen features, fitted as a linear probe, by
cross-validation over all images of the data set (including `test/`), and the average of the probes of all networks.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import table, write_json
from saccade import ImageDataset
from saccade.data.store.decoded_images import decoded_images
from saccade.inference.classifier import features_of
from saccade.models.weights import networks_in_folder
from saccade.numerics.device import Numerics, choose_device
from saccade.tasks.problem import Problem
from saccade.training.probes.heads import HeadFitter
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe

MEAN = "mean of all"


def features(paths: list[str], network: str, crop_pct: float, weights: Path, problem: Problem) -> np.ndarray:
    """Return a network's features of images, of shape (num_images, num_features)."""
    recipe = Recipe.of({"model": network, "crop_pct": crop_pct})
    classifier = new_classifier(recipe, problem, Numerics.choose(choose_device(), amp=False), weights)
    spec = classifier.blueprint.input
    with tempfile.TemporaryDirectory() as folder:
        store = decoded_images(paths, Path(folder) / "store", shorter_side=round(spec.img_size / spec.crop_pct))
        classifier.fuse()
        return features_of(classifier, classifier.batches(store, np.arange(len(paths))))


def cross_validated(x: np.ndarray, targets: np.ndarray, fold: np.ndarray, problem: Problem) -> np.ndarray:
    """Return out-of-fold probabilities of a probe for each image."""
    found = np.zeros((len(x), problem.num_outputs), np.float32)
    for number in range(int(fold.max()) + 1):
        seen, here = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        head = HeadFitter(x[seen], targets[seen], problem).fit()
        outputs = x[here] @ head.weight.T + head.bias
        found[here] = problem.activate(torch.from_numpy(outputs)).numpy()
    return found


def accuracies(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return accuracies by crop and network."""
    parts = [ImageDataset.from_folder(path) for path in (given.data / "train", given.data / "test") if path.is_dir()]
    paths = [str(path) for part in parts for path in part["image"]]
    labels = [Path(path).parent.name for path in paths]
    problem = Problem.of(labels, "multiclass")
    targets = np.unique(labels, return_inverse=True)[1]
    order = np.lexsort([np.random.default_rng(given.seed).random(len(paths)), targets])
    fold = np.empty(len(paths), np.int64)
    fold[order] = np.arange(len(paths)) % given.folds
    found: dict[str, dict[str, float]] = {}
    for crop_pct in given.crops:
        said = {
            name: cross_validated(features(paths, name, crop_pct, given.weights, problem), targets, fold, problem)
            for name in networks_in_folder(given.weights)
        }
        said[MEAN] = np.mean(list(said.values()), axis=0)
        found[f"{crop_pct:g}"] = {name: float((rows.argmax(1) == targets).mean()) for name, rows in said.items()}
    return found


def rows_of(figures: dict[str, dict[str, float]]) -> list[list[Any]]:
    """Return a row for each network."""
    return [[name, *(found[name] for found in figures.values())] for name in next(iter(figures.values()))]


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="with a folder for each class in train/, and test/")
    parser.add_argument("--weights", type=Path, required=True, help="folder of safetensors files")
    parser.add_argument("--crops", type=float, nargs="+", default=[1.0, 0.875], help="values of crop_pct")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds")
    parser.add_argument("--json", type=Path, help="file for all measurements")
    given = parser.parse_args(argv)
    figures = accuracies(given)
    write_json(given.json, given, figures)
    print(table(["accuracy", *(f"crop_pct={crop}" for crop in figures)], rows_of(figures)))


if __name__ == "__main__":
    main()
