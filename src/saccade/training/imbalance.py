"""Imbalanced classes: class weights, balanced sampling and sample weights.

Class weights scale the loss of a class; balanced sampling draws images of rare classes more often. Use one of them.
Sample weights, one per image, come from the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from saccade.checks import real_number
from saccade.errors import DataError, HyperparameterError, UnknownNameError
from saccade.space import Dict
from saccade.tasks.labels import Label, Labels
from saccade.tasks.problem import Problem
from saccade.training.recipes.recipe import Recipe, choices

# Class weights: inverse class frequencies, a weight per label, or none.
ClassWeight = Literal["balanced"] | Mapping[Label, float] | None


def class_weights(
    spec: ClassWeight | str, targets: np.ndarray, problem: Problem, class_names: Sequence[str] | None = None
) -> np.ndarray | None:
    """Return class weights for `Problem.loss`, float32 of shape (num_classes,); None without `spec`.

    ``balanced`` is the inverse of the number of images, a mapping gives weights by label, 1 for others. Their mean over
    the training images is 1, so that the best learning rate stays the same. Multilabel: of positive against negative.
    """
    if spec is None:
        return None
    problem.require_classes("class_weight")
    if isinstance(spec, Mapping):
        number_of: dict[Any, int] = {label: number for number, label in enumerate(problem.classes)}
        for number, name in enumerate(class_names or ()):
            if number in number_of:
                number_of.setdefault(name, number_of[number])
        weights = np.ones(len(problem.classes))
        for label, weight in spec.items():
            if label not in number_of:
                # A label may differ from a known one only by its type, as '1' from 1.
                same = [name for name in number_of if str(name) == str(label)]
                hint = f"The label is {same[0]!r} of type {type(same[0]).__name__}." if same else ""
                raise UnknownNameError.of("label in class_weight", label, map(str, number_of), hint)
            weights[number_of[label]] = real_number(
                f"class_weight of {label!r}", weight, "a number, 0 or more", least=0, below=np.inf
            )
    elif spec == "balanced":
        weights = problem.balanced_weights(targets)
    elif isinstance(spec, str):
        raise UnknownNameError.of("class_weight", spec, ["balanced"], "Or give a dict from label to weight.")
    else:
        raise HyperparameterError(
            f"class_weight was given {spec!r}; expected 'balanced', a dict from label to weight, or None"
        )
    return np.asarray(problem.normalised_weights(weights, targets), np.float32)


def balanced_sampling_weights(targets: np.ndarray, problem: Problem) -> np.ndarray:
    """Return the probability of drawing each image, with which classes (or rarest labels) are equally frequent."""
    problem.require_classes("balanced_sampling")
    classes = problem.strata(targets)
    counts = np.bincount(classes)
    return np.asarray(1 / (np.count_nonzero(counts) * counts[classes]))


def class_priors(
    recipe: Recipe,
    targets: np.ndarray,
    problem: Problem,
    class_names: Sequence[str] | None = None,
    by_image: np.ndarray | None = None,
) -> np.ndarray | None:
    """Return the class priors of training: class frequencies, weighted as in the loss, float64 of shape (num_classes,).

    They sum to 1; a class without images (in a warm start) has the mean. Balanced sampling makes them equal. None for
    problems without exactly one class per image.
    """
    if not problem.has_one_class:
        return None
    num_classes = len(problem.classes)
    if recipe.balanced_sampling:
        return np.full(num_classes, 1 / num_classes)
    counts: np.ndarray = np.bincount(targets, by_image, num_classes).astype(np.float64)
    counts[counts == 0] = counts[counts > 0].mean()
    if (weights := class_weights(recipe.class_weight, targets, problem, class_names)) is not None:
        counts *= np.where(weights > 0, weights, 1.0)
    counts /= counts.sum()
    return counts


def sample_weights(column: Sequence[Any] | np.ndarray | pd.Series) -> np.ndarray:
    """Return sample weights for `Problem.loss` from a column with one weight, 0 or more, per training image.

    Their mean is 1, so that the best learning rate stays the same. Raises a DataError for invalid weights, or all 0.
    """
    try:
        weights = pd.Series(column).astype("Float64").to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"sample weights must be numbers; {error}") from None
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{int(wrong.sum())} of {len(weights)} sample weights are missing, negative or infinite, the first in row "
            f"{row} ({weights[row]}); expected numbers, 0 or more"
        )
    if not weights.sum() > 0:
        raise DataError("all sample weights are 0; expected at least one above 0")
    return np.asarray(weights / weights.mean(), np.float32)


def loss_weights(
    targets: np.ndarray, problem: Problem, by_class: np.ndarray | None, by_image: np.ndarray | None
) -> np.ndarray | None:
    """Return the weight of each image (or of each label of it) in the loss: class times sample weight, or None."""
    if by_class is None and by_image is None:
        return None
    weights = np.ones(targets.shape, np.float32)
    if by_class is not None:
        weights = problem.image_weights(by_class, targets)
    return weights if by_image is None else (weights.T * by_image).T


def check_imbalance(space: Dict, labels: Labels, problem: Problem, class_names: Sequence[str] | None = None) -> None:
    """Raise an error if class weights or balanced sampling of a search space do not suit the labels."""
    targets = problem.encode(labels)
    for spec in choices(space, "class_weight"):
        class_weights(spec, targets, problem, class_names)
    if any(choices(space, "balanced_sampling")):
        balanced_sampling_weights(targets, problem)
