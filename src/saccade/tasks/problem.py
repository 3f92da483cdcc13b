"""The problem types: binary and multiclass classification, multilabel problems, regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch.nn import functional
from typing_extensions import Self

from saccade.errors import DataError, HyperparameterError, count_of
from saccade.tasks.base import Problem as Problem
from saccade.tasks.base import power_loss, refuse_many_labels
from saccade.tasks.labels import Label, Labels, indicators, plain_label_lists, plain_labels, some

THRESHOLD = 0.5  # a multilabel problem assigns a label from this probability on


@dataclass(frozen=True)
class Classification(Problem):
    """Problems whose predictions are probabilities of classes."""

    classes: Annotated[tuple[Label, ...], Field(min_length=1, max_length=10**6)]

    def _number_of(self, labels: list[Label]) -> dict[Label, int]:
        """Return the number of each class; raise an error if any of these labels is not a class."""
        number_of = {label: number for number, label in enumerate(self.classes)}
        unknown = list(dict.fromkeys(label for label in labels if label not in number_of))
        if unknown:
            raise DataError(f"labels {some(unknown)} are not among the classes that were trained: {some(self.classes)}")
        return number_of


@dataclass(frozen=True)
class SingleLabel(Classification):
    """Problems in which each image has exactly one class: softmax and cross entropy."""

    has_one_class = True
    default_metric = "accuracy"
    curvature_bound = 0.5

    @classmethod
    def from_labels(cls, labels: Labels) -> Self:
        """Create the problem whose classes are the distinct labels."""
        refuse_many_labels(labels, cls.type)
        classes = tuple(sorted(set(plain_labels(labels))))
        if len(classes) < 2:
            raise DataError(
                f"the labels hold {count_of(len(classes), 'class', 'classes')}: {list(classes)}; "
                "a classifier requires images of at least two classes"
            )
        if cls is Binary and len(classes) != 2:
            raise DataError(
                f"problem_type='binary' requires two classes; the labels hold {len(classes)}: {some(classes)}"
            )
        return cls(classes)

    def encode(self, labels: Labels) -> np.ndarray:
        refuse_many_labels(labels, self.type)
        plain = plain_labels(labels)
        number_of = self._number_of(plain)
        return np.fromiter((number_of[label] for label in plain), np.int64, len(plain))

    def true_labels(self, targets: np.ndarray) -> np.ndarray:
        return np.asarray(self.class_array[targets])

    def predicted_labels(self, predictions: np.ndarray) -> np.ndarray:
        return self.true_labels(predictions.argmax(1))

    def names(self, predictions: np.ndarray, class_names: Sequence[str]) -> list[list[str]]:
        return [[class_names[number]] for number in predictions.argmax(1).tolist()]

    def strata(self, targets: np.ndarray) -> np.ndarray:
        return targets

    def _losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float, weights: torch.Tensor | None, q: float
    ) -> torch.Tensor:
        if not q:
            return functional.cross_entropy(outputs, targets, weights, label_smoothing=smoothing, reduction="none")
        soft = targets if targets.is_floating_point() else self.soft_targets(targets, smoothing)
        soft = soft if weights is None else soft * weights
        return (soft * power_loss(outputs.log_softmax(1), q)).sum(1)

    def soft_targets(self, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        is_soft = targets.is_floating_point()
        one_hot = targets if is_soft else functional.one_hot(targets, len(self.classes)).float()
        return one_hot * (1 - smoothing) + smoothing / len(self.classes)

    def output_losses(self, outputs: torch.Tensor, soft_targets: torch.Tensor) -> torch.Tensor:
        return -(soft_targets * outputs.log_softmax(-1)).sum(-1, keepdim=True)

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.softmax(-1)

    def num_right(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return (outputs.argmax(1) == (targets.argmax(1) if targets.is_floating_point() else targets)).sum().item()

    def class_counts(self, targets: np.ndarray) -> np.ndarray:
        return np.bincount(targets, minlength=len(self.classes)).astype(np.int64)

    def balanced_weights(self, targets: np.ndarray) -> np.ndarray:
        """Return the number of images by the number of images of the class; as if a class without images had one."""
        return len(targets) / np.maximum(np.bincount(targets, minlength=len(self.classes)), 1)

    def normalised_weights(self, weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return weights by their mean over the images; raise a HyperparameterError if that is 0."""
        mean = weights[targets].mean()
        if mean == 0:
            raise HyperparameterError("class_weight gives no training image a weight above 0; give positive weights")
        return np.asarray(weights / mean)

    def image_weights(self, class_weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(class_weights[targets])

    def mean_outputs(self, *outputs: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of the mean probabilities."""
        stacked = torch.stack([each.float() for each in outputs])
        return stacked.log_softmax(-1).logsumexp(0) - math.log(len(outputs))

    def constant_prediction(self, targets: np.ndarray) -> np.ndarray:  # without one-hot vectors of all images
        return np.bincount(targets, minlength=self.num_outputs) / len(targets)

    def perfect_predictions(self, targets: np.ndarray) -> np.ndarray:
        return np.asarray((targets[:, None] == np.arange(self.num_outputs)).astype(np.float64))

    def confidence(self, predictions: np.ndarray, decided: np.ndarray) -> np.ndarray:
        return np.asarray(predictions[np.arange(len(predictions)), decided.argmax(1)])

    def loss_terms(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(predictions[np.arange(len(targets)), targets][:, None].astype(np.float64))

    def are_right(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(predictions.argmax(1) == targets)

    def logits(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return logarithms, of which the largest of each image is 0."""
        logs = probabilities.double().clamp_min(torch.finfo(torch.float32).tiny).log()
        return logs - logs.amax(1, keepdim=True)

    def given_labels(self, probabilities: torch.Tensor) -> torch.Tensor:
        # Not `one_hot`, whose check of its values some export formats cannot express.
        return probabilities.argmax(1, keepdim=True) == torch.arange(len(self.classes), device=probabilities.device)

    def confidences(self, probabilities: np.ndarray) -> np.ndarray:
        return np.asarray(probabilities.max(1)[None])

    def outcomes(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return self.are_right(probabilities, targets)[None]

    def prediction_sets(self, predictions: np.ndarray, in_set: np.ndarray, min_conformity: float) -> list[Any]:
        order = np.argsort(-predictions, axis=1, kind="stable")
        return [[self.classes[k] for k in row if mask[k]] for row, mask in zip(order, in_set, strict=True)]


@dataclass(frozen=True)
class Binary(SingleLabel):
    """Two classes; the second one is the positive class."""

    type = "binary"
    common_metrics = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "average_precision", "log_loss", "mcc")

    def threshold_columns(self, probabilities: np.ndarray) -> np.ndarray | None:
        return probabilities[:, 1:]

    @property
    def threshold_classes(self) -> tuple[Label, ...]:
        return self.classes[1:]


@dataclass(frozen=True)
class Multiclass(SingleLabel):
    """Any number of classes, of which each image has one."""

    type = "multiclass"
    common_metrics = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc_ovr", "log_loss", "mcc", "quadratic_kappa")


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
                f"the lists hold {count_of(len(classes), 'label')}: {list(classes)}; a multilabel "
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
        return ((outputs >= 0) == (targets >= THRESHOLD)).all(1).sum().item()

    def class_counts(self, targets: np.ndarray) -> np.ndarray:
        return np.asarray((targets > 0).sum(0), np.int64)

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
        return np.zeros(0)  # conformal sets are not defined for several labels

    def prediction_sets(self, predictions: np.ndarray, in_set: np.ndarray, min_conformity: float) -> list[Any]:
        self.require_one_class("a set of labels")
        return []


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
        return functional.mse_loss(outputs.squeeze(1), targets.reshape(-1), reduction="none")

    def soft_targets(self, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        return targets.float().reshape(-1, 1)

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
        std, mean = (torch.tensor(number, dtype=dtype, device=outputs.device) for number in (self.std, self.mean))
        return outputs.to(dtype) * std + mean  # tensors, since exporters round Python's numbers to float32

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
