"""Metrics on held-out images: a few built-in ones, those of scikit-learn by name, and user-defined functions."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from saccade.errors import DataError, HyperparameterError
from saccade.tasks.labels import some
from saccade.tasks.problem import Classification, Multilabel, Problem, Regression, SingleLabel

Function = Callable[[np.ndarray, np.ndarray, Problem], float]
"""Computes a metric from targets and predictions; see `saccade.tasks.base` for their shapes."""

EvalMetric: TypeAlias = str | Callable[..., float] | None  # types of `eval_metric`: see `make_metric`


@dataclass(frozen=True)
class Metric:
    """A metric with its name and direction.

    Attributes
    ----------
    name : str
        As it was given; the key in the metrics of an epoch and of `ImagePredictor.evaluate`.
    function : callable
        From targets, predictions and problem to the value.
    greater_is_better : bool
        False for losses and errors.
    """

    name: str
    function: Function
    greater_is_better: bool = True

    def __call__(self, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
        """Return the value; NaN if a prediction is not finite.

        Raises a DataError, with the reason, if the metric is not defined on these images, or its function fails.

        Parameters
        ----------
        targets : ndarray, shape (num_images,) or (num_images, num_classes)
            From `Problem.encode`.
        predictions : ndarray, shape (num_images, num_outputs)
            From `Problem.activate`.
        problem : Problem
            The problem of both.
        """
        if not len(targets):
            raise DataError(f"no images to compute {self.name} on")
        if not np.isfinite(predictions).all():
            return math.nan
        try:
            value = float(self.function(targets, predictions, problem))
            if not math.isfinite(value):
                raise ValueError(f"it is {value}")
        except Exception as error:
            kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
            reason = str(error).strip().rstrip(".")
            raise DataError(
                f"eval_metric {self.name!r} cannot be computed on these {len(targets)} images ({kind}{reason})"
                f"{_absent(targets, problem)}; give more validation images (tuning_data, holdout_frac), or choose "
                "another metric"
            ) from error
        return value

    def score(self, value: float) -> float:
        """Return the value with the sign with which higher is better, for a search that maximises."""
        return value if self.greater_is_better else -value


@dataclass(frozen=True)
class MeanOver:
    """A metric that is the mean of one value per image, or its root; the bootstrap resamples these values.

    With two values per image, of shape (num_images, 2), it is the ratio of their sums; 0 without any.
    """

    values: Callable[[np.ndarray, np.ndarray, Problem], np.ndarray]
    sign: int = 1
    is_root: bool = False

    def __call__(self, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
        """Return the metric."""
        return self.of_values(self.values(targets, predictions, problem))

    def of_values(self, values: np.ndarray) -> float:
        """Return the metric of some images from the values of these."""
        if values.ndim == 2:
            part, whole = values.sum(0).tolist()
            return float(part / max(1, whole))
        mean = float(values.mean())
        return self.sign * (math.sqrt(mean) if self.is_root else mean)


def _are_right(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> np.ndarray:
    return problem.are_right(predictions, targets)


def _are_in_top5(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> np.ndarray:  # noqa: ARG001
    likeliest = np.argpartition(-predictions, 5, axis=1)[:, :5]
    return np.asarray((likeliest == targets[:, None]).any(1))


def _log_losses(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> np.ndarray:
    return problem.image_losses(predictions, targets)


def _f1_terms(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> np.ndarray:
    """Return numerator and denominator of each image in the F1 score over all labels of all images."""
    given, right = problem.predicted_labels(predictions) > 0, targets > 0
    return np.stack([2 * (given & right).sum(1), given.sum(1) + right.sum(1)], 1)


def _absolute_errors(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> np.ndarray:
    return np.asarray(np.abs(predictions[:, 0] - problem.true_labels(targets)))


def _squared_errors(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> np.ndarray:
    return _absolute_errors(targets, predictions, problem) ** 2


def _pearsonr(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:  # noqa: ARG001
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN if all numbers are equal, which is an error
        return float(np.corrcoef(targets.astype(np.float64), predictions[:, 0])[0, 1])


def _spearmanr(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
    import pandas as pd  # lazily, as it is slow to import

    return _pearsonr(pd.Series(targets).rank().to_numpy(), pd.DataFrame(predictions).rank().to_numpy(), problem)


@dataclass(frozen=True)
class BuiltIn:
    """A metric without scikit-learn, with the problems that it is defined for."""

    metric: Metric
    suits: type[Problem] | tuple[type[Problem], ...]
    reported: Literal["always", "detailed"] | None = None  # None is only if it is the `eval_metric`
    min_classes: int = 0  # fewest classes for which it makes sense


# To add a metric of scikit-learn, do nothing: all are found by name. To add another one, add a row.
BUILT_IN = (
    BuiltIn(Metric("top1", MeanOver(_are_right)), SingleLabel, "always"),
    BuiltIn(Metric("top5", MeanOver(_are_in_top5)), SingleLabel, "always", min_classes=6),
    BuiltIn(Metric("f1_micro", MeanOver(_f1_terms)), Multilabel, "always"),
    BuiltIn(Metric("subset_accuracy", MeanOver(_are_right)), Multilabel, "always"),
    BuiltIn(Metric("rmse", MeanOver(_squared_errors, is_root=True), greater_is_better=False), Regression, "always"),
    BuiltIn(Metric("mae", MeanOver(_absolute_errors), greater_is_better=False), Regression, "detailed"),
    BuiltIn(Metric("pearsonr", _pearsonr), Regression),
    BuiltIn(Metric("spearmanr", _spearmanr), Regression),
    BuiltIn(Metric("log_loss", MeanOver(_log_losses), greater_is_better=False), Classification, "detailed"),
    BuiltIn(Metric("accuracy", MeanOver(_are_right)), Classification),
    BuiltIn(Metric("neg_log_loss", MeanOver(_log_losses, sign=-1)), Classification),
)
"""All built-in metrics, in the order in which they are reported."""

_RESERVED = {row.metric.name for row in BUILT_IN}  # names that user-defined metrics may not have


def built_in_metrics(problem: Problem, reported: str | None = None) -> dict[str, Metric]:
    """Return the built-in metrics of a problem by name: all, or those that are `reported` so."""
    return {
        row.metric.name: row.metric
        for row in BUILT_IN
        if isinstance(problem, row.suits)
        and len(problem.classes) >= row.min_classes
        and reported in (None, row.reported)
    }


def summary_metrics(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> dict[str, float]:
    """Return the metrics that are always reported.

    ``top1`` (accuracy), and ``top5`` if there are more than five classes; for multilabel problems ``f1_micro`` and
    ``subset_accuracy`` (images whose labels are all right); for regression ``rmse``.
    """
    metrics = built_in_metrics(problem, "always")
    return {name: float(metric.function(targets, predictions, problem)) for name, metric in metrics.items()}


def make_metric(eval_metric: EvalMetric, problem: Problem) -> Metric:
    """Create the metric that evaluates predictions.

    Raises an UnknownNameError with suggestions for an unknown metric, or one that is not defined for the problem, and a
    HyperparameterError for other values.

    Parameters
    ----------
    eval_metric : str, callable or None
        - None is the default: ``accuracy`` for binary and multiclass problems, ``f1_micro`` (labels from a probability
          of .5 on) for multilabel ones, ``rmse`` for regression.
        - The name of a metric: of ``sklearn.metrics.get_scorer_names()``, in scikit-learn's sense (``neg_log_loss``
          is negative, greater is better); the same without ``neg_`` (``log_loss``, ``mean_absolute_error``: positive,
          less is better); or short: ``acc``, ``mcc``, ``quadratic_kappa``, ``rmse``, ``mse``, ``mae``, ``mape``,
          ``pearsonr``, ``spearmanr``. In binary problems the positive class is the second one of the sorted labels.
        - A function ``f(y_true, y_pred) -> float`` of labels as they were given; for multilabel problems of 0 and 1, of
          shape (num_images, num_classes). Greater is better, but for functions of `sklearn.metrics` that are called
          ``…_loss``, ``…_error`` or ``…_deviance``.
        - A scorer ``f(estimator, X, y) -> float``, such as ``sklearn.metrics.make_scorer`` returns. Greater is better.
          The estimator returns the predictions (``predict``, ``predict_proba``, ``decision_function``); `y` are labels
          as they were given.
    problem : Problem
        The problem of the predictions.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> make_metric("balanced_accuracy", problem)(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), problem)
    0.5
    """
    known = built_in_metrics(problem)
    if eval_metric is None:
        return known[problem.default_metric]
    if isinstance(eval_metric, str):
        if eval_metric in known:
            return known[eval_metric]
        # Imported here, since scikit-learn takes a second to import, and most searches do without it.
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
    """Return whether a metric can be made from its name, unlike user-defined functions, which are not saved."""
    if name in built_in_metrics(problem):
        return True
    from saccade.tasks.scorers import scorer_names

    return name in scorer_names()


@dataclass(frozen=True)
class _OwnFunction:
    """A user-defined f(y_true, y_pred) of labels; an instance of a class can be sent to other processes."""

    function: Callable[[np.ndarray, np.ndarray], float]

    def __call__(self, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
        return self.function(problem.true_labels(targets), problem.predicted_labels(predictions))


def _own_metric(function: Callable[..., float], problem: Problem) -> Metric:
    inner = _inner(function)
    name = getattr(inner, "__name__", "") or type(inner).__name__
    if scorer := re.match(r"make_scorer\((\w+)", str(inner)):
        name = scorer.group(1)
    name = "metric" if name == "<lambda>" else name
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
    is_sklearns = (getattr(inner, "__module__", None) or "").startswith("sklearn.metrics")
    is_cost = is_sklearns and name.endswith(("_loss", "_error", "_deviance"))
    return Metric(name, _OwnFunction(function), greater_is_better=not is_cost)


def _takes(function: Callable[..., Any], num: int) -> bool:
    """Return whether a function accepts `num` arguments; True for compiled functions without a signature."""
    try:
        inspect.signature(function).bind(*range(num))
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _inner(function: Any) -> Any:
    """Return the function inside a partial function."""
    return _inner(function.func) if isinstance(function, functools.partial) else function


def _absent(targets: np.ndarray, problem: Problem) -> str:
    """Return a message with the classes whose absence may be why a metric is not defined."""
    if not problem.has_classes:
        return ""
    num_with = problem.perfect_predictions(targets).sum(0)
    undefined = (0,) if problem.has_one_class else (0, len(targets))
    absent = [label for label, num in zip(problem.classes, num_with, strict=True) if num in undefined]
    what = "none of them is of the classes" if problem.has_one_class else "none or all of them have the labels"
    return f"; {what} {some(absent)}" if absent else ""
