"""Classes of unequal size: weights in the loss, and a fair share in the batches.

Two ways to the same end, to be used one at a time: a weight makes an image of a small class count more, balanced
sampling shows it more often. The third, a weight for each image, is the user's own word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
import pandas as pd

from saccade.errors import DataError, HyperparameterError, UnknownNameError
from saccade.space import Dict
from saccade.tasks.labels import Label, Labels
from saccade.tasks.problem import Problem
from saccade.training.recipes.recipe import Recipe, choices

ClassWeight = Literal["balanced"] | Mapping[Label, float] | None
"""How much classes count: by the inverse of their size, by a given weight, or all the same."""


def class_weights(
    spec: ClassWeight | str, targets: np.ndarray, problem: Problem, class_names: Sequence[str] | None = None
) -> np.ndarray | None:
    """Return the weights of the classes in `Problem.loss`.

    Parameters
    ----------
    spec : "balanced", mapping or None
        ``balanced`` weighs each class by the inverse of its number of images, as scikit-learn does. A mapping gives
        weights, 0 or more, by label; labels that it leaves out have weight 1.
    targets : ndarray
        Of the training images, as `Problem.encode` returned them.
    problem : Problem
        Whose classes they are.
    class_names : sequence of str or None
        Names behind the labels 0, 1, …, under which a mapping may give weights as well.

    Returns
    -------
    ndarray of float32, shape (num_classes,), or None
        Their mean over the training images is 1, so that a learning rate keeps its meaning; None without `spec`. For
        multilabel problems, the weight of having the label against not having it: number of images without it by
        number of images with it, or what the mapping says.

    Raises
    ------
    HyperparameterError
        For a regression problem, or for weights that cannot be.
    UnknownNameError
        For a label that does not exist.

    Examples
    --------
    >>> problem = Problem.of(["cat", "cat", "cat", "dog"])
    >>> class_weights({"dog": 3.0}, problem.encode(["cat", "cat", "cat", "dog"]), problem).tolist()
    [0.6666666865348816, 2.0]
    """
    if spec is None:
        return None
    problem.require_classes("class_weight")
    if isinstance(spec, Mapping):
        weights = _given_weights(spec, problem, class_names)
    elif spec == "balanced":
        weights = problem.balanced_weights(targets)
    elif isinstance(spec, str):  # what a type checker would have found, people do
        raise UnknownNameError.of("class_weight", spec, ["balanced"], "Or give a dict from label to weight.")
    else:
        raise HyperparameterError(
            f"class_weight was given {spec!r}; expected 'balanced', a dict from label to weight, or None"
        )
    return np.asarray(problem.normalised_weights(weights, targets), np.float32)


def _given_weights(spec: Mapping[Label, Any], problem: Problem, class_names: Sequence[str] | None) -> np.ndarray:
    number_of: dict[Any, int] = {label: number for number, label in enumerate(problem.classes)}
    for number, name in enumerate(class_names or ()):
        if number in number_of:
            number_of.setdefault(name, number_of[number])
    weights = np.ones(len(problem.classes))
    for label, weight in spec.items():
        if label not in number_of:
            raise UnknownNameError.of("label in class_weight", label, map(str, number_of), _type_hint(label, number_of))
        if not isinstance(weight, Real) or not 0 <= float(weight) < np.inf:
            raise HyperparameterError(f"class_weight of {label!r} was given {weight!r}; expected a number, 0 or more")
        weights[number_of[label]] = weight
    return weights


def _type_hint(label: object, known: Mapping[Any, int]) -> str:
    """Say so when a label differs from a known one by its type alone, as '1' from 1."""
    same = [name for name in known if str(name) == str(label)]
    return f"The label is {same[0]!r} of type {type(same[0]).__name__}." if same else ""


def balanced_sampling_weights(targets: np.ndarray, problem: Problem) -> np.ndarray:
    """Return the probabilities with which to draw training images so that each class comes equally often.

    Parameters
    ----------
    targets : ndarray
        Of the training images, as `Problem.encode` returned them.
    problem : Problem
        Whose classes they are.

    Returns
    -------
    ndarray of float64, shape (num_images,)
        They sum to 1; for ``torch.multinomial(torch.from_numpy(weights), num_images, replacement=True)``. An image of
        a multilabel problem is drawn for its rarest label; images without labels count as a class.

    Raises
    ------
    HyperparameterError
        For a regression problem.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> balanced_sampling_weights(np.array([0, 0, 1]), problem).tolist()
    [0.25, 0.25, 0.5]
    """
    problem.require_classes("balanced_sampling")
    classes = problem.strata(targets)
    counts = np.bincount(classes)
    probabilities: np.ndarray = 1 / (np.count_nonzero(counts) * counts[classes])
    return probabilities


def class_priors(
    recipe: Recipe,
    targets: np.ndarray,
    problem: Problem,
    class_names: Sequence[str] | None = None,
    by_image: np.ndarray | None = None,
) -> np.ndarray | None:
    """Return how often each class comes in training, as its images count there: what a network takes for granted.

    Parameters
    ----------
    recipe : Recipe
        Its class weights, or balanced sampling.
    targets : ndarray, shape (num_images,)
        Of the training images, as `Problem.encode` returned them.
    problem, class_names
        As in `class_weights`.
    by_image : ndarray or None
        As `sample_weights` returned them.

    Returns
    -------
    ndarray of float64, shape (num_classes,), or None
        They sum to 1, and none is 0: a class that does not come is taken for one image. None where an image does not
        have just one class.

    Examples
    --------
    >>> problem, targets = Problem.of(["cat", "dog"]), np.array([0, 0, 0, 1])
    >>> class_priors(Recipe.of({}), targets, problem).tolist()
    [0.75, 0.25]
    >>> class_priors(Recipe.of({"class_weight": "balanced"}), targets, problem).round(3).tolist()
    [0.5, 0.5]
    """
    if not problem.has_one_class:
        return None
    num_classes = len(problem.classes)
    if recipe.balanced_sampling:
        return np.full(num_classes, 1 / num_classes)
    counts: np.ndarray = np.bincount(targets, by_image, num_classes).astype(np.float64)
    counts[counts == 0] = 1.0
    if (weights := class_weights(recipe.class_weight, targets, problem, class_names)) is not None:
        counts *= np.where(weights > 0, weights, 1.0)
    counts /= counts.sum()
    return counts


def sample_weights(column: Sequence[Any] | np.ndarray | pd.Series) -> np.ndarray:
    """Return a column of weights, one for each training image, as `Problem.loss` takes them.

    Parameters
    ----------
    column : sequence, array or Series, shape (num_images,)
        Numbers, 0 or more.

    Returns
    -------
    ndarray of float32, shape (num_images,)
        Their mean is 1, so that a learning rate keeps its meaning.

    Raises
    ------
    DataError
        When weights are missing, negative, infinite, no numbers, or all 0.

    Examples
    --------
    >>> sample_weights([1, 3]).tolist()
    [0.5, 1.5]
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
        raise DataError("all sample weights are 0; there is nothing to learn from")
    return np.asarray(weights / weights.mean(), np.float32)


def loss_weights(
    targets: np.ndarray, problem: Problem, by_class: np.ndarray | None, by_image: np.ndarray | None
) -> np.ndarray | None:
    """Return the weight of each image in the loss, of those of its class and its own.

    Returns
    -------
    ndarray of shape (num_images,), or (num_images, num_classes) for multilabel problems, or None
        None when all count the same.
    """
    if by_class is None and by_image is None:
        return None
    weights = np.ones(targets.shape, np.float32)
    if by_class is not None:
        weights = problem.image_weights(by_class, targets)
    return weights if by_image is None else (weights.T * by_image).T


def check_imbalance(space: Dict, labels: Labels, problem: Problem, class_names: Sequence[str] | None = None) -> None:
    """See that all the class weights of a search space, and its balanced sampling, suit the labels.

    Raises
    ------
    HyperparameterError, UnknownNameError
        As `class_weights` and `balanced_sampling_weights` raise them.
    """
    targets = problem.encode(labels)
    for spec in choices(space, "class_weight"):
        class_weights(spec, targets, problem, class_names)
    if any(choices(space, "balanced_sampling")):
        balanced_sampling_weights(targets, problem)
