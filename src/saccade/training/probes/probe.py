"""Linear probe: the classifier layer is fitted to frozen features before any training.

Logistic regression on the features of a pretrained network takes one forward pass, and often gives most of what a short
training can gain. Fine-tuning that starts from it does not have to undo a random classifier layer (Kumar et al.,
"Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import torch

from saccade.data.batches import Images
from saccade.data.splitting import stratified_order
from saccade.inference.classifier import Classifier, features_of
from saccade.models.network import classifier_parameters
from saccade.training.probes.robust import fit_robust_heads
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import Split

MAX_IMAGES = 4000  # images of a probe; more make it slower rather than better
IMAGES_OF_CLASS = 5  # images per class that a probe uses even if an epoch has fewer
MAX_BYTES = 256 * 2**20  # cached features of one image store; the least recently used are dropped first
LEAST_FOLDED = 64  # images from which batch norm folding saves more time than it takes

_cache: WeakKeyDictionary[Images, OrderedDict[bytes, np.ndarray]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Probe:
    """A classifier layer that was fitted to frozen features.

    `metrics` are ``train_loss``, ``train_part`` (1 unless time ran out before all features were computed) and, for
    classification, ``train_acc``; ``robust_loss`` if it is not 0.
    """

    metrics: dict[str, float]
    rows: np.ndarray = field(repr=False)  # the training images of the probe, as positions in the split
    penalty: float  # of its `Head`
    held_out: np.ndarray | None = field(default=None, repr=False)  # out-of-fold outputs for these images
    robust_loss: float = 0.0  # the q of `saccade.training.probes.robust`


def fit_head(
    classifier: Classifier,
    images: Images,
    train: Split,
    seconds_left: Callable[[], float],
    seed: int = 0,
    weights: np.ndarray | None = None,
    *,
    robust_loss: float | None = 0.0,
    max_images: int | None = None,
) -> Probe | None:
    """Fit the network's classifier layer to a stratified sample of the training images, at most `MAX_IMAGES`.

    If `seconds_left` falls to 0, the images seen so far are enough. `weights` of all training images are those of
    `saccade.training.imbalance.loss_weights`. Returns None without a linear classifier layer, or if all images have one
    class.
    """
    head, problem = classifier.head, classifier.problem
    if not isinstance(head, torch.nn.Linear):
        return None
    rows = stratified_order(problem.strata(train.targets), np.random.default_rng(seed))[: max_images or MAX_IMAGES]
    features = cached_features(classifier, images, train.indices[rows], seconds_left)
    part, rows = len(features) / len(rows), rows[: len(features)]
    targets = train.targets[rows]
    if problem.has_one_class and len(np.unique(targets)) < 2:
        return None
    row_weights = None if weights is None else weights[rows]
    fitted, q = fit_robust_heads(features, targets, problem, robust_loss, row_weights, seconds_left, seed=seed)
    with torch.no_grad():
        head.weight.copy_(torch.as_tensor(fitted.weight))
        if head.bias is not None:
            head.bias.copy_(torch.as_tensor(fitted.bias))
        outputs = head(torch.tensor(features, device=head.weight.device)).cpu()
    y = torch.as_tensor(targets)
    metrics = {"train_loss": problem.loss(outputs, y).item(), "train_part": part}
    if problem.has_classes:
        metrics["train_acc"] = problem.num_right(outputs, y) / len(targets)
    if q:
        metrics["robust_loss"] = q
    return Probe(metrics, rows, fitted.penalty, fitted.held_out, q)


def max_probe_images(recipe: Recipe, num_outputs: int) -> int:
    """Return the most images of a probe: as many as an epoch has, or a few per class, up to `MAX_IMAGES`."""
    return min(MAX_IMAGES, max(recipe.images_per_epoch or MAX_IMAGES, IMAGES_OF_CLASS * num_outputs))


def outputs_of_frozen(
    classifier: Classifier, images: Images, indices: np.ndarray, seconds_left: Callable[[], float]
) -> np.ndarray:
    """Return `Classifier.outputs` of a network with a probed head and an unchanged backbone, from cached features."""
    head = classifier.head
    assert isinstance(head, torch.nn.Linear)
    features = cached_features(classifier, images, indices, seconds_left)
    with torch.inference_mode():
        outputs: np.ndarray = head(torch.tensor(features, device=head.weight.device)).cpu().numpy()
    return outputs


def cached_features(
    classifier: Classifier,
    images: Images,
    indices: np.ndarray,
    seconds_left: Callable[[], float] = lambda: 1.0,
    *,
    max_bytes: int = MAX_BYTES,
) -> np.ndarray:
    """Return the features of some images, read-only; this process computes them once per backbone.

    A backbone is identified by a digest of its weights; the cache is dropped with the images, which do not change. If
    `seconds_left` falls to 0, the features of the first images are returned, and not cached.
    """
    key = _digest(classifier, indices)
    try:
        cached = _cache.setdefault(images, OrderedDict())
    except TypeError:  # a list, for example, which may change
        cached = OrderedDict()
    if key in cached:
        cached.move_to_end(key)
        return cached[key]
    if len(indices) >= LEAST_FOLDED:
        classifier.fuse()
    try:
        features = features_of(classifier, classifier.batches(images, indices), seconds_left)
    finally:
        classifier.unfuse()  # training will change its weights
    features.flags.writeable = False
    if len(features) == len(indices):
        cached[key] = features
        while sum(each.nbytes for each in cached.values()) > max_bytes:
            cached.popitem(last=False)
    return features


def _digest(classifier: Classifier, indices: np.ndarray) -> bytes:
    """Return a digest of everything that features depend on; for the weights it takes milliseconds."""
    digest = hashlib.blake2b(repr((classifier.blueprint, classifier.inference)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(indices).tobytes())
    head = classifier_parameters(classifier.network)
    for name, tensor in classifier.network.state_dict().items():
        if name not in head:
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    return digest.digest()
