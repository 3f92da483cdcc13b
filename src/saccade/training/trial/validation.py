"""Validation of a network on the validation images, again and again during training."""

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
    """Validates a classifier on the validation images of a task; `kept` caches the features of a fixed backbone."""

    def __init__(
        self, classifier: Classifier, task: ImageTask, batch_size: int, kept: KeptOutputs | None = None
    ) -> None:
        self._classifier, self._task, self._kept = classifier, task, kept
        self.batches = classifier.batches(task.store, task.val.indices, task.val.targets, batch_size)
        self.outputs: np.ndarray | None = None  # behind the latest metrics; fewer if the deadline passed

    def metrics(self, network: torch.nn.Module, deadline: Deadline, *, is_probe: bool = False) -> dict[str, float]:
        """Return the metrics of a network, the classifier's own or its moving average, on the validation images.

        After the deadline, the images seen so far are enough. If it `is_probe`, the cached features of the backbone are
        used. Raises a DataError if the metric is undefined for the images.
        """
        outputs_of = self._classifier.outputs if self._kept is None else self._kept.outputs
        if is_probe and not self._classifier.blueprint.tta:  # test-time augmentation needs more than one pass
            indices = self._task.val.indices
            self.outputs = outputs_of_frozen(self._classifier, self._task.store, indices, deadline.seconds_left)
        else:
            self.outputs = outputs_of(self.batches, network, seconds_left=deadline.seconds_left)
        try:
            return self._metrics_of(self.outputs)
        except DataError:
            if len(self.outputs) == len(self._task.val.targets):
                raise
            # The images before the deadline may lack a class, without which some metrics are undefined.
            self.outputs = outputs_of(self.batches, network)
            return self._metrics_of(self.outputs)

    def cv_score(self, probe: Probe) -> dict[str, float]:
        """Return the `CV_SCORE` of the latest probe: on validation images and out-of-fold predictions together.

        With usually ten times as many images, it separates networks that the validation score does not, although it is
        slightly lower (folds have fewer images). Empty without folds, where the metric is undefined, or if the user
        gave the validation images, which may differ from the training images.
        """
        if probe.held_out is None or self.outputs is None or not self._task.is_holdout:
            return {}
        train, val, metric, problem = self._task.train, self._task.val, self._task.metric, self._task.problem
        outputs = torch.from_numpy(np.concatenate([probe.held_out, self.outputs]))
        targets = np.concatenate([train.targets[probe.rows], val.targets[: len(self.outputs)]])
        try:
            score = metric.score(metric(targets, problem.activate(outputs).numpy(), problem))
        except DataError:
            return {}
        return {CV_SCORE: score} if math.isfinite(score) else {}

    def _metrics_of(self, outputs: np.ndarray) -> dict[str, float]:
        """Return the metrics of the first validation images, as many as there are outputs."""
        metric, problem, targets = self._task.metric, self._task.problem, self._task.val.targets[: len(outputs)]
        predictions = problem.activate(torch.from_numpy(outputs)).numpy()
        return {**summary_metrics(targets, predictions, problem), metric.name: metric(targets, predictions, problem)}
