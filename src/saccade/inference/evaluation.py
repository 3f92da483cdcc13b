"""Figures on labelled images, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from saccade.errors import DataError
from saccade.inference.calibration import calibration_error, error_by_chance
from saccade.inference.conformal import check_share
from saccade.tasks.metrics import Metric, held_out_figures, log_loss
from saccade.tasks.problem import THRESHOLD, Problem

NUM_RESAMPLES = 1000
"""Bootstrap samples of the images."""

BY_CHANCE = "ece_by_chance"
"""What the ``ece`` of so many images would be if all were well: it has no interval."""

Figures = dict[str, float]


def evaluation(
    targets: np.ndarray,
    probabilities: np.ndarray,
    decided: np.ndarray,
    problem: Problem,
    metric: Metric | None = None,
    *,
    detailed: bool = False,
    interval: float | None = None,
) -> dict[str, Any]:
    """Return what `ImagePredictor.evaluate` returns.

    Parameters
    ----------
    targets : ndarray, shape (num_images,) or (num_images, num_classes)
        As `Problem.encode` returned them.
    probabilities, decided : ndarray, shape (num_images, num_outputs)
        Predictions; and the same after `Thresholds.decided`.
    problem : Problem
        What these mean.
    metric : Metric or None
        A figure besides those that are always told.
    detailed : bool
        Whether to tell ``log_loss``, ``ece`` and ``ece_by_chance`` as well; for regression ``mae``.
    interval : float or None
        The confidence of intervals, such as .95; None is without.

    Raises
    ------
    DataError
        When the metric is not defined on these images.
    """
    check_interval(interval)
    told: dict[str, Any] = held_out_figures(targets, decided, problem)
    if detailed:
        told |= _details(targets, probabilities, problem)
    if metric is not None:
        told[metric.name] = metric(targets, decided, problem)
    if interval is None or not len(targets):
        return told
    means = _values_of_images(targets, probabilities, decided, problem)

    def figures(rows: np.ndarray) -> Figures:
        again = {name: float(values[rows].mean()) for name, values in means.items() if name in told}
        if "rmse" in again:
            again["rmse"] = math.sqrt(again["rmse"])
        if problem.type == "multilabel":
            again["f1_micro"] = held_out_figures(targets[rows], decided[rows], problem)["f1_micro"]
        if "ece" in told:
            again["ece"] = calibration_error(probabilities[rows], targets[rows], problem)
        if metric is not None and metric.name not in again:
            again[metric.name] = metric(targets[rows], decided[rows], problem)
        return again

    intervals = bootstrap_intervals(figures, len(targets), interval)
    _widen_where_all_are_alike(told, intervals, len(targets), interval)
    return {key: value for name in told for key, value in _with_interval(name, told[name], intervals)}


def bootstrap_intervals(
    figures: Callable[[np.ndarray], Figures], num_images: int, interval: float, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the percentile bootstrap's intervals of figures (Efron and Tibshirani 1993).

    Parameters
    ----------
    figures : callable
        From the numbers of images, some of them several times, to figures by name. Where it raises a `DataError`, as
        without any image of a class, the sample is left out.
    num_images : int
        How many there are to draw from.
    interval : float
        The confidence, between 0 and 1.
    seed : int
        Of the samples; the same images give the same interval.

    Returns
    -------
    dict
        Lower and upper end by name. Empty when no sample has figures.

    Examples
    --------
    >>> values = np.arange(100)
    >>> low, high = bootstrap_intervals(lambda rows: {"mean": float(values[rows].mean())}, 100, 0.95)["mean"]
    >>> low < 49.5 < high
    True
    """
    rng = np.random.default_rng(seed)
    samples: list[Figures] = []
    for _ in range(NUM_RESAMPLES):
        try:
            samples.append(figures(rng.integers(num_images, size=num_images)))
        except DataError:
            continue
    ends = [(1 - interval) / 2, (1 + interval) / 2]
    intervals = {}
    for name in samples[0] if samples else ():
        low, high = np.quantile([sample[name] for sample in samples], ends).tolist()
        intervals[name] = (low, high)
    return intervals


def check_interval(interval: float | None) -> None:
    """See that an interval's confidence is one.

    Raises
    ------
    HyperparameterError
        When it is none.
    """
    if interval is not None:
        check_share("interval", interval)


def _details(targets: np.ndarray, probabilities: np.ndarray, problem: Problem) -> Figures:
    if problem.type == "regression":
        return {"mae": float(_distances(targets, probabilities, problem).mean())}
    return {
        "log_loss": log_loss(targets, probabilities, problem),
        "ece": calibration_error(probabilities, targets, problem),
        BY_CHANCE: error_by_chance(probabilities, problem),
    }


def _values_of_images(
    targets: np.ndarray, probabilities: np.ndarray, decided: np.ndarray, problem: Problem
) -> dict[str, np.ndarray]:
    """Return values of each image whose mean is a figure (its square for ``rmse``), so that it need not be found anew.

    The same figure under another name, ``accuracy`` for ``top1``, is among them.
    """
    if problem.type == "regression":
        distances = _distances(targets, probabilities, problem)
        return {"rmse": distances**2, "mae": distances}
    if problem.type == "multilabel":
        is_right = ((decided >= THRESHOLD) == (targets > 0)).all(1)
        given = np.where(targets > 0, probabilities, 1 - probabilities)
        return dict.fromkeys(("subset_accuracy", "accuracy"), is_right) | {"log_loss": _losses(given).mean(1)}
    right = np.arange(len(targets)), targets
    is_right = decided.argmax(1) == targets
    # As in `top5`: how many are likelier. Where there are no more than five classes it is not told.
    is_among_5 = (decided > decided[right][:, None]).sum(1) < 5
    return {"top1": is_right, "accuracy": is_right, "top5": is_among_5, "log_loss": _losses(probabilities[right])}


def _losses(given: np.ndarray) -> np.ndarray:
    losses: np.ndarray = -np.log(np.clip(given, 1e-15, None))
    return losses


def _distances(targets: np.ndarray, numbers: np.ndarray, problem: Problem) -> np.ndarray:
    distances: np.ndarray = np.abs((numbers[:, 0] - problem.mean) / problem.std - targets) * problem.std
    return distances


def _widen_where_all_are_alike(
    told: Figures, intervals: dict[str, tuple[float, float]], num_images: int, interval: float
) -> None:
    """Give the exact interval to a share of all images, or of none (Clopper and Pearson 1934).

    A bootstrap sees only what was seen: of a network that was right on all of 20 images, it says that it always is.
    """
    reach = ((1 - interval) / 2) ** (1 / num_images)
    for name in told.keys() & {"top1", "top5", "subset_accuracy", "accuracy"}:
        if told[name] == 1:
            intervals[name] = (reach, 1.0)
        elif told[name] == 0:
            intervals[name] = (0.0, 1 - reach)


def _with_interval(name: str, figure: float, intervals: dict[str, tuple[float, float]]) -> list[tuple[str, Any]]:
    if name == BY_CHANCE:
        return [(name, figure)]
    return [(name, figure), (f"{name}_interval", intervals.get(name, (math.nan, math.nan)))]
