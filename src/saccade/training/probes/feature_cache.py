"""Features of frozen networks, kept for the next trial that begins with the same network on the same images."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np

from saccade.data.batches import Images
from saccade.inference.classifier import Classifier, features_of
from saccade.models.network import classifier_parameters

MAX_BYTES = 256 * 2**20
"""Of the features that are kept of one store; those that were used least recently go first."""

LEAST_FUSED = 64
"""Images for which it is worth to make a faster copy of the network."""

_kept: WeakKeyDictionary[Images, OrderedDict[bytes, np.ndarray]] = WeakKeyDictionary()


def cached_features(
    classifier: Classifier,
    images: Images,
    indices: np.ndarray,
    seconds_left: Callable[[], float] = lambda: 1.0,
    *,
    max_bytes: int = MAX_BYTES,
) -> np.ndarray:
    """Return `features_of` some images, without computing them again in this process.

    Parameters
    ----------
    classifier : Classifier
        Its network. What is kept is known by the weights of all its layers but the last one.
    images : Images
        Decoded images that do not change. When they are dropped, so is what is kept of them.
    indices : ndarray of int, shape (num_images,)
        Which of them.
    seconds_left : callable
        As in `Classifier.predict`; features of a part of the images are not kept.
    max_bytes : int
        How much to keep.

    Returns
    -------
    ndarray of float32, shape (num_images, num_features)
        Read-only.
    """
    key = _key(classifier, indices)
    try:
        kept = _kept.setdefault(images, OrderedDict())
    except TypeError:  # a list, say, that may change
        kept = OrderedDict()
    if key in kept:
        kept.move_to_end(key)
        return kept[key]
    if len(indices) >= LEAST_FUSED:
        classifier.fuse()
    try:
        features = features_of(classifier, classifier.batches(images, indices), seconds_left)
    finally:
        classifier.unfuse()  # its weights will change
    features.flags.writeable = False
    if len(features) == len(indices):
        kept[key] = features
        while sum(each.nbytes for each in kept.values()) > max_bytes:
            kept.popitem(last=False)
    return features


def _key(classifier: Classifier, indices: np.ndarray) -> bytes:
    """Return a digest of all that features depend on; of weights it takes milliseconds."""
    digest = hashlib.blake2b(repr((classifier.blueprint, classifier.inference)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(indices).tobytes())
    head = classifier_parameters(classifier.network)
    for name, tensor in classifier.network.state_dict().items():
        if name not in head:
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    return digest.digest()
