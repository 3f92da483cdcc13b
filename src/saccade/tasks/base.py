"""Base class of the problem types.

A problem connects labels, network outputs and predictions. All that differs between the types is a method here, so
that other modules call a method instead of comparing the type. Three arrays occur throughout:

- targets, from `Problem.encode`: class numbers, int64 of shape (num_images,); for multilabel problems 0 and 1, float32
  of shape (num_images, num_classes); for regression standardised numbers, float32 of shape (num_images,)
- outputs of a network: float, of shape (num_images, num_outputs); logits, or standardised numbers
- predictions, from `Problem.activate`: probabilities of shape (num_images, num_classes), or numbers in the units of
  the labels, of shape (num_images, 1)
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter

from saccade.errors import DataError, HyperparameterError, UnknownNameError
from saccade.tasks.labels import Label, Labels, ProblemType, are_label_lists, class_array, infer_problem_type

_MIN_PROBABILITY = 1e-15  # probabilities are clipped here before their logarithm is taken
_TYPES: dict[str, type[Problem]] = {}  # each problem type registers itself

type_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)
"""Return the pydantic adapter of a type, which takes tens of milliseconds to make."""


class Problem(ABC):
    """A prediction task: which labels exist, and what the outputs of a network mean.

    Use `Problem.of` to create one from labels.
    """

    type: ClassVar[ProblemType]
    has_classes: ClassVar[bool] = True  # whether predictions are probabilities of classes; False for regression
    has_one_class: ClassVar[bool] = False  # whether each image has exactly one class: binary and multiclass problems
    default_metric: ClassVar[str]  # that is used without `eval_metric`
    common_metrics: ClassVar[tuple[str, ...]]  # to suggest
    curvature_bound: ClassVar[float]  # on the second derivative of an image's loss by its outputs (Böhning 1992)
    # The labels as they were given, sorted (or, if labels are columns, in the order of the columns). Output i belongs
    # to class i. Empty for regression. The second class of a binary problem is the positive one.
    classes: tuple[Label, ...]

    def __init_subclass__(cls) -> None:
        if "type" in cls.__dict__:
            _TYPES[cls.type] = cls

    @staticmethod
    def of(labels: Labels, problem_type: str | None = None) -> Problem:
        """Create the problem for these labels: one label or list of labels per image, or columns of 0 and 1.

        None infers the type, see `infer_problem_type`. Raises a DataError if labels are missing, are all the same, or
        do not suit the type, and an UnknownNameError if there is no such type.
        """
        if problem_type is None:
            problem_type = infer_problem_type(labels)
        if problem_type not in _TYPES:
            raise UnknownNameError.of("problem_type", problem_type, _TYPES)
        return _TYPES[problem_type].from_labels(labels)

    @classmethod
    @abstractmethod
    def from_labels(cls, labels: Labels) -> Problem:
        """Create a problem of this type; raises as `of`."""

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"type": self.type, **asdict(self)}  # type: ignore[call-overload]  # subclasses are dataclasses

    @staticmethod
    def from_json(record: dict[str, Any]) -> Problem:
        """Return the problem that `to_json` wrote; raise a LookupError, TypeError or ValueError if it is damaged."""
        problem: Problem = type_adapter(_TYPES[record["type"]]).validate_python({**record})
        if len({label for label in problem.classes if label == label}) < len(problem.classes):
            raise ValueError("two of the classes are equal, or one is NaN")
        return problem

    @property
    def num_outputs(self) -> int:
        """Number of outputs of a network for this problem."""
        return len(self.classes) or 1

    @property
    def class_array(self) -> np.ndarray:
        """The classes as an array whose dtype holds them exactly."""
        return class_array(self.classes)

    def require_classes(self, what: str) -> None:
        """Raise a HyperparameterError for regression problems: `what` requires classes."""
        if not self.has_classes:
            raise self._has_no_classes(what)

    def _has_no_classes(self, what: str) -> HyperparameterError:
        return HyperparameterError(f"{what} requires classes, but this is a {self.type} problem; leave it out")

    def require_one_class(self, what: str) -> None:
        """Raise a HyperparameterError unless each image has exactly one class, which `what` requires."""
        if not self.has_one_class:
            hint = (
                "predict returns a set of labels already, and predict_proba a calibrated probability of each label"
                if self.has_classes
                else "leave it out"
            )
            raise HyperparameterError(
                f"{what} requires exactly one class per image, but this is a {self.type} problem; {hint}"
            )

    # Labels and targets

    @abstractmethod
    def encode(self, labels: Labels) -> np.ndarray:
        """Return targets, see the top of this module; raise a DataError if a label is missing, or not a class."""

    @abstractmethod
    def true_labels(self, targets: np.ndarray) -> np.ndarray:
        """Return targets as labels: classes as they were given, 0 and 1 for multilabel problems, or numbers."""

    @abstractmethod
    def predicted_labels(self, predictions: np.ndarray) -> np.ndarray:
        """Return predictions as labels, in the form of `true_labels`."""

    def decode(self, predictions: np.ndarray) -> np.ndarray:
        """Return predicted labels as they were given, (num_images,); for columns (num_images, num_classes)."""
        return self.predicted_labels(predictions)

    @abstractmethod
    def names(self, predictions: np.ndarray, class_names: Sequence[str]) -> list[list[str]]:
        """Return the names of the predicted labels of each image; for regression the number as text."""

    @abstractmethod
    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return groups by which a split can be stratified, int64 of shape (num_images,): the class; for regression 0.

        For multilabel problems it is the rarest label of the image (num_classes for images without labels), so that
        rare labels are on both sides of a split.
        """

    # Training

    def loss(
        self,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        smoothing: float = 0.0,
        class_weights: torch.Tensor | None = None,
        sample_weights: torch.Tensor | None = None,
        q: float = 0.0,
    ) -> torch.Tensor:
        """Return the mean loss of a batch: cross entropy, binary cross entropy, or the squared error.

        The sum of the weighted losses is divided by the batch size, not by the sum of the weights as in torch:
        otherwise weights cancel out in small batches, and in a batch of one altogether. Targets may be soft, in the
        form of `soft_targets`, as after mixup. Class weights of multilabel problems weight only the images that have
        the label. With q from 0 (cross entropy) to 1 wrong labels have less influence: it is the generalised cross
        entropy ``(1 - p ** q) / q`` of Zhang and Sabuncu (NeurIPS 2018), where p is the probability of the label.
        """
        losses = self._losses(outputs.float(), targets, smoothing, class_weights, q)
        return (losses if sample_weights is None else losses * sample_weights).mean()

    @abstractmethod
    def _losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float, weights: torch.Tensor | None, q: float
    ) -> torch.Tensor:
        """Return the loss of each image, of shape (batch,)."""

    @abstractmethod
    def soft_targets(self, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Return targets as float32 of shape (batch, num_outputs), with label smoothing; soft ones may be given."""

    @abstractmethod
    def output_losses(self, outputs: torch.Tensor, soft_targets: torch.Tensor) -> torch.Tensor:
        """Return unweighted losses of shape (..., k); k is 1 if an image has one loss, or the number of labels."""

    def output_gradient(self, outputs: torch.Tensor, soft_targets: torch.Tensor) -> torch.Tensor:
        """Return the derivative of the loss by the outputs, up to a constant factor; of the shape of `outputs`."""
        return self.probabilities(outputs) - soft_targets

    @abstractmethod
    def num_right(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Return how many images of a batch have the right class, or exactly the right labels; 0 for regression."""

    def class_counts(self, targets: np.ndarray) -> np.ndarray:
        """Return the number of images with each class, int64 of shape (num_classes,); empty without classes."""
        return np.zeros(0, np.int64)

    def balanced_weights(self, targets: np.ndarray) -> np.ndarray:
        """Return class weights inversely proportional to class frequencies, float64 of shape (num_classes,)."""
        raise self._has_no_classes("a class weight")

    def normalised_weights(self, weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return class weights scaled so that their mean over the images is 1, where the loss is a weighted mean."""
        return weights

    def image_weights(self, class_weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the class weight of each image, or of each label of it: (num_images,) or (num_images, num_classes)."""
        raise self._has_no_classes("a class weight")

    # Predictions

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return predictions: probabilities of shape (num_images, num_classes), or numbers (num_images, 1)."""
        return self.probabilities(outputs.float())

    @abstractmethod
    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the mean of the target given the outputs (the inverse link function), in the dtype of `outputs`."""

    @abstractmethod
    def mean_outputs(self, *outputs: torch.Tensor) -> torch.Tensor:
        """Return outputs from which `activate` makes the mean of several predictions, in float32."""

    def constant_prediction(self, targets: np.ndarray) -> np.ndarray:
        """Return the best prediction that is the same for all images: class frequencies or the mean, (num_outputs,)."""
        return np.asarray(self.perfect_predictions(targets).mean(0))

    @abstractmethod
    def perfect_predictions(self, targets: np.ndarray) -> np.ndarray:
        """Return predictions that are all right, float64 of shape (num_images, num_outputs)."""

    @abstractmethod
    def confidence(self, predictions: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """Return the probability of each decision (of its least certain label), (num_images,); NaN for regression."""

    # Evaluation

    @abstractmethod
    def loss_terms(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the part of predictions that the loss depends on, float64 of shape (num_images, k).

        The probability of the true class, or of the true state of each label, or the standardised error. The terms of a
        weighted mean of predictions are the weighted mean of their terms.
        """

    def term_losses(self, terms: np.ndarray) -> np.ndarray:
        """Return the losses, (..., num_images), of `loss_terms`, (..., num_images, k)."""
        return np.asarray(-np.log(np.clip(terms, _MIN_PROBABILITY, None)).mean(-1))

    def image_losses(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the log-loss of each image, or the squared standardised error, of shape (num_images,)."""
        return self.term_losses(self.loss_terms(predictions, targets))

    def are_right(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether the predicted label, or all labels of an image, are right: bool of shape (num_images,)."""
        same = np.asarray(self.predicted_labels(predictions) == self.true_labels(targets))
        return np.asarray(same.all(1)) if same.ndim > 1 else same

    # Calibration, thresholds, conformal sets

    def logits(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return outputs that give these probabilities, in float64, finite even if a probability is 0 or 1."""
        raise self._has_no_classes("calibration")

    def given_labels(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return which labels each image gets: the likeliest, or those from `THRESHOLD` on; for regression all True."""
        return torch.ones_like(probabilities, dtype=torch.bool)

    def confidences(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probability of the likeliest class, (1, num_images); for multilabel problems of each label."""
        raise self._has_no_classes("calibration")

    def outcomes(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether what `confidences` refers to is true, bool of the same shape."""
        raise self._has_no_classes("calibration")

    def threshold_columns(self, probabilities: np.ndarray) -> np.ndarray | None:
        """Return what a threshold decides on, (num_images, k): p of the positive class, or of all labels; else None."""
        return None

    @property
    def threshold_classes(self) -> tuple[Label, ...]:
        """The classes of `threshold_columns`."""
        return self.classes

    def conformity(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return how well targets conform to predictions, (num_images,): for conformal prediction; higher is better.

        The probability of the true class, the negative distance in units of the labels; empty for multilabel problems.
        """
        return self.loss_terms(predictions, targets)[:, 0]

    @abstractmethod
    def prediction_sets(self, predictions: np.ndarray, in_set: np.ndarray, min_conformity: float) -> list[Any]:
        """Return the labels `in_set` of each image, the likeliest first; for regression intervals ``(low, high)``."""


def power_loss(log_p: torch.Tensor, q: float) -> torch.Tensor:
    """Return ``(1 - p ** q) / q`` from log p."""
    return -torch.expm1(q * log_p) / q


def refuse_many_labels(labels: Labels, problem_type: ProblemType) -> None:
    """Raise a DataError if images have lists of labels or several columns of them."""
    if isinstance(labels, pd.DataFrame) or are_label_lists(labels):
        what = "several columns of labels" if isinstance(labels, pd.DataFrame) else "lists of labels"
        raise DataError(f"{what} require problem_type='multilabel', not {problem_type!r}")
