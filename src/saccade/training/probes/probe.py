"""Linear probe: the classifier layer is fitted to frozen features before any training.

Logistic regression on the features of a pretrained network takes one forward pass, and often gives most of what a short
training can gain. Fine-tuning that starts from it does not have to undo a random classifier layer (Kumar et al.,
"Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022).
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import torch

from saccade.data.batches import Images
from saccade.data.splitting import stratified_order
from saccade.data.store.feature_cache import FeatureCache
from saccade.data.store.store import ImageStore
from saccade.inference.classifier import Classifier, features_of
from saccade.numerics.engine import EXPORT_S
from saccade.training.probes.heads import fit_robust_heads
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask, Split

MAX_IMAGES = 4000  # images of a probe; more make it slower rather than better
IMAGES_OF_CLASS = 5  # images per class that a probe uses even if an epoch has fewer
MAX_BYTES = 256 * 2**20  # cached features of one image store; the least recently used are dropped first
LEAST_FOLDED = 64  # images from which batch norm folding saves more time than it takes

# Features by image, of each network; a network has at least one.
_cache: WeakKeyDictionary[Images, OrderedDict[str, dict[int, np.ndarray]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Probe:
    """A classifier layer that was fitted to frozen features."""

    # ``train_loss``, ``train_part`` (1 unless time ran out), and ``train_acc`` and ``robust_loss`` if there are any
    metrics: dict[str, float]
    rows: np.ndarray = field(repr=False)  # the training images of the probe, as positions in the split
    penalty: float  # of its `Head`
    held_out: np.ndarray | None = field(default=None, repr=False)  # out-of-fold outputs for these images
    robust_loss: float = 0.0  # the q of `saccade.training.probes.heads`


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
    targets, groups = train.targets[rows], None if train.groups is None else train.groups[rows]
    if problem.has_one_class and len(np.unique(targets)) < 2:
        return None
    row_weights = None if weights is None else weights[rows]
    given = features, targets, problem, robust_loss, row_weights, seconds_left
    soft = None if train.soft is None else train.soft[rows]
    fitted, q = fit_robust_heads(*given, seed=seed, groups=groups, soft=soft)
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
    """Return the features of some images, read-only; each is computed once per backbone and image.

    They are cached in memory with the images, which do not change, and those of an image store also on disk
    (`FeatureCache`), unless the network is the user's own, whose code may change. If `seconds_left` falls to 0, the
    features of the first images are returned.
    """
    form = f"{images.shorter_side}|{images.channels}|{images.pixel_range}" if isinstance(images, ImageStore) else ""
    backbone = classifier.backbone_digest(form)
    try:
        cached = _cache.setdefault(images, OrderedDict())
    except TypeError:  # a list, for example, which may change
        cached = OrderedDict()
    known = cached.setdefault(backbone, {})
    cached.move_to_end(backbone)
    missing = np.array([index for index in dict.fromkeys(indices.tolist()) if index not in known], dtype=np.int64)

    def compute(positions: np.ndarray) -> np.ndarray:
        if len(positions) >= LEAST_FOLDED:
            classifier.fuse(len(positions) if seconds_left() > 2 * EXPORT_S else 0)
        try:
            return features_of(classifier, classifier.batches(images, missing[positions]), seconds_left)
        finally:
            classifier.unfuse()  # training will change its weights

    if len(missing):
        disk = FeatureCache.from_environment()
        if disk is None or not isinstance(images, ImageStore) or classifier.blueprint.architecture is None:
            computed = compute(np.arange(len(missing)))
        else:
            name = network_name(classifier.blueprint.architecture, classifier.blueprint.input.img_size)
            computed = disk.get(backbone, [images.digests[index] for index in missing.tolist()], compute, name)
        known.update(zip(missing.tolist(), computed, strict=False))
    features = np.stack([known[index] for index in itertools.takewhile(known.__contains__, indices.tolist())])
    features.flags.writeable = False
    num_bytes = sum(len(rows) * next(iter(rows.values())).nbytes for rows in cached.values())
    while num_bytes > max_bytes:
        _, dropped = cached.popitem(last=False)
        num_bytes -= len(dropped) * next(iter(dropped.values())).nbytes
    return features


def names_of_cached_networks(task: ImageTask) -> set[str]:
    """Return the `network_name` of each network with cached features of the images that probes are fitted to."""
    disk = FeatureCache.from_environment()
    if disk is None:
        return set()
    rows = stratified_order(task.problem.strata(task.train.targets), np.random.default_rng(0))
    return disk.names([task.store.digests[index] for index in task.train.indices[rows].tolist()])


def network_name(architecture: str, img_size: int) -> str:
    """Return the name of a network in the cache of features."""
    return f"{architecture} {img_size}"
