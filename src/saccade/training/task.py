"""The task that all trials of a search share: which images to learn from, which to be judged by, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.data.store import ImageStore
from saccade.training.metrics import Metric
from saccade.training.problem import Problem


@dataclass(frozen=True)
class Split:
    """Some images of a store with their targets.

    Attributes
    ----------
    indices : ndarray of int64, shape (num_images,)
        Their numbers in the store.
    targets : ndarray, shape (num_images,)
        Their labels, encoded by the problem.
    """

    indices: np.ndarray
    targets: np.ndarray


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
    """

    store: ImageStore
    train: Split
    val: Split
    problem: Problem
    metric: Metric
    weights: Path | None = None
    device: str | None = None
    num_threads: int | None = None
