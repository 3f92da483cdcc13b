"""Problems in which an image has any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from saccade.errors import DataError
from saccade.tasks.base import Problem, power_loss
from saccade.tasks.classification import Classification
from saccade.tasks.labels import Labels, indicators, plain_label_lists, plain_labels, some

THRESHOLD = 0.5  # a multilabel problem assigns a label from this probability on


@dataclass(frozen=True)
class Multilabel(Classification):
    """Any number of labels per image, none included: a sigmoid and a binary cross entropy for each label."""

    column_dtype: str | None = None  # ``int64`` or ``bool`` if labels were given as columns of 0 and 1

    type = "multilabel"
    default_metric = "f1_micro"
    common_metrics = ("f1_micro", "f1_macro", "f1_samples", "average_precision", "roc_auc", "log_loss", "accuracy")
    curvature_bound = 0.25

    @classmethod
    def from_labels(cls, labels: Labels) -> Problem:
        """Create the problem from lists of labels, or from columns of 0 and 1."""
        if isinstance(labels, pd.DataFrame):
            columns = plain_labels(labels.columns)
            if len(set(columns)) < max(2, len(columns)):
                raise DataError(f"columns of labels must be at least two, with different names: {some(columns)}")
            indicators(labels)
            are_bool = all(pd.api.types.is_bool_dtype(dtype) for dtype in labels.dtypes)
            return cls(tuple(columns), "bool" if are_bool else "int64")
        classes = tuple(sorted({label for row in plain_label_lists(labels) for label in row}))
        if len(classes) < 2:
            raise DataError(
                f"the lists hold {len(classes)} label{'' if len(classes) == 1 else 's'}: {list(classes)}; a multilabel "
                "problem requires at least two. Whether an image has one label or not is a binary problem"
            )
        return cls(classes)

    def encode(self, labels: Labels) -> np.ndarray:
        if isinstance(labels, pd.DataFrame):
            if missing := [name for name in self.classes if name not in labels.columns]:
                there = some(list(labels.columns))
                raise DataError(f"the columns {some(missing)} of labels are missing; there are {there}")
            return indicators(labels[list(self.classes)])
        rows = plain_label_lists(labels)
        number_of = self._number_of([label for row in rows for label in row])
        targets = np.zeros((len(rows), len(self.classes)), np.float32)
        for target, row in zip(targets, rows, strict=True):
            target[[number_of[label] for label in row]] = 1
        return targets

    def true_labels(self, targets: np.ndarray) -> np.ndarray:
        return np.asarray((targets > 0).astype(np.int64))

    def predicted_labels(self, predictions: np.ndarray) -> np.ndarray:
        return np.asarray((predictions >= THRESHOLD).astype(np.int64))

    def decode(self, predictions: np.ndarray) -> np.ndarray:
        has_label = predictions >= THRESHOLD
        if self.column_dtype is not None:
            return has_label.astype(self.column_dtype)
        lists = np.empty(len(predictions), object)
        for row, has in enumerate(has_label):
            lists[row] = [self.classes[number] for number in np.flatnonzero(has)]
        return lists

    def names(self, predictions: np.ndarray, class_names: Sequence[str]) -> list[list[str]]:
        return [[class_names[number] for number in np.flatnonzero(row).tolist()] for row in predictions >= THRESHOLD]

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return the number of the rarest label of each image; num_classes for images without labels."""
        rarity = np.where(targets > 0, targets.sum(0), np.inf)
        return np.asarray(np.where((targets > 0).any(1), rarity.argmin(1), targets.shape[1]))

    def _losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float, weights: torch.Tensor | None, q: float
    ) -> torch.Tensor:
        soft = self.soft_targets(targets, smoothing)
        if not q:
            return functional.binary_cross_entropy_with_logits(
                outputs, soft, pos_weight=weights, reduction="none"
            ).mean(1)
        has = soft * power_loss(functional.logsigmoid(outputs), q)
        has_not = (1 - soft) * power_loss(functional.logsigmoid(-outputs), q)
        return ((has if weights is None else has * weights) + has_not).mean(1)

    def soft_targets(self, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        return targets * (1 - smoothing) + smoothing / 2

    def output_losses(self, outputs: torch.Tensor, soft_targets: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(outputs, soft_targets.expand_as(outputs), reduction="none")

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.sigmoid()

    def num_right(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return ((outputs >= 0) == (targets > 0)).all(1).sum().item()

    def balanced_weights(self, targets: np.ndarray) -> np.ndarray:
        """Return the number of images without the label by the number of images with it."""
        num_with = targets.sum(0, dtype=np.float64)
        num_without = len(targets) - num_with
        # A label of no image, or of all images, cannot be balanced: its weight is 1.
        can_balance = (num_with > 0) & (num_without > 0)
        return np.asarray(np.divide(num_without, num_with, out=np.ones_like(num_with), where=can_balance))

    def image_weights(self, class_weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the weights of the labels that each image has, and 1 for those that it has not."""
        return np.where(targets > 0, class_weights, np.ones(targets.shape, np.float32))

    def mean_outputs(self, *outputs: torch.Tensor) -> torch.Tensor:
        """Return the logit of the mean probabilities, from the logarithms of both p and 1 - p."""
        stacked = torch.stack([each.float() for each in outputs])
        return functional.logsigmoid(stacked).logsumexp(0) - functional.logsigmoid(-stacked).logsumexp(0)

    def perfect_predictions(self, targets: np.ndarray) -> np.ndarray:
        return np.asarray((targets > 0).astype(np.float64))

    def confidence(self, predictions: np.ndarray, decided: np.ndarray) -> np.ndarray:
        return np.asarray(np.maximum(decided, 1 - decided).min(1))

    def loss_terms(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(np.where(targets > 0, predictions, 1 - predictions).astype(np.float64))

    def are_right(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(((predictions >= THRESHOLD) == (targets > 0)).all(1))

    def logits(self, probabilities: torch.Tensor) -> torch.Tensor:
        p, least = probabilities.double(), torch.finfo(torch.float32)
        return p.clamp_min(least.tiny).log() - (1 - p).clamp_min(least.eps / 4).log()

    def given_labels(self, probabilities: torch.Tensor) -> torch.Tensor:
        return probabilities >= THRESHOLD

    def confidences(self, probabilities: np.ndarray) -> np.ndarray:
        return np.asarray(probabilities.T)

    def outcomes(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(targets.T > 0)

    def threshold_columns(self, probabilities: np.ndarray) -> np.ndarray | None:
        return probabilities

    def conformity(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.zeros(0)  # there are no conformal sets of label sets

    def prediction_sets(self, predictions: np.ndarray, in_set: np.ndarray, min_conformity: float) -> list[Any]:
        self.require_one_class("a set of labels")
        return []
