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
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from saccade.data.batches import Images
from saccade.training.classifier import Classifier
from saccade.training.features import features_of
from saccade.training.task import Split

MAX_IMAGES = 4000
"""Images that a probe looks at; more make it slower than better."""

INVERSE_PENALTY = 0.05
"""scikit-learn's C for features scaled to a mean square of 1; the middle of a wide plateau on photos."""


def fit_head(
    classifier: Classifier, images: Images, train: Split, seconds_left: Callable[[], float], seed: int = 0
) -> bool:
    """Fit the network's last layer to the training images; tell whether that was possible.

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
    """
    head = classifier.head
    if not isinstance(head, torch.nn.Linear) or classifier.problem.type == "multilabel":
        return False
    chosen = np.random.default_rng(seed).permutation(len(train.indices))[:MAX_IMAGES]
    features = features_of(classifier, classifier.batches(images, train.indices[chosen]), seconds_left)
    targets = train.targets[chosen][: len(features)]
    scale = np.sqrt(np.mean(features**2)) or 1.0
    if classifier.problem.is_classification:
        fitted = _logistic(features / scale, targets, classifier.problem.num_outputs)
    else:
        ridge = Ridge(1 / INVERSE_PENALTY).fit(features / scale, targets)
        fitted = ridge.coef_[None], np.asarray([ridge.intercept_])
    if fitted is None:
        return False
    weight, bias = fitted
    with torch.no_grad():
        head.weight.copy_(torch.as_tensor(weight / scale))
        if head.bias is not None:
            head.bias.copy_(torch.as_tensor(bias))
    return True


def _logistic(features: np.ndarray, targets: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return weight and bias of a logistic regression for all classes; None when only one class was seen."""
    known = np.unique(targets)
    if len(known) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a head to start from need not be the very best one
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=200).fit(features, targets)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(known) == 2:  # scikit-learn keeps one row for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight, bias = np.zeros((num_classes, features.shape[1])), np.full(num_classes, intercepts.min() - 5.0)
    weight[known], bias[known] = coefficients, intercepts
    return weight, bias
