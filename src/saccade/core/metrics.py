"""The path ``autogluon.core.metrics``: metrics by name, for `ImagePredictor(eval_metric=…)`, and `make_scorer`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from saccade.errors import missing_attributes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

NAMES = (
    "accuracy", "average_precision", "balanced_accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "log_loss",
    "mcc", "mean_absolute_error", "mean_squared_error", "median_absolute_error", "pearsonr", "precision",
    "precision_macro", "precision_micro", "precision_weighted", "quadratic_kappa", "r2", "recall", "recall_macro",
    "recall_micro", "recall_weighted", "roc_auc", "roc_auc_ovo", "roc_auc_ovo_weighted", "roc_auc_ovr",
    "roc_auc_ovr_weighted", "root_mean_squared_error", "spearmanr",
)  # fmt: skip
"""Metrics of AutoGluon; `saccade.tasks.metrics.make_metric` has more."""


class NamedMetric(str):
    """The name of a metric, which computes it when it is called."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The name."""
        return str(self)

    def __call__(self, y_true: ArrayLike, y_pred: ArrayLike) -> float:
        """Return the metric of labels, or of probabilities with one column for each of the sorted labels."""
        import numpy as np  # lazily, as tuning does without all of them
        import pandas as pd

        from saccade.tasks.metrics import make_metric
        from saccade.tasks.problem import Problem

        true, given = np.asarray(y_true), np.asarray(y_pred)
        is_number = self.endswith("_error") or self in ("pearsonr", "r2", "spearmanr")
        labels = true if is_number or given.ndim == 2 else np.concatenate([true, given])
        kind = "regression" if is_number else "binary" if len(np.unique(labels)) == 2 else "multiclass"
        problem = Problem.of(labels, kind)
        predictions = given if given.ndim == 2 else problem.perfect_predictions(problem.encode(pd.Series(given)))
        return make_metric(self.name, problem)(problem.encode(pd.Series(true)), predictions, problem)


def get_metric(metric: str, problem_type: str | None = None) -> NamedMetric:  # noqa: ARG001 (AutoGluon's signature)
    """Return the metric of a name."""
    return NamedMetric(metric)


def make_scorer(
    name: str,
    score_func: Callable[..., float],
    optimum: float = 1,  # noqa: ARG001 (AutoGluon's signature)
    greater_is_better: bool = True,
    needs_proba: bool = False,
    needs_threshold: bool = False,
    **kwargs: Any,
) -> Callable[..., float]:
    """Return a scorer of a function ``f(y_true, y_pred, **kwargs)``, for `ImagePredictor(eval_metric=…)`, with a name.

    `optimum` has no effect. An error or a loss has `greater_is_better` False; its negative is reported. `needs_proba`
    and `needs_threshold` are whether `y_pred` are probabilities, or continuous decisions, instead of labels.
    """
    import sklearn.metrics  # lazily, as it is slow to import

    @functools.wraps(score_func)
    def named(*args: Any, **options: Any) -> float:
        return score_func(*args, **options)

    named.__name__ = name
    response = "predict_proba" if needs_proba else "decision_function" if needs_threshold else "predict"
    scorer: Callable[..., float] = sklearn.metrics.make_scorer(
        named, response_method=response, greater_is_better=greater_is_better, **kwargs
    )
    return scorer


_missing = missing_attributes(__name__, [*NAMES, "get_metric", "make_scorer"])


def __getattr__(name: str) -> NamedMetric:
    if name not in NAMES:
        _missing(name)
    return NamedMetric(name)


def __dir__() -> list[str]:
    return [*NAMES, "NamedMetric", "get_metric", "make_scorer"]
