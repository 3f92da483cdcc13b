"""Metrics of scikit-learn, through its scorers; imported only if such a metric is used."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import cohen_kappa_score, get_scorer, get_scorer_names, make_scorer

from saccade.errors import UnknownNameError, near_names
from saccade.tasks.problem import Problem, Regression

ALIASES = {
    "acc": "accuracy",
    "top1": "accuracy",
    "mcc": "matthews_corrcoef",
    "rmse": "root_mean_squared_error",
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
}
"""Short names, AutoGluon's among them."""

CLUSTERING = frozenset((
    "adjusted_mutual_info_score", "adjusted_rand_score", "completeness_score", "fowlkes_mallows_score",
    "homogeneity_score", "mutual_info_score", "normalized_mutual_info_score", "rand_score", "v_measure_score",
))  # fmt: skip
"""Scorers of clusterings, which ignore which class is which."""

REGRESSION = frozenset((
    "d2_absolute_error_score", "explained_variance", "neg_max_error", "neg_mean_absolute_error",
    "neg_mean_absolute_percentage_error", "neg_mean_gamma_deviance", "neg_mean_poisson_deviance",
    "neg_mean_squared_error", "neg_mean_squared_log_error", "neg_median_absolute_error",
    "neg_root_mean_squared_error", "neg_root_mean_squared_log_error", "r2",
))  # fmt: skip
"""Scorers of numbers; they would accept class numbers as such."""

ONE_CLASS = frozenset({"d2_brier_score", "d2_log_loss_score", "neg_brier_score", "neg_log_loss"})
"""Scorers of probabilities that sum to 1."""

ALL_CLASSES = ONE_CLASS | frozenset((
    "quadratic_kappa", "roc_auc_ovo", "roc_auc_ovo_weighted", "roc_auc_ovr", "roc_auc_ovr_weighted",
    "top_k_accuracy",
))  # fmt: skip
"""Scorers that need the list of all classes if a class has no validation image."""


