"""Figures on labelled images, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from saccade.errors import DataError
from saccade.inference.calibration import calibration_error, error_by_chance
from saccade.inference.conformal import check_share
from saccade.tasks.metrics import MeanOver, Metric, built_in_metrics
from saccade.tasks.problem import Problem

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
    # Each metric with the predictions that it is computed from: details refer to probabilities as they are.
    metrics = {name: (each, decided) for name, each in built_in_metrics(problem, "always").items()}
    if detailed:
        metrics |= {name: (each, probabilities) for name, each in built_in_metrics(problem, "detailed").items()}
    told: dict[str, Any] = {name: each.function(targets, given, problem) for name, (each, given) in metrics.items()}
    if detailed and problem.has_classes:
        told["ece"] = calibration_error(probabilities, targets, problem)
        told[BY_CHANCE] = error_by_chance(probabilities, problem)
    if metric is not None:
        metrics[metric.name] = metric, decided
        told[metric.name] = metric(targets, decided, problem)
    if interval is None or not len(targets):
        return told
    values_of = {
        name: each.function.values(targets, given, problem)
        for name, (each, given) in metrics.items()
        if isinstance(each.function, MeanOver)
    }

    def figures(rows: np.ndarray) -> Figures:
        again = {}
        for name, (each, given) in metrics.items():
            if isinstance(each.function, MeanOver):
                again[name] = each.function.of_values(values_of[name][rows])
            else:
                again[name] = each(targets[rows], given[rows], problem)
        if "ece" in told:
            again["ece"] = calibration_error(probabilities[rows], targets[rows], problem)
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
