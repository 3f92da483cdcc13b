"""The task that all trials of a search share: training and validation images, problem and metric."""

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
    """Images of a store with their targets.

    Attributes
    ----------
    indices : ndarray of int64, shape (num_images,)
        Positions in the store.
    targets : ndarray, shape (num_images,)
        Labels, encoded by the problem.
    weights : ndarray of float32 or None, shape (num_images,)
        Sample weights, from `saccade.training.imbalance.sample_weights`.
    """

    indices: np.ndarray
    targets: np.ndarray
    weights: np.ndarray | None = None

    def joined(self, other: Split) -> Split:
        """Return the images of both splits; weights only if both have them."""
        weights = None
        if self.weights is not None and other.weights is not None:
            weights = np.concatenate([self.weights, other.weights])
        indices = np.concatenate([self.indices, other.indices])
        return Split(indices, np.concatenate([self.targets, other.targets]), weights)


@dataclass(frozen=True)
class ImageTask:
    """Everything that a worker needs besides a configuration.

    Attributes
    ----------
    store : ImageStore
        The decoded images.
    train, val : Split
        Training and validation images.
    problem : Problem
        Problem type and classes.
    metric : Metric
        Metric used for model selection.
    weights : Path or None
        A file of pretrained weights or a folder of them, for recipes without their own.
    device : str or None
        torch's name of the device; None is the best available.
    num_threads : int or None
        CPU threads of one trial; None is torch's default.
    start : Path or None
        Weights of a fitted network, including its classifier layer, from which all trials start.
    is_refit : bool
        Whether the validation images are among the training images. Then the weights of the last epoch are used, and
        there is no early stopping.
    is_holdout : bool
        Whether the validation images were split off the training images, rather than given by the user.
    class_names : list of str or None
        Names of integer labels, which class weights may use.
    num_val_seen : int
        Validation images that the network in `start` was fitted to.
    costs : list of str
        Costs in every report, among ``latency_ms``, ``num_params`` and ``num_bytes``.
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
    num_val_seen: int = 0
    costs: Sequence[str] = ()
