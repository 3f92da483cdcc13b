"""Problems whose labels are numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from saccade.errors import DataError
from saccade.tasks.base import Problem, refuse_many_labels
from saccade.tasks.labels import Labels, plain_labels


@dataclass(frozen=True)
class Regression(Problem):
    """Numbers, standardised as ``(label - mean) / std``: the squared error."""

    mean: Annotated[float, Field(allow_inf_nan=False)] = 0.0  # of the training labels
    std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    type = "regression"
    classes = ()
    has_classes = False
    default_metric = "rmse"
    common_metrics = ("rmse", "mae", "mape", "r2", "median_absolute_error")
    curvature_bound = 1.0

    @classmethod
    def from_labels(cls, labels: Labels) -> Problem:
        """Create the problem with the mean and standard deviation of these numbers."""
        numbers = _numbers(labels)
        if not len(numbers):
            raise DataError("there are no labels")
        std = float(numbers.std())
        if std == 0:
            raise DataError(f"all labels are {numbers[0]}; regression needs at least two different numbers")
        return cls(float(numbers.mean()), std)

    def encode(self, labels: Labels) -> np.ndarray:
        return ((_numbers(labels) - self.mean) / self.std).astype(np.float32)

    def true_labels(self, targets: np.ndarray) -> np.ndarray:
        return np.asarray(targets.astype(np.float64) * self.std + self.mean)

    def predicted_labels(self, predictions: np.ndarray) -> np.ndarray:
        return np.asarray(predictions[:, 0])

    def names(self, predictions: np.ndarray, class_names: Sequence[str]) -> list[list[str]]:
        return [[f"{number:.6g}"] for number in predictions[:, 0]]

    def strata(self, targets: np.ndarray) -> np.ndarray:
        return np.zeros(len(targets), np.int64)

    def _losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float, weights: torch.Tensor | None, q: float
    ) -> torch.Tensor:
        if q:
            raise self._has_no_classes("robust_loss")
        return functional.mse_loss(outputs.squeeze(1), targets, reduction="none")

    def soft_targets(self, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        return targets.float()[:, None]

    def output_losses(self, outputs: torch.Tensor, soft_targets: torch.Tensor) -> torch.Tensor:
        return (outputs - soft_targets).square()

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs

    def num_right(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return 0.0

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return numbers in the units of the labels, in float64 where the device has it."""
        # float32 would round numbers that vary little around a large mean; MPS has no float64.
        dtype = torch.float32 if outputs.device.type == "mps" else torch.float64
        return outputs.to(dtype) * self.std + self.mean

    def mean_outputs(self, *outputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([each.float() for each in outputs]).mean(0)

    def perfect_predictions(self, targets: np.ndarray) -> np.ndarray:
        return self.true_labels(targets)[:, None]

    def confidence(self, predictions: np.ndarray, decided: np.ndarray) -> np.ndarray:
        return np.full(len(predictions), np.nan)

    def loss_terms(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(((predictions - self.mean) / self.std - targets[:, None]).astype(np.float64))

    def term_losses(self, terms: np.ndarray) -> np.ndarray:
        return np.asarray((terms**2).mean(-1))

    def are_right(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(predictions[:, 0] == self.true_labels(targets))

    def conformity(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(-np.abs(predictions[:, 0] - self.true_labels(targets)))

    def prediction_sets(self, predictions: np.ndarray, in_set: np.ndarray, min_conformity: float) -> list[Any]:
        return [(float(number + min_conformity), float(number - min_conformity)) for number in predictions[:, 0]]


def _numbers(labels: Labels) -> np.ndarray:
    """Return regression labels as float64 of shape (num_images,)."""
    refuse_many_labels(labels, "regression")
    try:
        numbers = np.array([float(label) for label in list[Any](labels)])
    except (TypeError, ValueError) as error:
        plain_labels(labels)  # reports missing labels
        raise DataError(f"problem_type='regression' requires numbers as labels; {error}") from None
    if num_missing := int(np.isnan(numbers).sum()):
        raise DataError(f"{num_missing} of {len(numbers)} labels are missing; leave those rows out")
    if not np.isfinite(numbers).all():
        raise DataError("problem_type='regression' requires finite numbers as labels; some are infinite")
    return numbers
