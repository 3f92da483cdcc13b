"""The task that all trials of a search share: which images to learn from, which to be judged by, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.data.store.store import ImageStore
from saccade.tasks.metrics import Metric
from saccade.tasks.problem import Problem


@dataclass(frozen=True)
class Split:
    """Some images of a store with their targets.

    Attributes
    ----------
    indices : ndarray of int64, shape (num_images,)
        Their numbers in the store.
    targets : ndarray, shape (num_images,)
        Their labels, encoded by the problem.
    weights : ndarray of float32 or None, shape (num_images,)
        How much they count in training, from `saccade.training.imbalance.sample_weights`.
    """

    indices: np.ndarray
    targets: np.ndarray
    weights: np.ndarray | None = None

    def joined(self, other: Split) -> Split:
        """Return the images of both."""
        weights = None
        if self.weights is not None and other.weights is not None:
            weights = np.concatenate([self.weights, other.weights])
        indices = np.concatenate([self.indices, other.indices])
        return Split(indices, np.concatenate([self.targets, other.targets]), weights)


@dataclass(frozen=True)
class ImageTask:
    """What a worker has to know besides a configuration.

    Attributes
    ----------
    store : ImageStore
        The decoded images.
    train, val : Split
        Images to learn from and to be judged by.
    problem : Problem
        What is predicted.
    metric : Metric
        The figure that judges.
    weights : Path or None
        A file of pretrained weights or a folder of them, for recipes that name none.
    device : str or None
        torch's name of the device; None is the best there is.
    num_threads : int or None
        CPU threads for one trial; None leaves it to torch.
    start : Path or None
        Weights of a fitted network, its last layer included, from which all trials continue.
    is_refit : bool
        Whether the validation images are among the training images: then they judge nothing, the weights of the last
        epoch count, and nothing stops early.
    is_holdout : bool
        Whether the validation images were drawn from the images that were given to learn from.
    class_names : list of str or None
        Names behind integer labels, under which recipes may weigh classes.
    costs : list of str
        Which of ``latency_ms``, ``num_params`` and ``num_bytes`` every report is to tell of the network.
    """

    store: ImageStore
    train: Split
    val: Split
    problem: Problem
    metric: Metric
    weights: Path | None = None
    device: str | None = None
    num_threads: int | None = None
    start: Path | None = None
    is_refit: bool = False
    is_holdout: bool = False
    class_names: list[str] | None = None
    costs: Sequence[str] = ()
