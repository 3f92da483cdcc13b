"""Generalised cross entropy: a loss that wrong labels mislead less.

Cross entropy asks the most of a network for the images whose labels it believes least, and among these are the wrong
ones. Here an image's gradient is that of cross entropy times ``p ** q``, p being the probability of its label: with
``q = 0`` it is cross entropy, with ``q = 1`` the mean absolute error, which minds no wrong labels but learns slowly
(Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels", NeurIPS 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from saccade.space import Dict
from saccade.tasks.problem import Problem
from saccade.training.probes.heads import NUM_FOLDS, PENALTIES, Head, HeadFitter
from saccade.training.recipes.recipe import choices

AUTO_Q = 0.7
"""The q of Zhang and Sabuncu, which is taken where labels turn out to be wrong."""

NUM_ROUNDS = 2
"""Fits after the first, each by what the one before it believes."""

IMPOSSIBLE = 0.02
"""Probability below which a label looks wrong."""

NUM_ERRORS = 2.0
"""Standard errors by which it must be better to doubt labels."""


def belief_weights(
    held_out: np.ndarray, targets: np.ndarray, problem: Problem, q: float, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return how much each image counts in a cross entropy whose gradient is that of the generalised one.

    Parameters
    ----------
    held_out : ndarray, shape (num_images, num_outputs)
        Outputs of models that have not seen the image: they cannot have learned a wrong label by heart.
    targets : ndarray
        What `Problem.encode` returned.
    problem : Problem
        Of classes.
    q : float
        As in `Problem.loss`.
    weights : ndarray or None, shape (num_images,) or (num_images, num_labels)
        How much each would count if it were believed.

    Returns
    -------
    ndarray of float32, shape (num_images,), or (num_images, num_classes) for multilabel problems
        Without `weights`, their mean is 1.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> belief_weights(np.array([[2.0, 0.0], [0.0, 2.0]]), np.array([0, 0]), problem, 1.0).round(2)
    array([1.76, 0.24], dtype=float32)
    """
    probabilities = problem.activate(torch.as_tensor(held_out)).numpy()
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
) -> tuple[Head, float]:
    """Fit a linear head by `fit_heads`, and again with images that count by how far their labels are believed.

    Parameters
    ----------
    q : float or None
        As in `Problem.loss`; 0 leaves it at one fit. None is `AUTO_Q` if labels `look_wrong` and heads that doubt them
        are right more often about images that they have not seen, by more than chance (`NUM_ERRORS`); else 0. Labels
        that are wrong at random lower the accuracy of all heads alike, so that it tells the better one all the same
        (Ghosh et al., "Making risk minimization tolerant to label noise", Neurocomputing 2015).
    features, targets, problem, weights, seconds_left, penalties, num_folds, seed
        As in `saccade.training.probes.heads.fit_heads`. Without folds nobody knows what to believe.

    Returns
    -------
    Head, float
        The head, and the q that it was fitted with.
    """
    fitter = HeadFitter(features, targets, problem)
    first = fitter.fit(weights, seconds_left, penalties=penalties, num_folds=num_folds, seed=seed)
    has_to_look = q is None
    if q is None:
        q = AUTO_Q if look_wrong(first.held_out, targets, problem) else 0.0
    head = first
    for _ in range(NUM_ROUNDS if q else 0):
        if head.held_out is None or seconds_left() <= 0:
            break
        believed = belief_weights(head.held_out, targets, problem, q, weights)
        head = fitter.fit(believed, seconds_left, penalties=(head.penalty,), num_folds=num_folds, seed=seed)
    if head is first or (has_to_look and not _is_right_more_often(head, first, targets)):
        return first, 0.0
    return head, q


def look_wrong(held_out: np.ndarray | None, targets: np.ndarray, problem: Problem) -> bool:
    """Tell whether labels that models hold for nearly impossible are given more often than these models expect.

    Parameters
    ----------
    held_out, targets, problem
        As in `belief_weights`; None is no. Nor is it told of problems other than those of one class an image.

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
    """Compare by images that neither has seen."""
    if head.held_out is None or other.held_out is None:
        return False
    gain = (head.held_out.argmax(1) == targets).astype(np.float64) - (other.held_out.argmax(1) == targets)
    return bool(gain.mean() > NUM_ERRORS * gain.std() / np.sqrt(len(gain)))


def check_robust_loss(space: Dict, problem: Problem) -> None:
    """See that a search space asks for a robust loss only where there are classes.

    Raises
    ------
    HyperparameterError
        When it does for a regression problem.
    """
    if any(choices(space, "robust_loss")):
        problem.require_classes("robust_loss")
