"""Figures of merit on held-out images: the few that are always wanted, scikit-learn's by name, and people's own."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from saccade.errors import DataError, HyperparameterError
from saccade.tasks.labels import some
from saccade.tasks.problem import THRESHOLD, Problem

Function = Callable[[np.ndarray, np.ndarray, Problem], float]
"""From encoded targets and activated predictions, as `Problem` makes them, to a figure."""

EvalMetric: TypeAlias = str | Callable[..., float] | None
"""What `eval_metric` may be: see `make_metric`."""


@dataclass(frozen=True)
class Metric:
    """A figure of merit and which way is better.

    `score` turns it so that higher is better, which is what a search maximises.

    Attributes
    ----------
    name : str
        As it was asked for; the key in the figures of an epoch and of `ImagePredictor.evaluate`.
    function : callable
        From targets, predictions and problem to the figure.
    greater_is_better : bool
        Which way is better.
    """

    name: str
    function: Function
    greater_is_better: bool = True

    def __call__(self, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
        """Return the figure in its own sense; NaN when predictions are no finite numbers.

        Parameters
        ----------
        targets : ndarray, shape (num_images,) or (num_images, num_classes)
            As `Problem.encode` returned them.
        predictions : ndarray, shape (num_images, num_outputs)
            As `Problem.activate` returned them.
        problem : Problem
            What both mean.

        Raises
        ------
        DataError
            When the figure is not defined on these images, or could not be computed; the message says why.
        """
        if not len(targets):
            raise DataError(f"there are no images to compute {self.name} on")
        if not np.isfinite(predictions).all():
            return math.nan
        try:
            figure = float(self.function(targets, predictions, problem))
            if not math.isfinite(figure):
                raise ValueError(f"it is {figure}")
        except Exception as error:
            kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
            reason = str(error).strip().rstrip(".")
            raise DataError(
                f"eval_metric {self.name!r} cannot be computed on these {len(targets)} images ({kind}{reason})"
                f"{_absent(targets, problem)}; give more validation images (tuning_data, holdout_frac), or choose "
                "another metric"
            ) from error
        return figure

    def score(self, figure: float) -> float:
        """Return the figure so that higher is better."""
        return figure if self.greater_is_better else -figure


def accuracy(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
    """Return the part of the images whose likeliest class is right, or whose labels are all right."""
    if problem.type == "multilabel":
        return float(((predictions >= THRESHOLD) == (targets > 0)).all(1).mean())
    return float((predictions.argmax(1) == targets).mean())


def top5(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:  # noqa: ARG001
    """Return the part of the images whose class is among the five likeliest of more than five."""
    likeliest = np.argpartition(-predictions, 5, axis=1)[:, :5]
    return float((likeliest == targets[:, None]).any(1).mean())


def log_loss(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
    """Return the mean negative logarithm of the probability that was given to what is right.

    For multilabel problems that is the mean over images and labels.
    """
    if problem.type == "multilabel":
        right = np.where(targets > 0, predictions, 1 - predictions)
    else:
        right = predictions[np.arange(len(targets)), targets]
    return float(-np.log(np.clip(right, 1e-15, None)).mean())


def neg_log_loss(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
    """Return `log_loss` with the other sign, which is scikit-learn's."""
    return -log_loss(targets, predictions, problem)


