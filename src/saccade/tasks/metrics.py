"""Figures of merit on held-out images: the few that are always wanted, scikit-learn's by name, and people's own."""

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


@dataclass(frozen=True)
class MeanOver:
    """A metric function that is the mean of one value per image, or the root of that mean.

    The bootstrap of `saccade.inference.evaluation` resamples the values instead of calling the function again.
    """

    values: Callable[[np.ndarray, np.ndarray, Problem], np.ndarray]
    sign: int = 1
    is_root: bool = False

    def __call__(self, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
        """Return the metric."""
        return self.of_values(self.values(targets, predictions, problem))

    def of_values(self, values: np.ndarray) -> float:
        """Return the metric of some images from the values of these."""
        mean = float(values.mean())
        return self.sign * (math.sqrt(mean) if self.is_root else mean)


def _are_right(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> np.ndarray:
    return problem.are_right(predictions, targets)


def _are_in_top5(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> np.ndarray:  # noqa: ARG001
    likeliest = np.argpartition(-predictions, 5, axis=1)[:, :5]
    in_top5: np.ndarray = (likeliest == targets[:, None]).any(1)
    return in_top5


def _log_losses(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> np.ndarray:
    return problem.image_losses(predictions, targets)


def _f1_micro(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
    """Return the F1 score over all labels of all images; 0 when there are no labels at all."""
    given, right = problem.predicted_labels(predictions) > 0, targets > 0
    return float(2 * (given & right).sum() / max(1, given.sum() + right.sum()))


def _absolute_errors(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> np.ndarray:
    distances: np.ndarray = np.abs(predictions[:, 0] - problem.true_labels(targets))
    return distances


def _squared_errors(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> np.ndarray:
    return _absolute_errors(targets, predictions, problem) ** 2


@dataclass(frozen=True)
class BuiltIn:
    """A metric that needs no scikit-learn, with the problems it suits.

    Attributes
    ----------
    metric : Metric
        The metric.
    suits : type or tuple of types
        Problems it is defined for.
    reported : {"always", "detailed", None}
        Whether `ImagePredictor.evaluate` and the training log report it always, in detailed evaluations, or only when
        it is the `eval_metric`.
    min_classes : int
        Fewest classes for which it makes sense.
    """

    metric: Metric
    suits: type[Problem] | tuple[type[Problem], ...]
    reported: Literal["always", "detailed"] | None = None
    min_classes: int = 0


# To add a metric of scikit-learn, do nothing: all are found by name. To add another one, add a row.
BUILT_IN = (
    BuiltIn(Metric("top1", MeanOver(_are_right)), SingleLabel, "always"),
    BuiltIn(Metric("top5", MeanOver(_are_in_top5)), SingleLabel, "always", min_classes=6),
    BuiltIn(Metric("f1_micro", _f1_micro), Multilabel, "always"),
    BuiltIn(Metric("subset_accuracy", MeanOver(_are_right)), Multilabel, "always"),
    BuiltIn(Metric("rmse", MeanOver(_squared_errors, is_root=True), greater_is_better=False), Regression, "always"),
    BuiltIn(Metric("mae", MeanOver(_absolute_errors), greater_is_better=False), Regression, "detailed"),
    BuiltIn(Metric("log_loss", MeanOver(_log_losses), greater_is_better=False), Classification, "detailed"),
    BuiltIn(Metric("accuracy", MeanOver(_are_right)), Classification),
    BuiltIn(Metric("neg_log_loss", MeanOver(_log_losses, sign=-1)), Classification),
)
"""All built-in metrics, in the order in which they are reported."""

_RESERVED = {row.metric.name for row in BUILT_IN}  # a user's own metric of this name gets another one


def built_in_metrics(problem: Problem, reported: str | None = None) -> dict[str, Metric]:
    """Return the built-in metrics of a problem by name.

    Parameters
    ----------
    problem : Problem
        The problem.
    reported : {"always", "detailed", None}
        Only those that are reported so; None is all.

    Examples
    --------
    >>> list(built_in_metrics(Problem.of(["cat", "dog"]), "always"))
    ['top1']
    """
    return {
        row.metric.name: row.metric
        for row in BUILT_IN
        if isinstance(problem, row.suits)
        and len(problem.classes) >= row.min_classes
        and reported in (None, row.reported)
    }


def summary_metrics(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> dict[str, float]:
    """Return the metrics that are always reported.

    Returns
    -------
    dict
        ``top1`` (accuracy), and ``top5`` if there are more than five classes; for multilabel problems ``f1_micro``
        and ``subset_accuracy`` (images whose labels are all right); for regression ``rmse``.
    """
    metrics = built_in_metrics(problem, "always")
    return {name: float(metric.function(targets, predictions, problem)) for name, metric in metrics.items()}


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
    known = built_in_metrics(problem)
    if eval_metric is None:
        return known[problem.default_metric]
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
    if name in built_in_metrics(problem):
        return True
    from saccade.tasks.scorers import scorer_names

    return name in scorer_names()


@dataclass(frozen=True)
class _OwnFunction:
    """Somebody's f(y_true, y_pred), given labels; as an object of a class it can be sent to other processes."""

    function: Callable[[np.ndarray, np.ndarray], float]

    def __call__(self, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
        return self.function(problem.true_labels(targets), problem.predicted_labels(predictions))


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
    """Name the classes whose absence may be why a metric is not defined."""
    absent = problem.absent_classes(targets)
    what = "none of them is of the classes" if problem.has_one_class else "none or all of them have the labels"
    return f"; {what} {some(absent)}" if absent else ""
