"""Folds: every image is judged once, by a network that has learned from the images of all other folds.

This is k-fold cross-validation (Stone, "Cross-Validatory Choice and Assessment of Statistical Predictions", 1974). What
a network says of the images of its fold owes nothing to them: not its weights, nor the epoch at which training ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.numerics.device import cpu_threads
from saccade.study.trial import Job, Reporter, Trainable
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Problem
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask, Split
from saccade.training.trial.trainer import Trainer
from saccade.training.trial_files import save_outputs

OUTPUTS = "fold.outputs.npy"
"""The file of what a fold's network says of the images of its fold; as in `saccade.training.trial_files`."""

TEACHES_ALWAYS = -1
"""The number of images that are in no fold: without them a class might have no image to learn from."""


def fold_numbers(
    targets: np.ndarray, problem: Problem, groups: Sequence[str], num_folds: int, seed: int = 0
) -> np.ndarray:
    """Return the fold of each image; each fold has its share of each class, and equal images are in the same one.

    Parameters
    ----------
    targets : ndarray, shape (num_images,) or (num_images, num_classes)
        As `Problem.encode` returns them.
    problem : Problem
        What they mean.
    groups : sequence of str
        The same for equal images, such as `ImageStore.digests`; an empty one is a group of its own.
    num_folds : int
        How many.
    seed : int
        Of the draw.

    Returns
    -------
    ndarray of int64, shape (num_images,)
        From 0 on; `TEACHES_ALWAYS` for images of a class that has no second one.

    Raises
    ------
    DataError
        When there are too few images for so many folds.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> folds = fold_numbers(np.array([0, 0, 0, 1, 1, 1]), problem, ["a", "b", "c", "d", "e", "f"], 3)
    >>> sorted(folds[:3].tolist()), sorted(folds[3:].tolist())
    ([0, 1, 2], [0, 1, 2])
    """
    keys = np.array([key or f"alone {number}" for number, key in enumerate(groups)])
    _, first, group_of = np.unique(keys, return_index=True, return_inverse=True)
    strata = problem.strata(targets)[first].astype(np.int64)
    order = np.lexsort([np.random.default_rng(seed).random(len(first)), strata])
    of_groups = np.empty(len(first), np.int64)
    of_groups[order] = np.arange(len(first)) % num_folds
    if problem.has_classes:
        _, stratum_of, counts = np.unique(strata, return_inverse=True, return_counts=True)
        of_groups[counts[stratum_of] == 1] = TEACHES_ALWAYS
    if len(np.setdiff1d(of_groups, [TEACHES_ALWAYS])) < num_folds:
        raise DataError(
            f"num_folds={num_folds} are too many for {len(first)} different images: each fold must have one, of a "
            "class that has another. Give fewer folds, or leave num_folds away"
        )
    return of_groups[group_of]


def part_of(split: Split, is_chosen: np.ndarray) -> Split:
    """Return some images of a split.

    Parameters
    ----------
    split : Split
        All images.
    is_chosen : ndarray of bool, shape (num_images,)
        Which of them.
    """
    weights = None if split.weights is None else split.weights[is_chosen]
    return Split(split.indices[is_chosen], split.targets[is_chosen], weights)


@dataclass(frozen=True)
class FoldOrder:
    """What is to be trained on all folds but one.

    Attributes
    ----------
    fold : int
        The fold that is left out.
    config : dict
        The hyperparameters.
    """

    fold: int
    config: dict[str, Any]


class FoldTrainable(Trainable):
    """Trains networks each on all folds but one: one job, one fold.

    The configuration of a job is ``{"order": FoldOrder(…)}``. Its folder gets the files of a trial, and `OUTPUTS` when
    the job is done. The last epoch of a job counts, whatever it does on the fold that is left out.

    Parameters
    ----------
    task : ImageTask
        Its training images are those of all folds.
    folds : ndarray of int64, shape (num_images,)
        As `fold_numbers` returns them.
    """

    def __init__(self, task: ImageTask, folds: np.ndarray) -> None:
        self.task, self.folds = task, folds

    def of_fold(self, fold: int) -> ImageTask:
        """Return the task of learning from all folds but one, which judges."""
        is_left_out = self.folds == fold
        # As in a refit, nothing may be chosen by the images that judge. The figure of a fold is of no use, and some
        # metrics are not defined on so few images, so it is the one that always is.
        return replace(
            self.task,
            train=part_of(self.task.train, ~is_left_out),
            val=part_of(self.task.train, is_left_out),
            metric=make_metric(None, self.task.problem),
            is_refit=True,
        )

    def train(self, job: Job, report: Reporter) -> str:
        """Train one network up to the job's last epoch, and write what it says of the fold that it has not seen."""
        deadline = Deadline(job.seconds_left)
        order: FoldOrder = job.config["order"]
        with cpu_threads(self.task.num_threads):
            trainer = Trainer(self.of_fold(order.fold), Recipe.of(order.config), Path(job.folder))
            reason = trainer.run(replace(job, seconds_left=deadline.seconds_left()), report)
            if trainer.validation.outputs is not None:
                save_outputs(Path(job.folder) / OUTPUTS, trainer.validation.outputs)
        return reason
