"""Linear probe: the last layer fitted to frozen features before anything else learns.

A logistic regression on the features of a pretrained network takes one pass over the images and no back-propagation,
and is often most of what a short training can win. Fine-tuning that starts from it does not have to unlearn a random
head (Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch

from saccade.data.batches import Images
from saccade.training.classifier import Classifier
from saccade.training.feature_cache import cached_features
from saccade.training.problem import Problem
from saccade.training.task import Split

MAX_IMAGES = 4000
"""Images that a probe looks at; more make it slower than better."""

INVERSE_PENALTY = 0.05
"""scikit-learn's C, for features scaled to a mean square of 1."""


def fit_head(
    classifier: Classifier,
    images: Images,
    train: Split,
    seconds_left: Callable[[], float],
    seed: int = 0,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Fit the network's last layer to the training images.

    Parameters
    ----------
    classifier : Classifier
        Its network's last layer is changed, when that is linear.
    images : Images
        Decoded images.
    train : Split
        Which of them to learn from; at most `MAX_IMAGES`, drawn by `seed`.
    seconds_left : callable
        When it falls to 0, the images seen so far have to do.
    seed : int
        Draws the images.
    weights : ndarray or None
        Of all training images in the loss, as `saccade.training.imbalance.loss_weights` returned them.

    Returns
    -------
    dict
        ``train_loss``, ``train_part`` (of the images that were seen) and, for classes, ``train_acc``; empty where there
        is no linear last layer, or nothing to tell apart.

    Notes
    -----
    A multilabel problem is a logistic regression for each label.
    """
    head = classifier.head
    if not isinstance(head, torch.nn.Linear):
        return {}
    chosen = np.random.default_rng(seed).permutation(len(train.indices))[:MAX_IMAGES]
    features = cached_features(classifier, images, train.indices[chosen], seconds_left)
    chosen = chosen[: len(features)]
    scale = np.sqrt(np.mean(features**2)) or 1.0
    of_chosen = None if weights is None else weights[chosen]
    fitted = _fitted(features / scale, train.targets[chosen], classifier.problem, of_chosen)
    if fitted is None:
        return {}
    weight, bias = fitted
    with torch.no_grad():
        head.weight.copy_(torch.as_tensor(weight / scale))
        if head.bias is not None:
            head.bias.copy_(torch.as_tensor(bias))
        outputs = head(torch.tensor(features, device=head.weight.device)).cpu()
    return _figures(classifier.problem, outputs, torch.as_tensor(train.targets[chosen]), len(train.indices))


def _figures(problem: Problem, outputs: torch.Tensor, targets: torch.Tensor, num_images: int) -> dict[str, float]:
    figures = {"train_loss": problem.loss(outputs, targets).item(), "train_part": len(targets) / num_images}
    if problem.is_classification:
        figures["train_acc"] = problem.num_right(outputs, targets) / len(targets)
    return figures


def _fitted(
    features: np.ndarray, targets: np.ndarray, problem: Problem, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return weight and bias of a linear model for the problem; None when there is nothing to tell apart."""
    if problem.type == "multilabel":
        return _logistic_by_label(features, targets, weights)
    if problem.is_classification:
        return _logistic(features, targets, problem.num_outputs, weights)
    from sklearn.linear_model import Ridge  # a second to import, which a worker without a probe need not spend

    ridge = Ridge(1 / INVERSE_PENALTY).fit(features, targets, weights)
    return ridge.coef_[None], np.asarray([ridge.intercept_])


def _logistic_by_label(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias with a row for each label: whether an image has it."""
    num_labels = targets.shape[1]
    weight, bias = np.zeros((num_labels, features.shape[1])), np.zeros(num_labels)
    for label in range(num_labels):
        has_label = (targets[:, label] > 0).astype(int)
        fitted = _logistic(features, has_label, 2, None if weights is None else weights[:, label])
        if fitted is None:  # all images have it, or none: as sure as their number allows
            num_with = has_label.sum()
            bias[label] = np.log((num_with + 0.5) / (len(targets) - num_with + 0.5))
        else:
            weight[label], bias[label] = fitted[0][1] - fitted[0][0], fitted[1][1] - fitted[1][0]
    return weight, bias


def _logistic(
    features: np.ndarray, targets: np.ndarray, num_classes: int, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return weight and bias of a logistic regression for all classes; None when only one class was seen."""
    if weights is not None:
        counts = weights > 0
        features, targets, weights = features[counts], targets[counts], weights[counts]
    known = np.unique(targets)
    if len(known) < 2:
        return None
    from sklearn.exceptions import ConvergenceWarning  # as above
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a head to start from need not be the very best one
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=200).fit(features, targets, weights)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(known) == 2:  # scikit-learn keeps one row for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight, bias = np.zeros((num_classes, features.shape[1])), np.full(num_classes, intercepts.min() - 5.0)
    weight[known], bias[known] = coefficients, intercepts
    return weight, bias
