"""Linear probe: the last layer fitted to frozen features before anything else learns.

A logistic regression on the features of a pretrained network takes one pass over the images and no back-propagation,
and is often most of what a short training can win. Fine-tuning that starts from it does not have to unlearn a random
head (Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from saccade.data.batches import Images
from saccade.training.classifier import Classifier
from saccade.training.feature_cache import cached_features
from saccade.training.heads import fit_heads
from saccade.training.problem import Problem
from saccade.training.task import Split

MAX_IMAGES = 4000
"""Images that a probe looks at; more make it slower than better."""

MAX_NUMBERS = 500_000
"""Outputs for training images that are kept of a probe; with many classes, those of fewer images."""


@dataclass(frozen=True)
class Probe:
    """A last layer that was fitted to frozen features.

    Attributes
    ----------
    figures : dict
        ``train_loss``, ``train_part`` (of the images that were seen) and, for classes, ``train_acc``.
    rows : ndarray of int64, shape (num_seen,)
        Which training images were seen, by their place in the split.
    penalty : float
        See `saccade.training.heads.Head`.
    unseen : ndarray of float32, shape (num_seen, num_outputs), or None
        What a layer of that penalty says of each of them that has not learned from it; None without folds.
    """

    figures: dict[str, float]
    rows: np.ndarray = field(repr=False)
    penalty: float
    unseen: np.ndarray | None = field(default=None, repr=False)


def fit_head(
    classifier: Classifier,
    images: Images,
    train: Split,
    seconds_left: Callable[[], float],
    seed: int = 0,
    weights: np.ndarray | None = None,
) -> Probe | None:
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
    Probe or None
        None where there is no linear last layer, or nothing to tell apart.

    Notes
    -----
    A multilabel problem is a logistic regression for each label, regression is ridge regression; the penalty is chosen
    by cross-validation: see `saccade.training.heads.fit_heads`.
    """
    head = classifier.head
    if not isinstance(head, torch.nn.Linear):
        return None
    chosen = np.random.default_rng(seed).permutation(len(train.indices))[:MAX_IMAGES]
    features = cached_features(classifier, images, train.indices[chosen], seconds_left)
    chosen = chosen[: len(features)]
    of_chosen = None if weights is None else weights[chosen]
    targets = train.targets[chosen]
    if classifier.problem.type in ("binary", "multiclass") and len(np.unique(targets)) < 2:
        return None
    fitted = fit_heads(features, targets, classifier.problem, of_chosen, seconds_left, seed=seed)
    with torch.no_grad():
        head.weight.copy_(torch.as_tensor(fitted.weight))
        if head.bias is not None:
            head.bias.copy_(torch.as_tensor(fitted.bias))
        outputs = head(torch.tensor(features, device=head.weight.device)).cpu()
    figures = _figures(classifier.problem, outputs, torch.as_tensor(targets), len(train.indices))
    return Probe(figures, chosen, fitted.penalty, fitted.held_out)


def outputs_of_frozen(
    classifier: Classifier, images: Images, indices: np.ndarray, seconds_left: Callable[[], float]
) -> np.ndarray:
    """Return what `Classifier.outputs` would return, by features that are kept for the next trial of the network.

    Parameters
    ----------
    classifier : Classifier
        Probed, and not trained since.
    images, indices, seconds_left
        As in `saccade.training.feature_cache.cached_features`.
    """
    head = classifier.head
    assert isinstance(head, torch.nn.Linear)
    features = cached_features(classifier, images, indices, seconds_left)
    with torch.inference_mode():
        outputs: np.ndarray = head(torch.tensor(features, device=head.weight.device)).cpu().numpy()
    return outputs


@dataclass(frozen=True)
class FinalProbe:
    """All that there is to know of a probe at the end of a search, whatever has become of the network meanwhile.

    Attributes
    ----------
    rows : ndarray of int64, shape (num_seen,)
        Training images, by their place in the split.
    unseen : ndarray of float32, shape (num_seen, num_outputs)
        What a layer says of each of them that has not learned from it, as `Problem.activate` takes it.
    outputs : ndarray of float32, shape (num_val, num_outputs)
        What the probe says of the validation images.
    layer : str
        The name of the last layer in the network.
    weight, bias : ndarray of float32, shape (num_outputs, num_features) and (num_outputs,)
        Of the last layer for the predictor, which may have learned from the validation images as well.
    """

    rows: np.ndarray
    unseen: np.ndarray
    outputs: np.ndarray
    layer: str
    weight: np.ndarray
    bias: np.ndarray

    def save(self, path: Path) -> None:
        """Write a file that is whole, or not there."""
        temporary = path.with_name(path.name + ".part")
        with temporary.open("wb") as file:
            np.savez(file, **vars(self))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> FinalProbe | None:
        """Read what `save` wrote; None where there is none, or it was cut short."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return cls(**{name: file[name] for name in file.files} | {"layer": str(file["layer"])})
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile):
            return None

    def applied_to(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights of a network with this last layer in the place of its own."""
        layer = {"weight": torch.tensor(self.weight).contiguous(), "bias": torch.tensor(self.bias)}
        named = {f"{self.layer}.{name}": tensor for name, tensor in layer.items()}
        return state | {name: tensor for name, tensor in named.items() if name in state}


def final_probe(
    classifier: Classifier,
    images: Images,
    train: Split,
    val: Split,
    probe: Probe,
    outputs: np.ndarray,
    *,
    learns_from_val: bool,
    weights: np.ndarray | None = None,
) -> FinalProbe | None:
    """Return what is to be known of a probe in the end, from features that are kept already.

    Parameters
    ----------
    classifier, images, train
        Those of the probe; the network is not changed.
    val : Split
        The images that judged the probe.
    probe : Probe
        Its penalty is used again.
    outputs : ndarray
        What it says of them.
    learns_from_val : bool
        Whether the last layer is to be fitted to all images. Where there are more than a probe looks at, it is not.
    weights : ndarray or None
        Of all images in the loss, those of `val` last.

    Returns
    -------
    FinalProbe or None
        None without folds, for which there were too few images, or too little time.
    """
    head = classifier.head
    if probe.unseen is None or not isinstance(head, torch.nn.Linear):
        return None
    layer = next(name for name, module in classifier.network.named_modules() if module is head)
    weight = head.weight.detach().float().cpu().numpy()
    bias = np.zeros(len(weight), np.float32) if head.bias is None else head.bias.detach().float().cpu().numpy()
    if learns_from_val and len(probe.rows) == len(train.indices):
        parts = [cached_features(classifier, images, indices) for indices in (train.indices[probe.rows], val.indices)]
        targets = np.concatenate([train.targets[probe.rows], val.targets])
        if weights is not None:
            weights = np.concatenate([weights[probe.rows], weights[len(train.indices) :]])
        features, penalties = np.concatenate(parts), (probe.penalty,)
        fitted = fit_heads(features, targets, classifier.problem, weights, penalties=penalties, num_folds=1)
        weight, bias = fitted.weight, fitted.bias
    most = max(1, MAX_NUMBERS // probe.unseen.shape[1])
    return FinalProbe(probe.rows[:most], probe.unseen[:most], outputs, layer, weight, bias)


def _figures(problem: Problem, outputs: torch.Tensor, targets: torch.Tensor, num_images: int) -> dict[str, float]:
    figures = {"train_loss": problem.loss(outputs, targets).item(), "train_part": len(targets) / num_images}
    if problem.is_classification:
        figures["train_acc"] = problem.num_right(outputs, targets) / len(targets)
    return figures
