"""Problem types: one class each for binary, multiclass, multilabel and regression problems.

A problem connects labels, network outputs and predictions. All that differs between the types is here, so that other
modules call a method instead of comparing the type. Three arrays occur throughout:

- targets, from `Problem.encode`: class numbers, int64 of shape (num_images,); for multilabel problems 0 and 1, float32
  of shape (num_images, num_classes); for regression standardised numbers, float32 of shape (num_images,)
- outputs of a network: float, of shape (num_images, num_outputs); logits, or standardised numbers
- predictions, from `Problem.activate`: probabilities of shape (num_images, num_classes), or numbers in the units of
  the labels, of shape (num_images, 1)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from typing_extensions import Self

from saccade.errors import DataError, HyperparameterError, UnknownNameError
from saccade.tasks.labels import (
    Label,
    Labels,
    ProblemType,
    are_label_lists,
    class_array,
    indicators,
    infer_problem_type,
    plain_label_lists,
    plain_labels,
    some,
    sorted_classes,
)

THRESHOLD = 0.5
"""A multilabel problem assigns a label from this probability on."""

_MIN_PROBABILITY = 1e-15  # where the log-loss is clipped, as scikit-learn did for long


class Problem(ABC):
    """A prediction task: which labels exist, and what the outputs of a network mean.

    Use `Problem.of` to create one from labels.

    Attributes
    ----------
    type : str
        ``binary``, ``multiclass``, ``multilabel`` or ``regression``.
    classes : tuple
        The labels as they were given, sorted (or, if labels are columns, in the order of the columns). Output *i*
        belongs to class *i*. Empty for regression. The second class of a binary problem is the positive one.
    has_classes : bool
        Whether predictions are probabilities of classes; False for regression.
    has_one_class : bool
        Whether each image has exactly one class: binary and multiclass problems.
    default_metric : str
        Metric that is used without `eval_metric`.
    common_metrics : tuple of str
        Metrics to suggest.
    curvature_bound : float
        Upper bound on the second derivative of the loss of an image by its outputs (Böhning 1992).

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog", "cat"])
    >>> problem.type, problem.encode(["dog", "cat"]).tolist()
    ('binary', [1, 0])
    >>> problem = Problem.of([["cat", "dog"], ["cow"], []])
    >>> problem.type, problem.encode([["cow", "cat"]]).tolist()
    ('multilabel', [[1.0, 1.0, 0.0]])
    """

    type: ClassVar[ProblemType]
    has_classes: ClassVar[bool] = True
    has_one_class: ClassVar[bool] = False
    default_metric: ClassVar[str]
    common_metrics: ClassVar[tuple[str, ...]]
    curvature_bound: ClassVar[float]
    classes: tuple[Label, ...]

    @staticmethod
    def of(labels: Labels, problem_type: str | None = None) -> Problem:
        """Create the problem for these labels.

        Parameters
        ----------
        labels : sequence, array, Series or DataFrame
            One label per image, or one list of labels; or several columns of 0 and 1, named by the labels.
        problem_type : {"binary", "multiclass", "multilabel", "regression"} or None
            None infers it, see `infer_problem_type`.

        Raises
        ------
        DataError
            If labels are missing, are all the same, or do not suit `problem_type`.
        UnknownNameError
            If `problem_type` is not one of the four.
        """
        if problem_type is None:
            problem_type = infer_problem_type(labels)
        if problem_type not in PROBLEM_TYPES:
            raise UnknownNameError.of("problem_type", problem_type, PROBLEM_TYPES)
        return PROBLEM_TYPES[problem_type].from_labels(labels)

    @classmethod
    @abstractmethod
    def from_labels(cls, labels: Labels) -> Problem:
        """Create a problem of this type; raises as `of`."""

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"type": self.type, **asdict(self)}  # type: ignore[call-overload]  # subclasses are dataclasses

    @staticmethod
    def from_json(record: dict[str, Any]) -> Problem:
        """Return the problem that `to_json` wrote."""
        kind = PROBLEM_TYPES[record["type"]]
        # Records of earlier versions hold the fields of all types.
        known = {field.name: record[field.name] for field in fields(kind) if field.name in record}  # type: ignore[arg-type]
        if "classes" in known:
            known["classes"] = tuple(known["classes"])
        return kind(**known)

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
            raise HyperparameterError(
                f"{what} requires exactly one class per image, but this is a {self.type} problem; leave it out"
            )

    # Labels and targets

    @abstractmethod
    def encode(self, labels: Labels) -> np.ndarray:
        """Return targets, see the top of this module.

        Raises
        ------
        DataError
            If a label is missing, or is not one of the classes.
        """

    @abstractmethod
    def true_labels(self, targets: np.ndarray) -> np.ndarray:
        """Return targets as labels: classes as they were given, 0 and 1 for multilabel problems, or numbers."""

    @abstractmethod
    def predicted_labels(self, predictions: np.ndarray) -> np.ndarray:
        """Return predictions as labels, in the form of `true_labels`."""

    def decode(self, predictions: np.ndarray) -> np.ndarray:
        """Return predicted labels in the form in which labels were given.

        Returns
        -------
        ndarray, shape (num_images,)
            Classes in the dtype of `class_array`, lists of labels, or numbers. If labels were given as columns: 0 and
            1, of shape (num_images, num_classes).
        """
        return self.predicted_labels(predictions)

    @abstractmethod
    def names(self, predictions: np.ndarray, class_names: Sequence[str]) -> list[list[str]]:
        """Return the names of the predicted labels of each image; for regression the number as text."""

    @abstractmethod
    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return groups by which a split can be stratified.

        Returns
        -------
        ndarray of int64, shape (num_images,)
            The class; for multilabel problems the rarest label of the image (num_classes for images without labels),
            so that rare labels are on both sides of a split; for regression 0.
        """

    def absent_classes(self, targets: np.ndarray) -> list[Label]:
        """Return the classes of no image; for multilabel problems also the labels of all images."""
        return []

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

        Parameters
        ----------
        outputs : Tensor, shape (batch, num_outputs)
            Outputs of the network.
        targets : Tensor
            What `encode` returned; or, after mixup, float class probabilities of shape (batch, num_classes).
        smoothing : float
            Label smoothing, in [0, 1).
        class_weights : Tensor or None, shape (num_classes,)
            From `saccade.training.imbalance.class_weights`. For multilabel problems they weight only the images that
            have the label.
        sample_weights : Tensor or None, shape (batch,)
            From `saccade.training.imbalance.sample_weights`.
        q : float
            0 is cross entropy. From there to 1 wrong labels have less influence: it is the generalised cross entropy
            ``(1 - p ** q) / q`` of Zhang and Sabuncu (NeurIPS 2018), where p is the probability of the label. Only for
            classes.

        Returns
        -------
        Tensor, shape ()
            Sum of the weighted losses divided by the batch size, not by the sum of the weights as in torch: otherwise
            weights cancel out in small batches, and in a batch of one altogether.

        Examples
        --------
        >>> problem = Problem.of(["cat", "dog"])
        >>> right, wrong = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
        >>> [round(problem.loss(each, torch.tensor([0]), q=0.7).item(), 2) for each in (right, wrong)]
        [0.05, 1.26]
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
        """Return targets in the form of outputs, float32 of shape (batch, num_outputs), with label smoothing."""

    @abstractmethod
    def output_losses(self, outputs: torch.Tensor, soft_targets: torch.Tensor) -> torch.Tensor:
        """Return unweighted losses of shape (..., k); k is 1 if an image has one loss, or the number of labels."""

    def output_gradient(self, outputs: torch.Tensor, soft_targets: torch.Tensor) -> torch.Tensor:
        """Return the derivative of the loss by the outputs, up to a constant factor; of the shape of `outputs`."""
        return self._expected(outputs) - soft_targets

    @abstractmethod
    def _expected(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the targets that outputs expect: the inverse link function of a generalised linear model."""

    @abstractmethod
    def num_right(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Return how many images of a batch have the right class, or exactly the right labels; 0 for regression.

        `outputs` and `targets` are as in `loss`, without mixup.
        """

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
        return self._expected(outputs.float())

    @abstractmethod
    def mean_outputs(self, *outputs: torch.Tensor) -> torch.Tensor:
        """Return outputs from which `activate` makes the mean of several predictions, in float32.

        Examples
        --------
        >>> problem = Problem.of(["cat", "dog"])
        >>> sure, unsure = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> problem.activate(problem.mean_outputs(sure, unsure))
        tensor([[0.7000, 0.3000]])
        """

    @abstractmethod
    def constant_prediction(self, targets: np.ndarray) -> np.ndarray:
        """Return the best prediction that is the same for all images: class frequencies or the mean, (num_outputs,)."""

    @abstractmethod
    def perfect_predictions(self, targets: np.ndarray) -> np.ndarray:
        """Return predictions that are all right, float64 of shape (num_images, num_outputs)."""

    @abstractmethod
    def confidence(self, predictions: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """Return how probable the decision on each image is, of shape (num_images,).

        Parameters
        ----------
        predictions, decided : ndarray, shape (num_images, num_classes)
            Predictions before and after thresholds were applied. For multilabel problems the least certain label
            counts.
        """

    # Evaluation

    @abstractmethod
    def loss_terms(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the part of predictions that the loss depends on, float64 of shape (num_images, k).

        That is the probability of the true class, the probability of the true state of each label, or the
        standardised error. The terms of a weighted mean of predictions are the weighted mean of their terms.
        """

    def term_losses(self, terms: np.ndarray) -> np.ndarray:
        """Return the losses, (..., num_images), of `loss_terms`, (..., num_images, k)."""
        losses: np.ndarray = -np.log(np.clip(terms, _MIN_PROBABILITY, None)).mean(-1)
        return losses

    def image_losses(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the log-loss of each image, or the squared standardised error, of shape (num_images,)."""
        return self.term_losses(self.loss_terms(predictions, targets))

    @abstractmethod
    def are_right(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether the predicted label, or all labels of an image, are right: bool of shape (num_images,)."""

    # Calibration, thresholds, conformal sets

    def logits(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return outputs that give these probabilities, in float64, finite even if a probability is 0 or 1."""
        raise self._has_no_classes("calibration")

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of these outputs, in the dtype of `logits`."""
        return self._expected(logits)

    def given_labels(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return which labels each image gets, bool of the shape of `probabilities`; for regression all True.

        The largest probability gives the label; for multilabel problems, those from `THRESHOLD` on give labels.
        """
        return torch.ones_like(probabilities, dtype=torch.bool)

    def confidences(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the confidences that calibration refers to, of shape (k, num_images).

        One row with the probability of the likeliest class, or for multilabel problems one row per label.
        """
        raise self._has_no_classes("calibration")

    def outcomes(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether what `confidences` refers to is true, bool of the same shape."""
        raise self._has_no_classes("calibration")

    def threshold_columns(self, probabilities: np.ndarray) -> np.ndarray | None:
        """Return the probabilities that a threshold decides on; None for multiclass and regression problems.

        For binary problems that of the positive class, of shape (num_images, 1); for multilabel problems all.
        """
        return None

    @property
    def threshold_classes(self) -> tuple[Label, ...]:
        """The classes of `threshold_columns`."""
        return self.classes

    def conformity(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return how well targets conform to predictions, (num_images,): for conformal prediction; higher is better.

        The probability of the true class; for regression the negative distance in the units of the labels; empty for
        multilabel problems.
        """
        return self.loss_terms(predictions, targets)[:, 0]

    @abstractmethod
    def prediction_sets(self, predictions: np.ndarray, in_set: np.ndarray, min_conformity: float) -> list[Any]:
        """Return the conformal set of each image.

        Parameters
        ----------
        predictions : ndarray, shape (num_images, num_outputs)
            Calibrated probabilities, or numbers.
        in_set : ndarray of bool, shape (num_images, num_outputs)
            Which labels are in the set.
        min_conformity : float
            The `conformity` from which on a number is in the set.

        Returns
        -------
        list
            A list of labels for each image, the most probable first; for regression an interval ``(low, high)``.
        """


@dataclass(frozen=True)
class Classification(Problem):
    """Problems whose predictions are probabilities of classes."""

    classes: tuple[Label, ...]

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
        _refuse_many(labels, cls.type)
        classes = sorted_classes(plain_labels(labels))
        if len(classes) < 2:
            raise DataError(
                f"the labels hold {len(classes)} class{'' if len(classes) == 1 else 'es'}: {list(classes)}; "
                "a classifier needs images of at least two classes"
            )
        if cls is Binary and len(classes) != 2:
            raise DataError(f"problem_type='binary' needs two classes; the labels hold {len(classes)}: {some(classes)}")
        return cls(classes)

    def encode(self, labels: Labels) -> np.ndarray:
        """Return class numbers, int64 of shape (num_images,)."""
        _refuse_many(labels, self.type)
        plain = plain_labels(labels)
        number_of = self._number_of(plain)
        return np.fromiter((number_of[label] for label in plain), np.int64, len(plain))

    def true_labels(self, targets: np.ndarray) -> np.ndarray:
        """Return classes as they were given."""
        labels: np.ndarray = self.class_array[targets]
        return labels

    def predicted_labels(self, predictions: np.ndarray) -> np.ndarray:
        """Return the likeliest class."""
        return self.true_labels(predictions.argmax(1))

    def names(self, predictions: np.ndarray, class_names: Sequence[str]) -> list[list[str]]:
        """Return the name of the likeliest class."""
        return [[class_names[number]] for number in predictions.argmax(1).tolist()]

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return the class numbers."""
        return targets

    def absent_classes(self, targets: np.ndarray) -> list[Label]:
        """Return the classes of no image."""
        counts = np.bincount(targets, minlength=len(self.classes))
        return [label for label, count in zip(self.classes, counts, strict=True) if not count]

    def _losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float, weights: torch.Tensor | None, q: float
    ) -> torch.Tensor:
        if not q:
            return functional.cross_entropy(outputs, targets, weights, label_smoothing=smoothing, reduction="none")
        soft = targets if targets.is_floating_point() else self.soft_targets(targets, smoothing)
        soft = soft if weights is None else soft * weights
        return (soft * _power_loss(outputs.log_softmax(1), q)).sum(1)

    def soft_targets(self, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Return smoothed one-hot vectors."""
        one_hot = functional.one_hot(targets, len(self.classes)).float()
        return one_hot * (1 - smoothing) + smoothing / len(self.classes)

    def output_losses(self, outputs: torch.Tensor, soft_targets: torch.Tensor) -> torch.Tensor:
        """Return cross entropies."""
        return -(soft_targets * outputs.log_softmax(-1)).sum(-1, keepdim=True)

    def _expected(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.softmax(-1)

    def num_right(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Return how often the largest output is that of the true class."""
        return (outputs.argmax(1) == targets).sum().item()

    def balanced_weights(self, targets: np.ndarray) -> np.ndarray:
        """Return the number of images by the number of images of the class; as if a class without images had one."""
        return len(targets) / np.maximum(np.bincount(targets, minlength=len(self.classes)), 1)

    def normalised_weights(self, weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return weights by their mean over the images; raise a HyperparameterError if that is 0."""
        mean = weights[targets].mean()
        if mean == 0:
            raise HyperparameterError("class_weight gives no training image a weight above 0; give positive weights")
        normalised: np.ndarray = weights / mean
        return normalised

    def image_weights(self, class_weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the weight of the class of each image."""
        weights: np.ndarray = class_weights[targets]
        return weights

    def mean_outputs(self, *outputs: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of the mean probabilities."""
        stacked = torch.stack([each.float() for each in outputs])
        return stacked.log_softmax(-1).logsumexp(0) - math.log(len(outputs))

    def constant_prediction(self, targets: np.ndarray) -> np.ndarray:
        """Return the class frequencies."""
        return np.bincount(targets, minlength=self.num_outputs) / len(targets)

    def perfect_predictions(self, targets: np.ndarray) -> np.ndarray:
        """Return one-hot vectors."""
        right: np.ndarray = (targets[:, None] == np.arange(self.num_outputs)).astype(np.float64)
        return right

    def confidence(self, predictions: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """Return the probability of the class that was decided on."""
        confidence: np.ndarray = predictions[np.arange(len(predictions)), decided.argmax(1)]
        return confidence

    def loss_terms(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the probability of the true class."""
        terms: np.ndarray = predictions[np.arange(len(targets)), targets][:, None].astype(np.float64)
        return terms

    def are_right(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether the likeliest class is the true one."""
        right: np.ndarray = predictions.argmax(1) == targets
        return right

    def logits(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return logarithms, of which the largest of each image is 0."""
        logs = probabilities.double().clamp_min(torch.finfo(torch.float32).tiny).log()
        return logs - logs.amax(1, keepdim=True)

    def given_labels(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return True for the most probable class of each image."""
        return functional.one_hot(probabilities.argmax(1), len(self.classes)).bool()

    def confidences(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probability of the likeliest class."""
        confidences: np.ndarray = probabilities.max(1)[None]
        return confidences

    def outcomes(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether the likeliest class is the true one."""
        return self.are_right(probabilities, targets)[None]

    def prediction_sets(self, predictions: np.ndarray, in_set: np.ndarray, min_conformity: float) -> list[Any]:
        """Return the classes in the set, the most probable first."""
        order = np.argsort(-predictions, axis=1, kind="stable")
        return [[self.classes[k] for k in row if mask[k]] for row, mask in zip(order, in_set, strict=True)]


@dataclass(frozen=True)
class Binary(SingleLabel):
    """Two classes; the second one is the positive class."""

    type = "binary"
    common_metrics = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "average_precision", "log_loss", "mcc")

    def threshold_columns(self, probabilities: np.ndarray) -> np.ndarray | None:
        """Return the probability of the positive class."""
        return probabilities[:, 1:]

    @property
    def threshold_classes(self) -> tuple[Label, ...]:
        """The positive class."""
        return self.classes[1:]


@dataclass(frozen=True)
class Multiclass(SingleLabel):
    """Any number of classes, of which each image has one."""

    type = "multiclass"
    common_metrics = (
        "accuracy",
        "balanced_accuracy",
        "f1_macro",
        "roc_auc_ovr",
        "log_loss",
        "mcc",
        "quadratic_kappa",
    )


@dataclass(frozen=True)
class Multilabel(Classification):
    """Any number of labels per image, none included: a sigmoid and a binary cross entropy for each label.

    Attributes
    ----------
    column_dtype : str or None
        If labels were given as columns of 0 and 1: their dtype, ``int64`` or ``bool``. None for lists of labels.
    """

    column_dtype: str | None = None

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
        classes = sorted_classes(label for row in plain_label_lists(labels) for label in row)
        if len(classes) < 2:
            raise DataError(
                f"the lists hold {len(classes)} label{'' if len(classes) == 1 else 's'}: {list(classes)}; a multilabel "
                "problem needs at least two. Whether an image has one label or not is a binary problem"
            )
        return cls(classes)

    def encode(self, labels: Labels) -> np.ndarray:
        """Return 0 and 1, float32 of shape (num_images, num_classes)."""
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
        """Return 0 and 1, int64 of shape (num_images, num_classes)."""
        labels: np.ndarray = (targets > 0).astype(np.int64)
        return labels

    def predicted_labels(self, predictions: np.ndarray) -> np.ndarray:
        """Return 0 and 1, int64 of shape (num_images, num_classes)."""
        labels: np.ndarray = (predictions >= THRESHOLD).astype(np.int64)
        return labels

    def decode(self, predictions: np.ndarray) -> np.ndarray:
        """Return lists of labels; or 0 and 1 in the dtype of the columns, if labels were given as columns."""
        has_label = predictions >= THRESHOLD
        if self.column_dtype is not None:
            return has_label.astype(self.column_dtype)
        lists = np.empty(len(predictions), object)
        for row, has in enumerate(has_label):
            lists[row] = [self.classes[number] for number in np.flatnonzero(has)]
        return lists

    def names(self, predictions: np.ndarray, class_names: Sequence[str]) -> list[list[str]]:
        """Return the names of all labels of each image."""
        return [[class_names[number] for number in np.flatnonzero(row).tolist()] for row in predictions >= THRESHOLD]

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return the number of the rarest label of each image; num_classes for images without labels.

        Examples
        --------
        >>> Multilabel(("a", "b")).strata(np.array([[1, 0], [1, 1], [0, 0]])).tolist()
        [0, 1, 2]
        """
        rarity = np.where(targets > 0, targets.sum(0), np.inf)
        rarest: np.ndarray = np.where((targets > 0).any(1), rarity.argmin(1), targets.shape[1])
        return rarest

    def absent_classes(self, targets: np.ndarray) -> list[Label]:
        """Return the labels of no image or of all images."""
        num_with = (targets > 0).sum(0)
        return [label for label, num in zip(self.classes, num_with, strict=True) if num in (0, len(targets))]

    def _losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float, weights: torch.Tensor | None, q: float
    ) -> torch.Tensor:
        soft = self.soft_targets(targets, smoothing)
        if not q:
            return functional.binary_cross_entropy_with_logits(
                outputs, soft, pos_weight=weights, reduction="none"
            ).mean(1)
        has = soft * _power_loss(functional.logsigmoid(outputs), q)
        has_not = (1 - soft) * _power_loss(functional.logsigmoid(-outputs), q)
        return ((has if weights is None else has * weights) + has_not).mean(1)

    def soft_targets(self, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Return targets between ``smoothing / 2`` and ``1 - smoothing / 2``."""
        return targets * (1 - smoothing) + smoothing / 2

    def output_losses(self, outputs: torch.Tensor, soft_targets: torch.Tensor) -> torch.Tensor:
        """Return the binary cross entropy of each label."""
        return functional.binary_cross_entropy_with_logits(outputs, soft_targets.expand_as(outputs), reduction="none")

    def _expected(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.sigmoid()

    def num_right(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Return how many images have exactly the right labels."""
        return ((outputs >= 0) == (targets > 0)).all(1).sum().item()

    def balanced_weights(self, targets: np.ndarray) -> np.ndarray:
        """Return the number of images without the label by the number of images with it."""
        num_with = targets.sum(0, dtype=np.float64)
        num_without = len(targets) - num_with
        # A label of no image, or of all images, cannot be balanced: its weight is 1.
        can_balance = (num_with > 0) & (num_without > 0)
        weights: np.ndarray = np.divide(num_without, num_with, out=np.ones_like(num_with), where=can_balance)
        return weights

    def image_weights(self, class_weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the weights of the labels that each image has, and 1 for those that it has not."""
        return np.where(targets > 0, class_weights, np.ones(targets.shape, np.float32))

    def mean_outputs(self, *outputs: torch.Tensor) -> torch.Tensor:
        """Return the logit of the mean probabilities, from the logarithms of both p and 1 - p."""
        stacked = torch.stack([each.float() for each in outputs])
        return functional.logsigmoid(stacked).logsumexp(0) - functional.logsigmoid(-stacked).logsumexp(0)

    def constant_prediction(self, targets: np.ndarray) -> np.ndarray:
        """Return the frequency of each label."""
        frequencies: np.ndarray = (targets > 0).mean(axis=0)
        return frequencies

    def perfect_predictions(self, targets: np.ndarray) -> np.ndarray:
        """Return 0 and 1."""
        right: np.ndarray = (targets > 0).astype(np.float64)
        return right

    def confidence(self, predictions: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """Return the probability of the decision on the least certain label."""
        confidence: np.ndarray = np.maximum(decided, 1 - decided).min(1)
        return confidence

    def loss_terms(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the probability of the true state of each label."""
        terms: np.ndarray = np.where(targets > 0, predictions, 1 - predictions).astype(np.float64)
        return terms

    def are_right(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether all labels of an image are right."""
        right: np.ndarray = ((predictions >= THRESHOLD) == (targets > 0)).all(1)
        return right

    def logits(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return the logit of each probability."""
        p, least = probabilities.double(), torch.finfo(torch.float32)
        return p.clamp_min(least.tiny).log() - (1 - p).clamp_min(least.eps / 4).log()

    def given_labels(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return True for probabilities from `THRESHOLD` on."""
        return probabilities >= THRESHOLD

    def confidences(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probability of each label."""
        columns: np.ndarray = probabilities.T
        return columns

    def outcomes(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether images have each label."""
        outcomes: np.ndarray = targets.T > 0
        return outcomes

    def threshold_columns(self, probabilities: np.ndarray) -> np.ndarray | None:
        """Return all probabilities."""
        return probabilities

    def conformity(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return nothing: there are no conformal sets of sets."""
        return np.zeros(0)

    def require_one_class(self, what: str) -> None:
        """Raise a HyperparameterError."""
        raise HyperparameterError(
            f"{what} requires exactly one class per image, but this is a multilabel problem; predict returns a set of "
            "labels already, and predict_proba a calibrated probability of each label"
        )

    def prediction_sets(self, predictions: np.ndarray, in_set: np.ndarray, min_conformity: float) -> list[Any]:
        """Raise a HyperparameterError: `decode` returns a set already."""
        self.require_one_class("a set of labels")
        return []


@dataclass(frozen=True)
class Regression(Problem):
    """Numbers, standardised as ``(label - mean) / std``: the squared error.

    Attributes
    ----------
    mean, std : float
        Mean and standard deviation of the training labels.
    """

    mean: float = 0.0
    std: float = 1.0

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
        """Return standardised numbers, float32 of shape (num_images,)."""
        return ((_numbers(labels) - self.mean) / self.std).astype(np.float32)

    def true_labels(self, targets: np.ndarray) -> np.ndarray:
        """Return numbers in the units of the labels."""
        numbers: np.ndarray = targets.astype(np.float64) * self.std + self.mean
        return numbers

    def predicted_labels(self, predictions: np.ndarray) -> np.ndarray:
        """Return the numbers, of shape (num_images,)."""
        numbers: np.ndarray = predictions[:, 0]
        return numbers

    def names(self, predictions: np.ndarray, class_names: Sequence[str]) -> list[list[str]]:
        """Return the number, rounded to 6 digits."""
        return [[f"{number:.6g}"] for number in predictions[:, 0]]

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return zeros: there is nothing to stratify by."""
        return np.zeros(len(targets), np.int64)

    def _losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float, weights: torch.Tensor | None, q: float
    ) -> torch.Tensor:
        if q:
            raise self._has_no_classes("robust_loss")
        return functional.mse_loss(outputs.squeeze(1), targets, reduction="none")

    def soft_targets(self, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Return the targets as a column."""
        return targets.float()[:, None]

    def output_losses(self, outputs: torch.Tensor, soft_targets: torch.Tensor) -> torch.Tensor:
        """Return squared errors."""
        return (outputs - soft_targets).square()

    def _expected(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs

    def num_right(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Return 0."""
        return 0.0

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return numbers in the units of the labels, in float64 where the device has it."""
        # float32 would round numbers that vary little around a large mean; MPS has no float64.
        dtype = torch.float32 if outputs.device.type == "mps" else torch.float64
        return outputs.to(dtype) * self.std + self.mean

    def mean_outputs(self, *outputs: torch.Tensor) -> torch.Tensor:
        """Return the mean."""
        return torch.stack([each.float() for each in outputs]).mean(0)

    def constant_prediction(self, targets: np.ndarray) -> np.ndarray:
        """Return the mean label."""
        return np.array([targets.astype(np.float64).mean() * self.std + self.mean])

    def perfect_predictions(self, targets: np.ndarray) -> np.ndarray:
        """Return the true numbers as a column."""
        return self.true_labels(targets)[:, None]

    def confidence(self, predictions: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """Return NaN."""
        return np.full(len(predictions), np.nan)

    def errors(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return prediction minus label in the units of the labels, float64 of shape (num_images,)."""
        errors: np.ndarray = self.loss_terms(predictions, targets)[:, 0] * self.std
        return errors

    def loss_terms(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return standardised errors."""
        terms: np.ndarray = ((predictions - self.mean) / self.std - targets[:, None]).astype(np.float64)
        return terms

    def term_losses(self, terms: np.ndarray) -> np.ndarray:
        """Return the squares."""
        squares: np.ndarray = (terms**2).mean(-1)
        return squares

    def are_right(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether the number is exact."""
        right: np.ndarray = predictions[:, 0] == self.true_labels(targets)
        return right

    def conformity(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the negative distance in the units of the labels."""
        conformity: np.ndarray = -np.abs(predictions[:, 0] - self.true_labels(targets))
        return conformity

    def prediction_sets(self, predictions: np.ndarray, in_set: np.ndarray, min_conformity: float) -> list[Any]:
        """Return intervals around the predicted numbers."""
        return [(float(number + min_conformity), float(number - min_conformity)) for number in predictions[:, 0]]


PROBLEM_TYPES: dict[str, type[Problem]] = {kind.type: kind for kind in (Binary, Multiclass, Multilabel, Regression)}
"""The class of each problem type by its name."""


def _power_loss(log_p: torch.Tensor, q: float) -> torch.Tensor:
    """Return ``(1 - p ** q) / q`` from log p."""
    return -torch.expm1(q * log_p) / q


def _refuse_many(labels: Labels, problem_type: ProblemType) -> None:
    if isinstance(labels, pd.DataFrame) or are_label_lists(labels):
        what = "several columns of labels" if isinstance(labels, pd.DataFrame) else "lists of labels"
        raise DataError(f"{what} are for problem_type='multilabel', and it is {problem_type!r}")


def _numbers(labels: Labels) -> np.ndarray:
    """Return regression labels as float64 of shape (num_images,)."""
    _refuse_many(labels, "regression")
    try:
        numbers = np.array([float(label) for label in list[Any](labels)])
    except (TypeError, ValueError) as error:
        plain_labels(labels)  # reports missing labels
        raise DataError(f"problem_type='regression' needs numbers as labels; {error}") from None
    if num_missing := int(np.isnan(numbers).sum()):
        raise DataError(f"{num_missing} of {len(numbers)} labels are missing; leave those rows out")
    if not np.isfinite(numbers).all():
        raise DataError("problem_type='regression' needs finite numbers as labels; some are infinite")
    return numbers
