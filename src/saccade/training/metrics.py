"""Figures of merit on held-out images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from saccade.errors import UnknownNameError
from saccade.training.problem import Problem

Function = Callable[[np.ndarray, np.ndarray, Problem], float]
"""From encoded targets and activated predictions, as `Problem` makes them, to a figure."""


@dataclass(frozen=True)
class Metric:
    """A figure of merit and which way is better.

    `score` turns it so that higher is better, which is what a search maximises.
    """

    name: str
    function: Function
    greater_is_better: bool = True

    def __call__(self, targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
        """Return the figure in its own sense."""
        return float(self.function(targets, predictions, problem))

    def score(self, figure: float) -> float:
        """Return the figure so that higher is better."""
        return figure if self.greater_is_better else -figure


def accuracy(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:  # noqa: ARG001
    """Return the part of the images whose likeliest class is right."""
    return float((predictions.argmax(1) == targets).mean())


def top5(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:  # noqa: ARG001
    """Return the part of the images whose class is among the five likeliest."""
    likeliest = np.argpartition(-predictions, 5, axis=1)[:, :5]
    return float((likeliest == targets[:, None]).any(1).mean())


def log_loss(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:  # noqa: ARG001
    """Return the mean negative logarithm of the right class's probability."""
    right = predictions[np.arange(len(targets)), targets]
    return float(-np.log(np.clip(right, 1e-15, None)).mean())


def rmse(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> float:
    """Return the root of the mean squared error, in the labels' units."""
    return float(np.sqrt(((predictions[:, 0] - targets * problem.std - problem.mean) ** 2).mean()))


_CLASSIFICATION = {
    "accuracy": Metric("accuracy", accuracy),
    "log_loss": Metric("log_loss", log_loss, greater_is_better=False),
}
_REGRESSION = {"rmse": Metric("rmse", rmse, greater_is_better=False)}


def make_metric(name: str | None, problem: Problem) -> Metric:
    """Return the metric of that name, or the problem's default: accuracy, or rmse for regression.

    Raises
    ------
    UnknownNameError
        When the problem has no metric of that name.
    """
    known = _CLASSIFICATION if problem.is_classification else _REGRESSION
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise UnknownNameError.of(f"eval_metric for {problem.type} problems", name, known)
    return known[name]


def held_out_figures(targets: np.ndarray, predictions: np.ndarray, problem: Problem) -> dict[str, float]:
    """Return what `ImagePredictor.evaluate` tells: top1, and top5 where that says something; or rmse."""
    if not problem.is_classification:
        return {"rmse": rmse(targets, predictions, problem)}
    figures = {"top1": accuracy(targets, predictions, problem)}
    if len(problem.classes) > 5:
        figures["top5"] = top5(targets, predictions, problem)
    return figures
