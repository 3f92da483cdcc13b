"""Metrics on labelled images, with bootstrap confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from saccade.checks import fraction
from saccade.errors import DataError
from saccade.inference.calibration import calibration_error, error_by_chance
from saccade.tasks.metrics import MeanOver, Metric, built_in_metrics
from saccade.tasks.problem import Problem

NUM_RESAMPLES = 1000
"""Bootstrap samples of the images."""

BY_CHANCE = "ece_by_chance"
"""The ``ece`` that perfect probabilities would have on so many images. It has no interval."""

Scores = dict[str, float]


def evaluation(
    targets: np.ndarray,
    probabilities: np.ndarray,
    adjusted: np.ndarray,
    problem: Problem,
    metric: Metric | None = None,
    *,
    detailed: bool = False,
    interval: float | None = None,
) -> dict[str, Any]:
    """Return what `ImagePredictor.evaluate` returns; `metric` is a further one.

    `probabilities` and `adjusted` are `Predictions.predictions` and `Predictions.adjusted`. Raises a DataError if the
    metric is not defined on these images.
    """
    if interval is not None:
        fraction("interval", interval)
    # Each metric with the predictions that it is computed from: details refer to unadjusted probabilities.
    metrics = {name: (each, adjusted) for name, each in built_in_metrics(problem, "always").items()}
    if detailed:
        metrics |= {name: (each, probabilities) for name, each in built_in_metrics(problem, "detailed").items()}
    scores: dict[str, Any] = {name: each.function(targets, given, problem) for name, (each, given) in metrics.items()}
    if detailed and problem.has_classes:
        scores["ece"] = calibration_error(probabilities, targets, problem)
        scores[BY_CHANCE] = error_by_chance(probabilities, problem)
    if metric is not None:
        metrics[metric.name] = metric, adjusted
        scores[metric.name] = metric(targets, adjusted, problem)
    if interval is None or not len(targets):
        return scores
    # Metrics that are means over images are resampled by their values of each image, which is cheap.
    values_of = {
        name: each.function.values(targets, given, problem)
        for name, (each, given) in metrics.items()
        if isinstance(each.function, MeanOver)
    }

    def resampled(rows: np.ndarray) -> Scores:
        again = {}
        for name, (each, given) in metrics.items():
            if isinstance(each.function, MeanOver):
                again[name] = each.function.of_values(values_of[name][rows])
            else:
                again[name] = each(targets[rows], given[rows], problem)
        if "ece" in scores:
            again["ece"] = calibration_error(probabilities[rows], targets[rows], problem)
        return again

    intervals = bootstrap_intervals(resampled, len(targets), interval)
    _set_exact_intervals(scores, intervals, len(targets), interval)
    return {key: value for name in scores for key, value in _with_interval(name, scores[name], intervals)}


def bootstrap_intervals(
    scores_of: Callable[[np.ndarray], Scores], num_images: int, interval: float
) -> dict[str, tuple[float, float]]:
    """Return percentile bootstrap intervals of metrics by name (Efron and Tibshirani 1993).

    `scores_of` maps the numbers of images, with repetitions, to metrics by name. A sample for which it raises a
    `DataError`, such as one that lacks a class, is skipped; without samples the result is empty.

    Examples
    --------
    >>> values = np.arange(100)
    >>> low, high = bootstrap_intervals(lambda rows: {"mean": float(values[rows].mean())}, 100, 0.95)["mean"]
    >>> low < 49.5 < high
    True
    """
    rng = np.random.default_rng(0)
    samples: list[Scores] = []
    for _ in range(NUM_RESAMPLES):
        try:
            samples.append(scores_of(rng.integers(num_images, size=num_images)))
        except DataError:
            continue
    ends = [(1 - interval) / 2, (1 + interval) / 2]
    intervals = {}
    for name in samples[0] if samples else ():
        low, high = np.quantile([sample[name] for sample in samples], ends).tolist()
        intervals[name] = (low, high)
    return intervals


def _set_exact_intervals(
    scores: Scores, intervals: dict[str, tuple[float, float]], num_images: int, interval: float
) -> None:
    """Set the exact interval of an accuracy of 0 or 1 (Clopper and Pearson 1934), where bootstraps have width 0."""
    reach = ((1 - interval) / 2) ** (1 / num_images)
    for name in scores.keys() & {"top1", "top5", "subset_accuracy", "accuracy"}:
        if scores[name] == 1:
            intervals[name] = (reach, 1.0)
        elif scores[name] == 0:
            intervals[name] = (0.0, 1 - reach)


def _with_interval(name: str, score: float, intervals: dict[str, tuple[float, float]]) -> list[tuple[str, Any]]:
    if name == BY_CHANCE:
        return [(name, score)]
    return [(name, score), (f"{name}_interval", intervals.get(name, (math.nan, math.nan)))]
