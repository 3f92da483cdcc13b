"""What is to be predicted: labels as a network's targets, and a network's outputs as labels again."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from saccade.errors import DataError, UnknownNameError
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
"""An image has a label, where it may have many, from this probability on."""


@dataclass(frozen=True)
class Problem:
    """A kind of prediction, with what ties labels to the outputs of a network.

    Attributes
    ----------
    type : str
        ``binary``, ``multiclass``, ``multilabel`` or ``regression``.
    classes : tuple
        The labels as they were given, sorted (or, where they are columns, in the columns' order); output *i* is for
        class *i*. Empty for regression. The second class of a binary problem is the positive one.
    mean, std : float
        Regression targets are learned as ``(label - mean) / std``.
    column_dtype : str or None
        For multilabel problems that were given as columns of 0 and 1: the dtype of these, ``int64`` or ``bool``. None
        when labels were given as lists.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog", "cat"])
    >>> problem.type, problem.encode(["dog", "cat"]).tolist()
    ('binary', [1, 0])
    >>> problem = Problem.of([["cat", "dog"], ["cow"], []])
    >>> problem.type, problem.encode([["cow", "cat"]]).tolist()
    ('multilabel', [[1.0, 1.0, 0.0]])
    """

    type: ProblemType
    classes: tuple[Label, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    column_dtype: str | None = None

    @classmethod
    def of(cls, labels: Labels, problem_type: str | None = None) -> Problem:
        """Return the problem that these labels pose.

        Parameters
        ----------
        labels : sequence, array, Series or DataFrame
            One label an image, or one list of labels; or several columns of 0 and 1, named by the labels.
        problem_type : {"binary", "multiclass", "multilabel", "regression"} or None
            None infers it: see `infer_problem_type`.

        Raises
        ------
        DataError
            When labels are missing, are all the same, or do not suit `problem_type`.
        UnknownNameError
            When `problem_type` is none of the known ones.
        """
        if problem_type is None:
            problem_type = infer_problem_type(labels)
        match problem_type:
            case "multilabel":
                return cls._of_columns(labels) if isinstance(labels, pd.DataFrame) else cls._of_lists(labels)
            case "regression":
                return cls._of_numbers(labels)
            case "binary" | "multiclass":
                return cls._of_classes(labels, problem_type)
        raise UnknownNameError.of("problem_type", problem_type, get_args(ProblemType))

    @classmethod
    def _of_classes(cls, labels: Labels, problem_type: ProblemType) -> Problem:
        _refuse_many(labels, problem_type)
        classes = sorted_classes(plain_labels(labels))
        if len(classes) < 2:
            raise DataError(
                f"the labels hold {len(classes)} class{'' if len(classes) == 1 else 'es'}: {list(classes)}; "
                "a classifier needs images of two classes at least"
            )
        if problem_type == "binary" and len(classes) != 2:
            raise DataError(f"problem_type='binary' needs two classes; the labels hold {len(classes)}: {some(classes)}")
        return cls(problem_type, classes)

    @classmethod
    def _of_lists(cls, labels: Labels) -> Problem:
        classes = sorted_classes(label for row in plain_label_lists(labels) for label in row)
        if len(classes) < 2:
            raise DataError(
                f"the lists hold {len(classes)} label{'' if len(classes) == 1 else 's'}: {list(classes)}; a multilabel "
                "problem needs two at least. Whether an image has one label or not is a binary problem"
            )
        return cls("multilabel", classes)

    @classmethod
    def _of_columns(cls, frame: pd.DataFrame) -> Problem:
        columns = plain_labels(frame.columns)
        if len(set(columns)) < max(2, len(columns)):
            raise DataError(f"several columns of labels need different names, and to be two at least: {some(columns)}")
        indicators(frame)
        are_bool = all(pd.api.types.is_bool_dtype(dtype) for dtype in frame.dtypes)
        return cls("multilabel", tuple(columns), column_dtype="bool" if are_bool else "int64")

    @classmethod
    def _of_numbers(cls, labels: Labels) -> Problem:
        numbers = _numbers(labels)
        if not len(numbers):
            raise DataError("there are no labels")
        std = float(numbers.std())
        if std == 0:
            raise DataError(f"all labels are {numbers[0]}; there is nothing to learn")
        return cls("regression", (), float(numbers.mean()), std)

    @property
    def num_outputs(self) -> int:
        """Outputs of a network for this problem."""
        return len(self.classes) or 1

    @property
    def is_classification(self) -> bool:
        """Whether labels are classes, one or many an image."""
        return self.type != "regression"

    @property
    def class_array(self) -> np.ndarray:
        """The classes as an array whose dtype holds them exactly."""
        return class_array(self.classes)

    def encode(self, labels: Labels) -> np.ndarray:
        """Return targets.

        Returns
        -------
        ndarray
            Class numbers, int64 of shape (num_images,); or which labels an image has, float32 0 or 1 of shape
            (num_images, num_classes); or standardised numbers, float32 of shape (num_images,).

        Raises
        ------
        DataError
            When a label is missing, or is none of the classes.
        """
        if self.type == "regression":
            return ((_numbers(labels) - self.mean) / self.std).astype(np.float32)
        if self.type == "multilabel":
            return self._encode_columns(labels) if isinstance(labels, pd.DataFrame) else self._encode_lists(labels)
        _refuse_many(labels, self.type)
        plain = plain_labels(labels)
        number_of = self._number_of(plain)
        return np.fromiter((number_of[label] for label in plain), np.int64, len(plain))

    def _encode_lists(self, labels: Labels) -> np.ndarray:
        rows = plain_label_lists(labels)
        number_of = self._number_of([label for row in rows for label in row])
        targets = np.zeros((len(rows), len(self.classes)), np.float32)
        for target, row in zip(targets, rows, strict=True):
            target[[number_of[label] for label in row]] = 1
        return targets

    def _encode_columns(self, frame: pd.DataFrame) -> np.ndarray:
        lacking = [name for name in self.classes if name not in frame.columns]
        if lacking:
            raise DataError(f"the columns {some(lacking)} of labels are missing; there are {some(list(frame.columns))}")
        return indicators(frame[list(self.classes)])

    def _number_of(self, labels: list[Label]) -> dict[Label, int]:
        """Return the numbers of the classes, after a look whether these labels are all among them."""
        number_of = {label: number for number, label in enumerate(self.classes)}
        unknown = list(dict.fromkeys(label for label in labels if label not in number_of))
        if unknown:
            raise DataError(f"labels {some(unknown)} are not among the classes that were trained: {some(self.classes)}")
        return number_of

    def strata(self, labels: Labels) -> np.ndarray:
        """Return groups to split by, so that all parts have the same share of each class.

        Returns
        -------
        ndarray of int64, shape (num_images,)
            The class; for multilabel problems the rarest label that an image has (one more group for none), so that
            rare labels are on both sides of a split; for regression 0.
        """
        targets = self.encode(labels)
        if self.type == "regression":
            return np.zeros(len(targets), np.int64)
        return rarest_labels(targets) if self.type == "multilabel" else targets

    def loss(
        self,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        smoothing: float = 0.0,
        class_weights: torch.Tensor | None = None,
        sample_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the mean loss of a batch: cross entropy, binary cross entropy, or the squared error.

        Parameters
        ----------
        outputs : Tensor, shape (batch, num_outputs)
            Of the network.
        targets : Tensor
            What `encode` returned; or, after mixup, float class probabilities of shape (batch, num_classes).
        smoothing : float
            Label smoothing, from 0 on and less than 1.
        class_weights : Tensor or None, shape (num_classes,)
            From `saccade.training.imbalance.class_weights`. For multilabel problems they weigh only the images that
            have the label.
        sample_weights : Tensor or None, shape (batch,)
            From `saccade.training.imbalance.sample_weights`.

        Returns
        -------
        Tensor, shape ()
            The sum of weighted losses by the size of the batch, and not by the sum of its weights as in torch: with
            that, weights would cancel out in small batches, and in a batch of one altogether.
        """
        outputs = outputs.float()
        if self.type == "regression":
            losses = functional.mse_loss(outputs.squeeze(1), targets, reduction="none")
        elif self.type == "multilabel":
            losses = functional.binary_cross_entropy_with_logits(
                outputs, self.soft_targets(targets, smoothing), pos_weight=class_weights, reduction="none"
            ).mean(1)
        else:
            losses = functional.cross_entropy(
                outputs, targets, class_weights, label_smoothing=smoothing, reduction="none"
            )
        return (losses if sample_weights is None else losses * sample_weights).mean()

    def soft_targets(self, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Return class probabilities, float32 of shape (batch, num_classes), with label smoothing in them."""
        if self.type == "multilabel":
            return targets * (1 - smoothing) + smoothing / 2
        one_hot = functional.one_hot(targets, len(self.classes)).float()
        return one_hot * (1 - smoothing) + smoothing / len(self.classes)

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return probabilities of shape (num_images, num_classes), or numbers in the labels' units (num_images, 1)."""
        if self.type == "regression":
            # 32 bits would round what varies little around a large mean; MPS has no more than these.
            dtype = torch.float32 if outputs.device.type == "mps" else torch.float64
            return outputs.to(dtype) * self.std + self.mean
        return outputs.float().sigmoid() if self.type == "multilabel" else outputs.float().softmax(1)

    def mean_outputs(self, *outputs: torch.Tensor) -> torch.Tensor:
        """Return outputs of which `activate` makes the mean of the predictions of several, in float32.

        Examples
        --------
        >>> problem = Problem.of(["cat", "dog"])
        >>> sure, unsure = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> problem.activate(problem.mean_outputs(sure, unsure))
        tensor([[0.7000, 0.3000]])
        """
        stacked = torch.stack([each.float() for each in outputs])
        if self.type == "regression":
            return stacked.mean(0)
        if self.type == "multilabel":  # the logit of a mean, by the logarithms of both its sides
            has, has_not = functional.logsigmoid(stacked), functional.logsigmoid(-stacked)
            return has.logsumexp(0) - has_not.logsumexp(0)
        return stacked.log_softmax(-1).logsumexp(0) - math.log(len(outputs))

    def num_right(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Return how many images of a batch have the right class, or exactly the right labels; 0 for regression.

        `outputs` and `targets` are as in `loss`, but targets are not mixed.
        """
        if self.type == "regression":
            return 0.0
        if self.type == "multilabel":
            return ((outputs >= 0) == (targets > 0)).all(1).sum().item()
        return (outputs.argmax(1) == targets).sum().item()

    def given_labels(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return which labels each image gets, bool of shape (num_images, num_classes).

        Parameters
        ----------
        probabilities : torch.Tensor, shape (num_images, num_classes)
            The largest one gives the label; for multilabel problems, those from `THRESHOLD` on give labels.
        """
        if self.type == "multilabel":
            return probabilities >= THRESHOLD
        return functional.one_hot(probabilities.argmax(1), len(self.classes)).bool()

    def decode(self, predictions: np.ndarray) -> np.ndarray:
        """Return labels, as they were given, from what `activate` returned.

        Returns
        -------
        ndarray, shape (num_images,)
            Classes in the dtype of `class_array`, lists of labels, or numbers. When labels were given as columns: 0
            and 1, of shape (num_images, num_classes).
        """
        if self.type == "regression":
            return predictions[:, 0]
        if self.type != "multilabel":
            labels: np.ndarray = self.class_array[predictions.argmax(1)]
            return labels
        has_label = predictions >= THRESHOLD
        if self.column_dtype is not None:
            return has_label.astype(self.column_dtype)
        lists = np.empty(len(predictions), object)
        for row, has in enumerate(has_label):
            lists[row] = [self.classes[number] for number in np.flatnonzero(has)]
        return lists

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Problem:
        """Return the problem that `to_json` wrote."""
        return cls(**{**record, "classes": tuple(record["classes"])})


def rarest_labels(targets: np.ndarray) -> np.ndarray:
    """Return the number of the rarest label that each image has; for an image without labels, num_classes.

    Parameters
    ----------
    targets : ndarray of 0 and 1, shape (num_images, num_classes)
        Which labels images have.

    Returns
    -------
    ndarray of int64, shape (num_images,)
        Label numbers.

    Examples
    --------
    >>> rarest_labels(np.array([[1, 0], [1, 1], [0, 0]])).tolist()
    [0, 1, 2]
    """
    counts = targets.sum(0)
    rarity = np.where(targets > 0, counts, np.inf)
    rarest: np.ndarray = np.where((targets > 0).any(1), rarity.argmin(1), targets.shape[1])
    return rarest


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
        plain_labels(labels)  # tells of missing ones in their own words
        raise DataError(f"problem_type='regression' needs numbers as labels; {error}") from None
    if num_missing := int(np.isnan(numbers).sum()):
        raise DataError(f"{num_missing} of {len(numbers)} labels are missing; leave those rows out")
    if not np.isfinite(numbers).all():
        raise DataError("problem_type='regression' needs finite numbers as labels; some are infinite")
    return numbers
