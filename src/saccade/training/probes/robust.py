"""Linear probes with generalised cross entropy, a loss that is robust to wrong labels.

The gradient of cross entropy is largest for images whose labels have a small predicted probability, among them wrong
labels. Generalised cross entropy multiplies the gradient by ``p ** q``, p being the probability of the label:
``q = 0`` is cross entropy, ``q = 1`` the mean absolute error, which is robust but slow to optimise (Zhang and Sabuncu,
"Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels", NeurIPS 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from saccade.data.splitting import Groups
from saccade.space import Dict
from saccade.tasks.problem import Problem
from saccade.training.probes.heads import NUM_FOLDS, PENALTIES, Head, HeadFitter
from saccade.training.recipes.recipe import choices

AUTO_Q = 0.7
"""The q of Zhang and Sabuncu, used if labels are found to be wrong."""

NUM_ROUNDS = 2
"""Reweighted fits after the first; the weights come from the out-of-fold predictions of the fit before."""

IMPOSSIBLE = 0.02
"""Out-of-fold probability below which a label may be wrong."""

NUM_ERRORS = 2.0
"""Standard errors by which the robust fit must be more accurate."""


def belief_weights(
    held_out: np.ndarray, targets: np.ndarray, problem: Problem, q: float, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return image weights with which cross entropy has the gradient of generalised cross entropy; their mean is 1.

    They come from out-of-fold outputs, which cannot have memorised a wrong label, and are multiplied with `weights`.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> belief_weights(np.array([[2.0, 0.0], [0.0, 2.0]]), np.array([0, 0]), problem, 1.0).round(2)
    array([1.76, 0.24], dtype=float32)
    """
    probabilities = problem.activate(torch.as_tensor(held_out)).numpy()
    # Probability of each label, to the power of q, scaled to a mean of 1.
    believed = problem.loss_terms(probabilities, targets)
    doubted = (believed[:, 0] if problem.has_one_class else believed) ** q
    doubted = doubted / doubted.mean()
    return np.asarray(doubted if weights is None else (doubted.T * weights.T).T, np.float32)


def fit_robust_heads(
    features: np.ndarray,
    targets: np.ndarray,
    problem: Problem,
    q: float | None,
    weights: np.ndarray | None = None,
    seconds_left: Callable[[], float] = lambda: 1.0,
    *,
    penalties: Sequence[float] = PENALTIES,
    num_folds: int = NUM_FOLDS,
    seed: int = 0,
    groups: Groups = None,
) -> tuple[Head, float]:
    """Fit a linear head by `fit_heads`, and again with images weighted by the probability of their labels.

    Returns the head and its q, as in `Problem.loss`; 0, or no folds, is a single fit. None is `AUTO_Q` if labels
    `look_wrong` and the robust head has a better out-of-fold accuracy by `NUM_ERRORS` standard errors, else 0. Labels
    that are wrong at random lower the accuracy of all heads alike, so it still ranks them (Ghosh et al., "Making risk
    minimization tolerant to label noise", Neurocomputing 2015).
    """
    fitter = HeadFitter(features, targets, problem, groups)
    first = fitter.fit(weights, seconds_left, penalties=penalties, num_folds=num_folds, seed=seed)
    is_automatic = q is None
    if q is None:
        q = AUTO_Q if look_wrong(first.held_out, targets, problem) else 0.0
    head = first
    for _ in range(NUM_ROUNDS if q else 0):
        if head.held_out is None or seconds_left() <= 0:
            break
        believed = belief_weights(head.held_out, targets, problem, q, weights)
        head = fitter.fit(believed, seconds_left, penalties=(head.penalty,), num_folds=num_folds, seed=seed)
    if head is first or (is_automatic and not _is_right_more_often(head, first, targets)):
        return first, 0.0
    return head, q


def look_wrong(held_out: np.ndarray | None, targets: np.ndarray, problem: Problem) -> bool:
    """Return whether labels of very small probability are more frequent than the model predicts.

    False without out-of-fold outputs, and for problems without one class per image.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> held_out, targets = np.array([[5.0, 0.0]] * 100), np.zeros(100, int)
    >>> look_wrong(held_out, targets, problem)
    False
    >>> targets[:10] = 1
    >>> look_wrong(held_out, targets, problem)
    True
    """
    if held_out is None or not problem.has_one_class:
        return False
    probabilities = problem.activate(torch.as_tensor(held_out)).numpy()
    given = probabilities[np.arange(len(targets)), targets] < IMPOSSIBLE
    expected = np.where(probabilities < IMPOSSIBLE, probabilities, 0).sum(1)
    return bool(given.mean() > expected.mean())


def _is_right_more_often(head: Head, other: Head, targets: np.ndarray) -> bool:
    """Compare out-of-fold accuracies: a paired test over the images."""
    if head.held_out is None or other.held_out is None:
        return False
    gain = (head.held_out.argmax(1) == targets).astype(np.float64) - (other.held_out.argmax(1) == targets)
    return bool(gain.mean() > NUM_ERRORS * gain.std() / np.sqrt(len(gain)))


def check_robust_loss(space: Dict, problem: Problem) -> None:
    """Raise a HyperparameterError if a search space has a robust loss for a regression problem."""
    if any(choices(space, "robust_loss")):
        problem.require_classes("robust_loss")
