"""Pseudo-labels for images without labels: those of labelled images, propagated on a graph of frozen features.

Each image is linked to its nearest neighbours by the features of several networks. Labels, and for other images the
probabilities of linear probes, spread along these links (Zhou et al., "Learning with local and global consistency",
NeurIPS 2003), and classes get the frequencies that they have among the labels. Heads that are
fitted to all images then are compared with heads that are fitted to the labelled ones alone, out of fold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse  # type: ignore[import-untyped]

from saccade.data.splitting import Groups, split_folds
from saccade.inference.calibration import Calibration, fit_calibration
from saccade.tasks.problem import Problem
from saccade.training.probes.heads import DEFAULT_PENALTY, HeadFitter

# Chosen on clothing10 and fashion_mnist_3k, with 5 and 20 labels of each class (`benchmarks.unlabeled`).
NUM_NEIGHBOURS = 10
SPREAD = 0.3  # part of an image's labels that comes from its neighbours in each step
PROBE_WEIGHT = 0.3  # of the probabilities of probes, relative to a label
NUM_STEPS = 15  # after which less than SPREAD ** NUM_STEPS changes

NUM_AXES = 256  # principal axes of the features of each network
NUM_FOLDS, NUM_REPEATS = 3, 2
NUM_ERRORS = 1.0  # standard errors by which the out-of-fold log-loss must be better
MAX_SIMILARITIES = 2**24  # that are in memory at once


@dataclass(frozen=True)
class PseudoLabels:
    """Labels of images without labels, and whether they help."""

    targets: np.ndarray  # class numbers, int64 of shape (num_unlabelled,)
    confidence: np.ndarray  # the largest propagated probability of each, float32
    loss: float  # calibrated out-of-fold log-loss of the labelled images, by heads that are fitted to these alone
    loss_with: float  # the same of heads that are fitted to pseudo-labels as well
    error: float  # standard error of the difference

    @property
    def are_better(self) -> bool:
        """Whether the loss with them is lower by more than `NUM_ERRORS` standard errors."""
        return self.loss - self.loss_with > NUM_ERRORS * self.error


def pseudo_labels(
    features: Sequence[np.ndarray],
    targets: np.ndarray,
    problem: Problem,
    groups: Groups = None,
    seconds_left: Callable[[], float] = lambda: 1.0,
) -> PseudoLabels | None:
    """Return labels for the images after the first ones, which have the `targets`; None without time or enough images.

    `features` are arrays of shape (num_images, num_features), one of each network. Each image has one class.
    """
    num_labelled, num_images = len(targets), len(features[0])
    strata = problem.strata(targets)
    if num_images - num_labelled < 1 or num_images <= NUM_NEIGHBOURS or np.bincount(strata).max() < 2:
        return None
    reduced = [_principal(each) for each in features]
    links = _links(reduced)

    def spread(known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities by heads that are fitted to the `known` images, and propagated ones."""
        probabilities = _predictions(reduced, known, targets[known], problem)
        given = PROBE_WEIGHT * probabilities
        given[known] = np.eye(problem.num_outputs)[targets[known]]
        found = given
        for _ in range(NUM_STEPS):
            found = SPREAD * (links @ found) + (1 - SPREAD) * given
        found = np.maximum(found, 1e-12)
        frequency = np.bincount(targets[known], minlength=problem.num_outputs) / len(known)
        found = found * (frequency / found.sum(0))
        found /= found.sum(1, keepdims=True)
        found[known] = np.eye(problem.num_outputs)[targets[known]]
        return probabilities, found

    without, with_ = np.zeros((2, num_labelled, problem.num_outputs))
    for repeat in range(NUM_REPEATS):
        folds = split_folds(strata, NUM_FOLDS, np.random.default_rng(repeat), groups)
        for fold in range(int(folds.max()) + 1):
            if seconds_left() <= 0:
                return None
            here, known = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            probabilities, found = spread(known)
            without[here] += probabilities[here] / NUM_REPEATS
            everything = np.arange(num_images)
            again = _predictions(reduced, everything, found.argmax(1), problem, found.max(1))
            with_[here] += again[here] / NUM_REPEATS
    losses = [_calibrated_losses(each, targets, problem) for each in (without, with_)]
    difference = losses[0] - losses[1]
    _, found = spread(np.arange(num_labelled))
    return PseudoLabels(
        found[num_labelled:].argmax(1),
        found[num_labelled:].max(1).astype(np.float32),
        float(losses[0].mean()),
        float(losses[1].mean()),
        float(difference.std(ddof=1) / math.sqrt(num_labelled)),
    )


def _principal(features: np.ndarray) -> np.ndarray:
    """Return the features in their largest principal axes, (num_images, rank)."""
    x = features.astype(np.float32) - features.mean(0, dtype=np.float64).astype(np.float32)
    _, axes = np.linalg.eigh(x.T @ x)
    return np.asarray(x @ axes[:, -NUM_AXES:])


def _links(features: Sequence[np.ndarray]) -> sparse.csr_matrix:
    """Return the symmetrically normalised weights of links between neighbours, (num_images, num_images)."""

    def unit(x: np.ndarray) -> np.ndarray:
        return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))

    x = unit(np.concatenate([unit(each) for each in features], axis=1))
    num = len(x)
    rows, columns, weights = [], [], []
    for part in np.array_split(np.arange(num), max(1, num * num // MAX_SIMILARITIES)):
        similarity = x[part] @ x.T
        similarity[np.arange(len(part)), part] = -1  # no image is its own neighbour
        nearest = np.argpartition(-similarity, NUM_NEIGHBOURS, axis=1)[:, :NUM_NEIGHBOURS]
        rows.append(np.repeat(part, NUM_NEIGHBOURS))
        columns.append(nearest.ravel())
        weights.append(np.maximum(np.take_along_axis(similarity, nearest, 1), 0).ravel() ** 3)
    place = np.concatenate(rows), np.concatenate(columns)
    links = sparse.csr_matrix((np.concatenate(weights), place), shape=(num, num))
    links = links.maximum(links.T)
    scale = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(links.sum(1)).ravel(), 1e-12)))
    return scale @ links @ scale


def _predictions(
    features: Sequence[np.ndarray],
    known: np.ndarray,
    targets: np.ndarray,
    problem: Problem,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Return the mean probabilities of a head for each network, fitted to the `known` images; float64.

    Without `weights` the penalty is cross-validated; with them, targets are pseudo-labels, which would choose a small
    one.
    """
    options: dict[str, Any] = {}
    if weights is not None:
        weights = (weights / weights.mean()).astype(np.float32)
        options = {"penalties": (DEFAULT_PENALTY,), "num_folds": 1}
    total = np.zeros((len(features[0]), problem.num_outputs))
    for each in features:
        head = HeadFitter(each[known], targets, problem).fit(weights, **options)
        outputs = torch.from_numpy(each @ head.weight.T + head.bias)
        total += problem.activate(outputs).numpy() / len(features)
    return total


def _calibrated_losses(predictions: np.ndarray, targets: np.ndarray, problem: Problem) -> np.ndarray:
    """Return the log-loss of each image after calibration by a temperature."""
    temperature = fit_calibration(predictions, targets, problem).temperature
    return problem.image_losses(Calibration(temperature).apply(predictions, problem), targets)
