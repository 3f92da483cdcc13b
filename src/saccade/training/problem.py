"""What is to be predicted: labels as a network's targets, and a network's outputs as labels again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from saccade.errors import DataError, UnknownNameError

ProblemType = Literal["binary", "multiclass", "regression"]

Label = str | int | float | bool


@dataclass(frozen=True)
class Problem:
    """A kind of prediction, with what ties labels to the outputs of a network.

    Attributes
    ----------
    type : str
        ``binary``, ``multiclass`` or ``regression``.
    classes : tuple
        The labels as they were given, sorted; output *i* is for class *i*. Empty for regression.
    mean, std : float
        Regression targets are learned as ``(label - mean) / std``.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog", "cat"])
    >>> problem.type, problem.encode(["dog", "cat"]).tolist()
    ('binary', [1, 0])
    """

    type: ProblemType
    classes: tuple[Label, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def of(cls, labels: Sequence[Any] | pd.Series, problem_type: str | None = None) -> Problem:
        """Return the problem that these labels pose; two classes are binary, unless `problem_type` says otherwise.

        Raises
        ------
        DataError
            When labels are missing, or when they are all the same.
        UnknownNameError
            When `problem_type` is none of the known ones.
        """
        if problem_type is not None and problem_type not in get_args(ProblemType):
            raise UnknownNameError.of("problem_type", problem_type, get_args(ProblemType))
        series = pd.Series(labels)
        if num_missing := int(series.isna().sum()):
            raise DataError(f"{num_missing} of {len(series)} labels are missing; leave those rows out")
        if problem_type == "regression":
            return cls._of_numbers(series)
        classes = tuple(_sorted(series.map(_plain).unique()))
        if len(classes) < 2:
            raise DataError(
                f"the labels hold {len(classes)} class{'' if len(classes) == 1 else 'es'}: {list(classes)}; "
                "a classifier needs images of two classes at least"
            )
        if problem_type == "binary" and len(classes) != 2:
            raise DataError(
                f"problem_type='binary' needs two classes; the labels hold {len(classes)}: {_some(classes)}"
            )
        return cls("binary" if len(classes) == 2 and problem_type is None else _kind(problem_type), classes)

    @classmethod
    def _of_numbers(cls, series: pd.Series) -> Problem:
        try:
            numbers = series.astype(float).to_numpy()
        except (TypeError, ValueError) as error:
            raise DataError(f"problem_type='regression' needs numbers as labels; {error}") from None
        if not np.isfinite(numbers).all():
            raise DataError("problem_type='regression' needs finite numbers as labels; some are infinite")
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
        """Whether labels are classes."""
        return self.type != "regression"

    def encode(self, labels: Sequence[Any] | pd.Series) -> np.ndarray:
        """Return targets, int64 class indices or float32 standardised numbers, of shape (num_labels,).

        Raises
        ------
        DataError
            When a label is none of the classes.
        """
        if not self.is_classification:
            numbers = np.asarray(pd.Series(labels).astype(float))
            return ((numbers - self.mean) / self.std).astype(np.float32)
        index_of = {label: index for index, label in enumerate(self.classes)}
        plain = [_plain(label) for label in labels]
        unknown = list(dict.fromkeys(label for label in plain if label not in index_of))
        if unknown:
            raise DataError(
                f"labels {_some(unknown)} are not among the classes that were trained: {_some(self.classes)}"
            )
        return np.fromiter((index_of[label] for label in plain), np.int64, len(plain))

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Return the mean loss; `targets` may be class probabilities (after mixup) instead of indices."""
        if self.is_classification:
            return functional.cross_entropy(outputs.float(), targets, label_smoothing=smoothing)
        return functional.mse_loss(outputs.float().squeeze(1), targets)

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return probabilities of shape (num_images, num_classes), or numbers in the labels' units (num_images, 1)."""
        if self.is_classification:
            return outputs.float().softmax(1)
        return outputs.float() * self.std + self.mean

    def decode(self, predictions: np.ndarray) -> np.ndarray:
        """Return labels, as they were given, from what `activate` returned; shape (num_images,)."""
        if self.is_classification:
            labels: np.ndarray = self.class_array[predictions.argmax(1)]
            return labels
        return predictions[:, 0]

    @property
    def class_array(self) -> np.ndarray:
        """The classes as an array whose dtype holds them exactly."""
        return np.asarray(pd.Series(list(self.classes)))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Problem:
        """Return the problem that `to_json` wrote."""
        return cls(**{**record, "classes": tuple(record["classes"])})


def _kind(problem_type: str | None) -> ProblemType:
    return "binary" if problem_type == "binary" else "multiclass"


def _plain(label: Any) -> Any:
    """Return a NumPy scalar as the Python value that it is."""
    return label.item() if isinstance(label, np.generic) else label


def _sorted(labels: Any) -> list[Any]:
    plain = [_plain(label) for label in labels]
    for label in plain:
        if not isinstance(label, str | int | float | bool) or (isinstance(label, float) and not math.isfinite(label)):
            raise DataError(f"a label is {label!r} of type {type(label).__name__}; expected text, a number or a bool")
    try:
        return sorted(plain)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in plain})
        raise DataError(f"the labels mix {' and '.join(kinds)}: {_some(plain)}; make them all of one type") from None


def _some(labels: Sequence[Any], num: int = 8) -> str:
    shown = ", ".join(repr(label) for label in labels[:num])
    return f"[{shown}{', …' if len(labels) > num else ''}]"
