"""Frozen features and a logistic regression, as written with timm, torch and scikit-learn, without Saccade.

The features of one network after the other are computed until the time limit; the network and the regularisation with
the best cross-validation on the training images are selected.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

STRENGTHS = (0.003, 0.03, 0.3)
"""Inverse regularisations, for standardised features."""

NUM_FOLDS = 3

BATCH_SIZE = 32

IMAGES_PART = 0.6
"""The part of the time that the features of the first network may take; of more images than that a part is drawn."""


@dataclass
class Probe:
    """The best network so far, and the accuracies of all.

    Attributes
    ----------
    network : str
        timm's name; with `file`, its weights.
    accuracy, loss : float
        By cross-validation on the training images.
    classifier : object
        scikit-learn's, fitted to the features of all training images.
    tried : dict
        Accuracies by network.
    fit_s : float
        Seconds that everything took.
    """

    network: str = ""
    file: str = ""
    accuracy: float = -1.0
    loss: float = float("inf")
    classifier: Any = None
    tried: dict[str, float] = field(default_factory=dict)
    fit_s: float = 0.0


class FrozenNetwork:
    """A pretrained network without its classifier layer, and its preprocessing.

    Parameters
    ----------
    name : str
        timm's.
    file : str
        Its weights, safetensors.
    """

    def __init__(self, name: str, file: str) -> None:
        import timm
        import torch

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        overlay = {"file": file}
        network = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
        self.network = network.eval().to(self.device)
        self.transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))

    def features(self, paths: Sequence[Path], until_s: float | None = None) -> np.ndarray:
        """Return features of shape (num_images, num_features): of fewer images than given once `until_s` has passed.

        Parameters
        ----------
        paths : sequence of Path
            Images.
        until_s : float or None
            By `time.perf_counter`.
        """
        import torch
        from PIL import Image

        found = []
        with torch.inference_mode():
            for start in range(0, len(paths), BATCH_SIZE):
                images = []
                for path in paths[start : start + BATCH_SIZE]:
                    with Image.open(path) as image:
                        images.append(self.transform(image.convert("RGB")))
                found.append(self.network(torch.stack(images).to(self.device)).float().cpu().numpy())
                if until_s is not None and time.perf_counter() > until_s:
                    break
        return np.concatenate(found)


def fit_probe(
    files: Sequence[Path], paths: Sequence[Path], labels: Sequence[str], time_limit_s: float, seed: int
) -> Probe:
    """Try networks until the time limit.

    Parameters
    ----------
    files : sequence of Path
        Weights, each named ``NETWORK.TAG.safetensors``, in the order of trying.
    paths, labels : sequence
        The training images.
    time_limit_s : float
        Seconds for everything; the first network is tried in any case.
    seed : int
        Of the order of the images, and of the folds.
    """
    start_s, longest_s, best = time.perf_counter(), 0.0, Probe()
    order = np.random.default_rng(seed).permutation(len(paths))
    for file in files:
        began_s = time.perf_counter()
        if best.classifier is not None and began_s - start_s + 1.2 * longest_s > time_limit_s:
            break
        name = file.name.split(".")[0]
        network = FrozenNetwork(name, str(file))
        until_s = None if best.classifier is not None else began_s + IMAGES_PART * time_limit_s
        features = network.features([paths[i] for i in order], until_s)
        order = order[: len(features)]  # there is no time for the next network
        accuracy, loss, classifier = _cross_validated(features, np.array(labels)[order], seed)
        best.tried[name] = accuracy
        if (accuracy, -loss) > (best.accuracy, -best.loss):
            best.network, best.file, best.accuracy, best.loss = name, str(file), accuracy, loss
            best.classifier = classifier
        longest_s = max(longest_s, time.perf_counter() - began_s)
    best.fit_s = time.perf_counter() - start_s
    return best


def _cross_validated(features: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float, Any]:
    """Return accuracy, log-loss and the fitted classifier of the best strength."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes, targets = np.unique(labels, return_inverse=True)
    has_all = np.bincount(targets).min() >= NUM_FOLDS  # else a fold could lack a class, and its column
    num_folds = NUM_FOLDS if has_all else max(2, int(np.bincount(targets).min()))
    kind = KFold if np.bincount(targets).min() < 2 else StratifiedKFold
    folds = kind(num_folds, shuffle=True, random_state=seed)
    found = []
    for strength in STRENGTHS:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        given = cross_val_predict(classifier, features, targets, cv=folds, method="predict_proba")
        loss = float(-np.log(np.clip(given[np.arange(len(targets)), targets], 1e-15, None)).mean())
        found.append((loss, float((given.argmax(1) == targets).mean()), classifier))
    loss, accuracy, classifier = min(found, key=lambda one: one[0])
    return accuracy, loss, classifier.fit(features, classes[targets])
