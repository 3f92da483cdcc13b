"""Linear probe: the last layer fitted to frozen features before anything else learns.

A logistic regression on the features of a pretrained network takes one pass over the images and no back-propagation,
and is often most of what a short training can win. Fine-tuning that starts from it does not have to unlearn a random
head (Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from saccade.data.batches import Images
from saccade.inference.classifier import Classifier
from saccade.tasks.problem import Problem
from saccade.training.probes.feature_cache import cached_features
from saccade.training.probes.robust import fit_robust_heads
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import Split

MAX_IMAGES = 4000
"""Images that a probe looks at; more make it slower than better."""

IMAGES_OF_CLASS = 5
"""As many for each class it looks at as well where an epoch has fewer."""


@dataclass(frozen=True)
class Probe:
    """A last layer that was fitted to frozen features.

    Attributes
    ----------
    figures : dict
        ``train_loss``, ``train_part`` (of the images that were seen) and, for classes, ``train_acc``; ``robust_loss``
        where labels were doubted.
    rows : ndarray of int64, shape (num_seen,)
        Which training images were seen, by their place in the split.
    penalty : float
        See `saccade.training.probes.heads.Head`.
    unseen : ndarray of float32, shape (num_seen, num_outputs), or None
        What a layer of that penalty says of each of them that has not learned from it; None without folds.
    robust_loss : float
        How much labels were doubted: the q of `saccade.training.probes.robust`.
    """

    figures: dict[str, float]
    rows: np.ndarray = field(repr=False)
    penalty: float
    unseen: np.ndarray | None = field(default=None, repr=False)
    robust_loss: float = 0.0


def fit_head(
    classifier: Classifier,
    images: Images,
    train: Split,
    seconds_left: Callable[[], float],
    seed: int = 0,
    weights: np.ndarray | None = None,
    *,
    robust_loss: float | None = 0.0,
    most_images: int | None = None,
) -> Probe | None:
    """Fit the network's last layer to the training images.

    Parameters
    ----------
    classifier : Classifier
        Its network's last layer is changed, when that is linear.
    images : Images
        Decoded images.
    train : Split
        Which of them to learn from.
    seconds_left : callable
        When it falls to 0, the images seen so far have to do.
    seed : int
        Draws the images.
    weights : ndarray or None
        Of all training images in the loss, as `saccade.training.imbalance.loss_weights` returned them.
    robust_loss : float or None
        See `saccade.training.probes.robust.fit_robust_heads`.
    most_images : int or None
        At most so many are looked at, drawn by `seed`; None is `MAX_IMAGES`.

    Returns
    -------
    Probe or None
        None where there is no linear last layer, or nothing to tell apart.

    Notes
    -----
    A multilabel problem is a logistic regression for each label, regression is ridge regression; the penalty is chosen
    by cross-validation: see `saccade.training.probes.heads.fit_heads`.
    """
    head = classifier.head
    if not isinstance(head, torch.nn.Linear):
        return None
    chosen = np.random.default_rng(seed).permutation(len(train.indices))[: most_images or MAX_IMAGES]
    features = cached_features(classifier, images, train.indices[chosen], seconds_left)
    chosen = chosen[: len(features)]
    of_chosen = None if weights is None else weights[chosen]
    targets = train.targets[chosen]
    if classifier.problem.has_one_class and len(np.unique(targets)) < 2:
        return None
    fitted, q = fit_robust_heads(features, targets, classifier.problem, robust_loss, of_chosen, seconds_left, seed=seed)
    with torch.no_grad():
        head.weight.copy_(torch.as_tensor(fitted.weight))
        if head.bias is not None:
            head.bias.copy_(torch.as_tensor(fitted.bias))
        outputs = head(torch.tensor(features, device=head.weight.device)).cpu()
    figures = _figures(classifier.problem, outputs, torch.as_tensor(targets), len(train.indices))
    if q:
        figures["robust_loss"] = q
    return Probe(figures, chosen, fitted.penalty, fitted.held_out, q)


def most_probed(recipe: Recipe, num_outputs: int) -> int:
    """Return how many images a probe looks at, where there are more: as many as an epoch has, or some of each class."""
    return min(MAX_IMAGES, max(recipe.images_per_epoch or MAX_IMAGES, IMAGES_OF_CLASS * num_outputs))


def outputs_of_frozen(
    classifier: Classifier, images: Images, indices: np.ndarray, seconds_left: Callable[[], float]
) -> np.ndarray:
    """Return what `Classifier.outputs` would return, by features that are kept for the next trial of the network.

    Parameters
    ----------
    classifier : Classifier
        Probed, and not trained since.
    images, indices, seconds_left
        As in `saccade.training.probes.feature_cache.cached_features`.
    """
    head = classifier.head
    assert isinstance(head, torch.nn.Linear)
    features = cached_features(classifier, images, indices, seconds_left)
    with torch.inference_mode():
        outputs: np.ndarray = head(torch.tensor(features, device=head.weight.device)).cpu().numpy()
    return outputs


def _figures(problem: Problem, outputs: torch.Tensor, targets: torch.Tensor, num_images: int) -> dict[str, float]:
    figures = {"train_loss": problem.loss(outputs, targets).item(), "train_part": len(targets) / num_images}
    if problem.has_classes:
        figures["train_acc"] = problem.num_right(outputs, targets) / len(targets)
    return figures
