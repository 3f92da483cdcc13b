"""What a network's outputs for the validation images are worth, again and again in the course of a training."""

from __future__ import annotations

import math

import numpy as np
import torch

from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.events import CV_SCORE
from saccade.inference.classifier import Classifier
from saccade.tasks.metrics import summary_metrics
from saccade.training.probes.probe import Probe, outputs_of_frozen
from saccade.training.task import ImageTask
from saccade.training.trial.frozen import KeptOutputs


class Validation:
    """Judges a classifier by the validation images of a task.

    Parameters
    ----------
    classifier : Classifier
        What is judged.
    task : ImageTask
        Its validation images, metric and problem count.
    batch_size : int
        Images at a time.
    kept : KeptOutputs or None
        Where all layers but the last stay as they are, what they make of the images.

    Attributes
    ----------
    batches : Batches
        The validation images.
    outputs : ndarray of float32, shape (num_judged, num_outputs), or None
        Raw outputs that the latest figures were computed from; fewer than there are images where a deadline came.
    """

    def __init__(
        self, classifier: Classifier, task: ImageTask, batch_size: int, kept: KeptOutputs | None = None
    ) -> None:
        self._classifier, self._task, self._kept = classifier, task, kept
        self.batches = classifier.batches(task.store, task.val.indices, task.val.targets, batch_size)
        self.outputs: np.ndarray | None = None

    def figures(self, network: torch.nn.Module, deadline: Deadline, *, is_frozen: bool = False) -> dict[str, float]:
        """Return the figures of a network, the classifier's own or its moving average, on the validation images.

        Parameters
        ----------
        network : torch.nn.Module
            What is judged.
        deadline : Deadline
            When it has come, the images that were seen by then have to do.
        is_frozen : bool
            Whether the classifier was probed and not trained since, so that kept features tell its outputs.

        Raises
        ------
        DataError
            When the metric is not defined for the validation images.
        """
        outputs_of = self._classifier.outputs if self._kept is None else self._kept.outputs
        if is_frozen and not self._classifier.blueprint.tta:  # whose outputs are not those of one pass
            val = self._task.val.indices
            self.outputs = outputs_of_frozen(self._classifier, self._task.store, val, deadline.seconds_left)
        else:
            self.outputs = outputs_of(self.batches, network, seconds_left=deadline.seconds_left)
        try:
            return self._figures(self.outputs)
        except DataError:
            if len(self.outputs) == len(self._task.val.targets):
                raise
            # What the deadline left of the images may lack a class, without which some metrics are not defined.
            self.outputs = outputs_of(self.batches, network)
            return self._figures(self.outputs)

    def cv_score(self, probe: Probe) -> dict[str, float]:
        """Return the score of a probe that was judged, by training images as well, of which its folds were ignorant.

        There are ten times as many of them as a rule, so that it tells networks apart where the score does not. It is
        somewhat lower, as layers of folds have learned from fewer images.

        Parameters
        ----------
        probe : Probe
            Whose outputs for the validation images are the latest.

        Returns
        -------
        dict
            By the name `CV_SCORE`; empty without folds, or where the metric is not defined, or where the user gave
            the validation images: they may be of another kind.
        """
        if probe.unseen is None or self.outputs is None or not self._task.is_holdout:
            return {}
        train, val, metric = self._task.train, self._task.val, self._task.metric
        outputs = np.concatenate([probe.unseen, self.outputs])
        targets = np.concatenate([train.targets[probe.rows], val.targets[: len(self.outputs)]])
        try:
            score = metric.score(metric(targets, self._activated(outputs), self._task.problem))
        except DataError:
            return {}
        return {CV_SCORE: score} if math.isfinite(score) else {}

    def _activated(self, outputs: np.ndarray) -> np.ndarray:
        predictions: np.ndarray = self._task.problem.activate(torch.from_numpy(outputs)).numpy()
        return predictions

    def _figures(self, outputs: np.ndarray) -> dict[str, float]:
        """Return the figures of as many validation images as there are outputs."""
        metric, problem, targets = self._task.metric, self._task.problem, self._task.val.targets[: len(outputs)]
        predictions = self._activated(outputs)
        return {
            **summary_metrics(targets, predictions, problem),
            metric.name: metric(targets, predictions, problem),
        }