def f1_micro(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:  # noqa: ARG001
    """Return the harmonic mean of precision and recall over all labels of all images; 0 when there are none at all."""
    given, right = predictions >= THRESHOLD, targets > 0
    return float(2 * (given & right).sum() / max(1, given.sum() + right.sum()))


def rmse(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
    """Return the root of the mean squared error, in the labels' units."""
    errors = (predictions[:, 0] - problem.mean) / problem.std - targets
    return float(np.sqrt((errors**2).mean()) * problem.std)


_CLASSES = {
    "accuracy": Metric("accuracy", accuracy),
    "log_loss": Metric("log_loss", log_loss, greater_is_better=False),
    "neg_log_loss": Metric("neg_log_loss", neg_log_loss),
}
_MULTILABEL = {
    "f1_micro": Metric("f1_micro", f1_micro),
    **_CLASSES,
    "subset_accuracy": Metric("subset_accuracy", accuracy),
}
_REGRESSION = {"rmse": Metric("rmse", rmse, greater_is_better=False)}

_RESERVED = {"top1", "top5", *_MULTILABEL, *_REGRESSION}
"""Keys of figures that are not to be taken for somebody's own metric of that name."""


def _always_known(problem: Problem) -> dict[str, Metric]:
    """Return the metrics that need no scikit-learn, the default first."""
    if problem.type == "multilabel":
        return _MULTILABEL
    if problem.type == "regression":
        return _REGRESSION
    return {**_CLASSES, "top5": Metric("top5", top5)} if len(problem.classes) > 5 else _CLASSES


def make_metric(eval_metric: EvalMetric, problem: Problem) -> Metric:
    """Return what judges predictions.

    Parameters
    ----------
    eval_metric : str, callable or None
        - None is the default: ``accuracy`` for binary and multiclass problems, ``f1_micro`` (labels from a probability
          of .5 on) for multilabel ones, ``rmse`` for regression.
        - The name of a metric: of ``sklearn.metrics.get_scorer_names()``, in scikit-learn's sense (``neg_log_loss``
          is negative, greater is better); the same without ``neg_`` (``log_loss``, ``mean_absolute_error``: positive,
          less is better); or short: ``acc``, ``mcc``, ``quadratic_kappa``, ``rmse``, ``mse``, ``mae``, ``mape``. In
          binary problems the positive class is the second one of the sorted labels.
        - A function ``f(y_true, y_pred) -> float`` of labels as they were given; for multilabel problems of 0 and 1, of
          shape (num_images, num_classes). Greater is better, but for functions of `sklearn.metrics` that are called
          ``…_loss``, ``…_error`` or ``…_deviance``.
        - A scorer ``f(estimator, X, y) -> float``, such as ``sklearn.metrics.make_scorer`` returns. Greater is better.
          What it asks of the estimator (``predict``, ``predict_proba``, ``decision_function``) is answered by our
          predictions; `y` are labels as they were given.
    problem : Problem
        What is predicted.

    Raises
    ------
    UnknownNameError
        When there is no metric of that name, or it does not suit the problem; suitable ones are named.
    HyperparameterError
        When `eval_metric` is something else.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> make_metric("balanced_accuracy", problem)(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), problem)
    0.5
    """
    known = _always_known(problem)
    if eval_metric is None:
        return next(iter(known.values()))
    if isinstance(eval_metric, str):
        if eval_metric in known:
            return known[eval_metric]
        # scikit-learn takes a second to import, which most searches need not spend
        from saccade.tasks.scorers import named_scorer

        scorer = named_scorer(eval_metric, problem, list(known))
        return Metric(eval_metric, scorer, greater_is_better=scorer.sign > 0)
    if callable(eval_metric):
        return _own_metric(eval_metric, problem)
    raise HyperparameterError(
        f"eval_metric was given {eval_metric!r}; expected a metric's name, a function f(y_true, y_pred), or a scorer "
        "of scikit-learn"
    )


def is_metric_name(name: str, problem: Problem) -> bool:
    """Tell whether a metric is known by its name; somebody's own function never is, and is not saved either.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> is_metric_name("log_loss", problem), is_metric_name("my_metric", problem)
    (True, False)
    """
    if name in _always_known(problem):
        return True
    from saccade.tasks.scorers import scorer_names

    return name in scorer_names()


@dataclass(frozen=True)
class _OwnFunction:
    """Somebody's f(y_true, y_pred), given labels; as an object of a class it can be sent to other processes."""

    function: Callable[[np.ndarray, np.ndarray], float]

    def __call__(self, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
        return self.function(true_labels(targets, problem), predicted_labels(predictions, problem))


def true_labels(targets: np.ndarray, problem: Problem) -> np.ndarray:
    """Return targets as labels: classes as they were given, 0 and 1 for multilabel problems, or numbers."""
    if problem.type == "regression":
        return targets.astype(np.float64) * problem.std + problem.mean
    if problem.type == "multilabel":
        return (targets > 0).astype(np.int64)
    labels: np.ndarray = problem.class_array[targets]
    return labels


def predicted_labels(predictions: np.ndarray, problem: Problem) -> np.ndarray:
    """Return predictions as labels, in the form of `true_labels`."""
    if problem.type == "multilabel":
        return (predictions >= THRESHOLD).astype(np.int64)
    return problem.decode(predictions)


def _own_metric(function: Callable[..., float], problem: Problem) -> Metric:
    name = _readable_name(function)
    if name in _RESERVED or is_metric_name(name, problem):
        name = f"own_{name}"
    if not _takes(function, 2):
        if not _takes(function, 3):
            raise HyperparameterError(
                f"eval_metric {name} must be called with (y_true, y_pred), or as a scorer of scikit-learn with "
                f"(estimator, X, y); it takes {inspect.signature(function)}"
            )
        from saccade.tasks.scorers import Scorer

        return Metric(name, Scorer(function, sees_given_labels=True))
    is_sklearns = (getattr(_inner(function), "__module__", None) or "").startswith("sklearn.metrics")
    is_cost = is_sklearns and name.endswith(("_loss", "_error", "_deviance"))
    return Metric(name, _OwnFunction(function), greater_is_better=not is_cost)


def _takes(function: Callable[..., Any], num: int) -> bool:
    """Tell whether a function can be called with so many arguments; where Python cannot know, it can."""
    try:
        inspect.signature(function).bind(*range(num))
    except TypeError:
        return False
    except ValueError:  # compiled, and does not say
        return True
    return True


def _inner(function: Any) -> Any:
    """Return what a partial function was made of."""
    return _inner(function.func) if isinstance(function, functools.partial) else function


def _readable_name(function: Any) -> str:
    function = _inner(function)
    name = getattr(function, "__name__", "") or type(function).__name__
    scorer = re.match(r"make_scorer\((\w+)", str(function))
    return "metric" if name == "<lambda>" else scorer.group(1) if scorer else name


def _absent(targets: np.ndarray, problem: Problem) -> str:
    """Say which classes a metric could have missed."""
    if problem.type == "regression":
        return ""
    if problem.type == "multilabel":
        num_with = (targets > 0).sum(0)
        absent = (num_with == 0) | (num_with == len(targets))
        what = "; none or all of them have the labels"
    else:
        absent = np.bincount(targets, minlength=len(problem.classes)) == 0
        what = "; none of them is of the classes"
    named = [label for label, is_absent in zip(problem.classes, absent, strict=True) if is_absent]
    return f"{what} {some(named)}" if named else ""


def held_out_figures(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> dict[str, float]:
    """Return what `ImagePredictor.evaluate` always tells.

    Returns
    -------
    dict
        ``top1`` (accuracy), and ``top5`` where there are more than five classes; for multilabel problems ``f1_micro``
        and ``subset_accuracy`` (images whose labels are all right); for regression ``rmse``.
    """
    if problem.type == "regression":
        return {"rmse": rmse(targets, predictions, problem)}
    if problem.type == "multilabel":
        return {
            "f1_micro": f1_micro(targets, predictions, problem),
            "subset_accuracy": accuracy(targets, predictions, problem),
        }
    figures = {"top1": accuracy(targets, predictions, problem)}
    if len(problem.classes) > 5:
        figures["top5"] = top5(targets, predictions, problem)
    return figures