class _Precomputed(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator whose input X are the predictions that it returns."""

    def __init__(self, problem: Problem, classes: np.ndarray | None = None) -> None:
        self.problem, self.classes = problem, classes

    def __sklearn_is_fitted__(self) -> bool:
        return True


class _PrecomputedNumbers(RegressorMixin, _Precomputed):  # type: ignore[misc]
    def predict(self, predictions: np.ndarray) -> np.ndarray:
        return predictions[:, 0].astype(np.float64)


class _PrecomputedClasses(ClassifierMixin, _Precomputed):  # type: ignore[misc]
    @property
    def classes_(self) -> np.ndarray | None:
        return self.classes

    def predict(self, predictions: np.ndarray) -> np.ndarray:
        assert self.classes is not None
        return np.asarray(self.classes[predictions.argmax(1)])

    def predict_proba(self, predictions: np.ndarray) -> np.ndarray:
        probabilities = predictions.astype(np.float64)
        return np.asarray(probabilities / probabilities.sum(1, keepdims=True))  # float32 does not sum to 1 exactly

    def decision_function(self, predictions: np.ndarray) -> np.ndarray:
        logs = np.log(np.clip(predictions.astype(np.float64), 1e-300, None))
        return np.asarray(logs[:, 1] - logs[:, 0] if len(self.problem.classes) == 2 else logs)


class _PrecomputedLabels(ClassifierMixin, _Precomputed):  # type: ignore[misc]
    @property
    def classes_(self) -> list[np.ndarray]:
        return [np.array([0, 1])] * len(self.problem.classes)

    def predict(self, predictions: np.ndarray) -> np.ndarray:
        return self.problem.predicted_labels(predictions)

    def predict_proba(self, predictions: np.ndarray) -> np.ndarray:
        return predictions.astype(np.float64)

    decision_function = predict_proba


@dataclass(frozen=True)
class Scorer:
    """A scorer of scikit-learn as a metric's function."""

    scorer: Callable[..., float]  # f(estimator, X, y)
    sign: int = 1  # -1 if scikit-learn's scorer returns the negative of the metric
    sees_given_labels: bool = False  # rather than the numbers of classes
    needs_all_classes: bool = False  # a list of them

    def __call__(self, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
        """Return the metric; raise a ValueError if it is undefined, or scikit-learn raises one."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")  # shown only as the reason of an undefined metric
            value = self._score(targets, predictions, problem)
        if not math.isfinite(value):
            raise ValueError("; ".join(dict.fromkeys(str(warning.message) for warning in caught)) or f"it is {value}")
        return self.sign * value

    def _score(self, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
        if not problem.has_one_class:
            estimator = (_PrecomputedLabels if problem.has_classes else _PrecomputedNumbers)(problem)
            return float(self.scorer(estimator, predictions, problem.true_labels(targets)))
        class_numbers = np.arange(len(problem.classes))
        classes = problem.class_array if self.sees_given_labels else class_numbers
        estimator = _PrecomputedClasses(problem, classes)
        if not self.needs_all_classes:
            return float(self.scorer(estimator, predictions, classes[targets]))
        with sklearn.config_context(enable_metadata_routing=True):  # lets a scorer forward keyword arguments
            return float(self.scorer(estimator, predictions, classes[targets], labels=class_numbers))


def named_scorer(name: str, problem: Problem, also_known: Sequence[str] = ()) -> Scorer:
    """Return scikit-learn's scorer of this name or alias; an UnknownNameError may suggest `also_known` names."""
    reason = _why_unsuitable(name, problem)
    if not reason:
        return _scorer(name)
    suitable = {*also_known, *suitable_names(problem)}
    if name not in scorer_names():
        hint = "See sklearn.metrics.get_scorer_names() for all, or pass a function f(y_true, y_pred)."
        common = f"Common ones: {', '.join(problem.common_metrics)}."
        hint = hint if near_names(name, suitable) else f"{common} {hint}"
        raise UnknownNameError.of(f"eval_metric for {problem.type} problems", name, suitable, hint)
    near = _kin(name, suitable) or near_names(name, suitable) or _kin(name.rpartition("_")[0], suitable)
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else f"try {', '.join(problem.common_metrics)}"
    raise UnknownNameError(f"eval_metric={name!r} does not suit {problem.type} problems ({reason}); {advice}")


def _kin(stem: str, names: Iterable[str]) -> list[str]:
    """Return the names that extend this one, as ``f1_macro`` extends ``f1``."""
    return [name for name in sorted(names) if stem and name.startswith(f"{stem}_")]


@functools.cache
def scorer_names() -> tuple[str, ...]:
    """Return all names that `named_scorer` accepts, for any problem."""
    names = get_scorer_names()
    costs = [name.removeprefix("neg_") for name in names if name.startswith("neg_")]
    return tuple(sorted({*names, *costs, *ALIASES, "quadratic_kappa"}))


def suitable_names(problem: Problem) -> list[str]:
    """Return the names of `scorer_names` that are defined for such problems."""
    return [name for name in scorer_names() if not _why_unsuitable(name, problem)]


def _scorer(name: str) -> Scorer:
    name = ALIASES.get(name, name)
    if name == "quadratic_kappa":
        return Scorer(make_scorer(cohen_kappa_score, weights="quadratic"), needs_all_classes=True)
    sign = 1 if name in get_scorer_names() else -1
    full_name = name if sign > 0 else f"neg_{name}"
    return Scorer(get_scorer(full_name), sign, needs_all_classes=full_name in ALL_CLASSES)


def _why_unsuitable(name: str, problem: Problem) -> str:
    """Return why a metric is not defined for such problems: by its kind, or by trying it on a few made-up images."""
    if name not in scorer_names():
        return "there is no such metric"
    full_name = ALIASES.get(name, name)
    names = {full_name, f"neg_{full_name}"}
    if names & CLUSTERING:
        return "it evaluates clusterings"
    if problem.has_classes and names & REGRESSION:
        return "it evaluates numbers"
    if not problem.has_one_class and names & ONE_CLASS:
        return "it evaluates class probabilities that sum to 1 for each image"
    if len(problem.classes) == 2 and full_name == "top_k_accuracy":
        return "it counts an image as right when its class is among the two likeliest"
    try:
        _scorer(name)(*_made_up(problem))
    except Exception as error:  # whatever scikit-learn raises is the reason
        return str(error).split(". ")[0].strip(" .") if problem.has_classes else "it evaluates classes"
    return ""


def _made_up(problem: Problem) -> tuple[np.ndarray, np.ndarray, Problem]:
    """Return targets and predictions, some of them wrong, of a small problem of this type."""
    if not problem.has_classes:
        targets = np.array([1.25, 2.5, 3.75, 4.5])
        return targets, targets[:, None] + 0.1, Regression()
    num = min(3, len(problem.classes))
    small = replace(problem, classes=problem.classes[:num])  # type: ignore[type-var]  # a dataclass
    if not problem.has_one_class:
        targets = np.vstack([np.eye(num), 1 - np.eye(num), np.eye(num)])
        right = np.vstack([np.eye(num), 1 - np.eye(num), 1 - np.eye(num)])
        return targets, right * 0.8 + 0.1, small
    targets = np.tile(np.arange(num), 3)
    guesses = np.concatenate([targets[: 2 * num], np.roll(np.arange(num), 1)])
    return targets, np.eye(num)[guesses] * 0.7 + 0.3 / num, small
