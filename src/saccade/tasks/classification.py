"""Problems in which each image has exactly one class: binary and multiclass classification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional
from typing_extensions import Self

from saccade.errors import DataError, HyperparameterError
from saccade.tasks.base import Problem, power_loss, refuse_many_labels
from saccade.tasks.labels import Label, Labels, plain_labels, some


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
                f"the labels hold {len(classes)} class{'' if len(classes) == 1 else 'es'}: {list(classes)}; "
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
        one_hot = functional.one_hot(targets, len(self.classes)).float()
        return one_hot * (1 - smoothing) + smoothing / len(self.classes)

    def output_losses(self, outputs: torch.Tensor, soft_targets: torch.Tensor) -> torch.Tensor:
        return -(soft_targets * outputs.log_softmax(-1)).sum(-1, keepdim=True)

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.softmax(-1)

    def num_right(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return (outputs.argmax(1) == targets).sum().item()

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
        return functional.one_hot(probabilities.argmax(1), len(self.classes)).bool()

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
