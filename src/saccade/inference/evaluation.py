"""Metrics on labelled images, with bootstrap confidence intervals."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from saccade.checks import fraction
from saccade.errors import DataError
from saccade.inference.calibration import calibration_gaps, error_by_chance, error_of_gaps
from saccade.tasks.metrics import MeanOver, Metric, built_in_metrics
from saccade.tasks.problem import Problem

NUM_RESAMPLES, MIN_RESAMPLES = 1000, 20  # bootstrap samples of the images; with fewer than 20 there is no interval
BY_CHANCE = "ece_by_chance"  # the ``ece`` that perfect probabilities would have on so many images. It has no interval

OF_PROBABILITIES = re.compile("(neg_)?(log_loss|brier)|d2_|roc_auc|average_precision|top_k")
"""Names of metrics of calibrated probabilities, as `predict_proba` returns them; others are those of `predict`."""

Scores = dict[str, float]


def evaluation(
    targets: np.ndarray,
    probabilities: np.ndarray,
    adjusted: np.ndarray,
    problem: Problem,
    metric: Metric | None = None,
    *,
    metrics: Sequence[Metric] | None = None,
    detailed: bool = False,
    interval: float | None = None,
    bootstrap_s: float = math.inf,
) -> dict[str, Any]:
    """Return what `ImagePredictor.evaluate` returns; `metric` is a further one.

    `probabilities` and `adjusted` are `Predictions.predictions` and `Predictions.adjusted`. `metrics` replace `metric`
    and those that are always reported. After `bootstrap_s` seconds there are no further resamples. Raises a DataError
    if a metric is not defined on these images.
    """
    if interval is not None:
        fraction("interval", interval)
    # Each metric with the predictions that it is computed from: details refer to unadjusted probabilities.
    asked = [] if metric is None else [(metric, adjusted)]
    usual = [(each, adjusted) for each in built_in_metrics(problem, "always").values()]
    if metrics is not None:
        asked = [(each, probabilities if OF_PROBABILITIES.match(each.name) else adjusted) for each in metrics]
        usual = []
    if detailed:
        usual += [(each, probabilities) for each in built_in_metrics(problem, "detailed").values()]
    reported = {each.name: (each, given) for each, given in (*usual, *asked)}
    scores: dict[str, Any] = {each.name: each.function(targets, given, problem) for each, given in usual}
    if detailed and problem.has_classes:
        bins, gaps = calibration_gaps(probabilities, targets, problem)
        scores["ece"] = error_of_gaps(bins, gaps)
        scores[BY_CHANCE] = error_by_chance(probabilities, problem)
    scores |= {each.name: each(targets, given, problem) for each, given in asked}
    if interval is None or not len(targets):
        return scores
    # Metrics that are means over images are resampled by their values of each image, which is cheap.
    values_of = {
        name: each.function.values(targets, given, problem)
        for name, (each, given) in reported.items()
        if isinstance(each.function, MeanOver)
    }

    def resampled(rows: np.ndarray) -> Scores:
        again = {}
        for name, (each, given) in reported.items():
            if isinstance(each.function, MeanOver):
                again[name] = each.function.of_values(values_of[name][rows])
            else:
                again[name] = each(targets[rows], given[rows], problem)
        if "ece" in scores:
            again["ece"] = error_of_gaps(bins[:, rows], gaps[:, rows])
        return again

    intervals = bootstrap_intervals(resampled, len(targets), interval, bootstrap_s)
    return _with_intervals(scores, intervals, len(targets), interval)


def confusion_matrix(
    targets: np.ndarray, adjusted: np.ndarray, problem: Problem, class_names: Sequence[str]
) -> pd.DataFrame:
    """Return image counts by true (rows) and predicted class; for multilabel problems tn, fp, fn, tp of each label."""
    problem.require_classes("confusion_matrix")
    if not problem.has_one_class:
        true, given = problem.true_labels(targets) > 0, problem.predicted_labels(adjusted) > 0
        numbers = {"tn": ~true & ~given, "fp": ~true & given, "fn": true & ~given, "tp": true & given}
        by_label: pd.DataFrame = pd.DataFrame({name: each.sum(0) for name, each in numbers.items()}, list(class_names))
        return by_label
    counts = np.zeros((len(class_names),) * 2, np.int64)
    np.add.at(counts, (targets, adjusted.argmax(1)), 1)
    true_names, predicted_names = (pd.Index(class_names, name=name) for name in ("true", "predicted"))
    matrix: pd.DataFrame = pd.DataFrame(counts, true_names, predicted_names)
    return matrix


def classification_report(
    targets: np.ndarray, adjusted: np.ndarray, problem: Problem, class_names: Sequence[str]
) -> pd.DataFrame:
    """Return precision, recall, F1 score and number of images of each class; 0 where they are not defined."""
    from sklearn.metrics import precision_recall_fscore_support  # lazily, as it is slow to import

    problem.require_classes("classification_report")
    if problem.has_one_class:
        true, given = targets, adjusted.argmax(1)
    else:
        true, given = problem.true_labels(targets), problem.predicted_labels(adjusted)
    numbers = np.arange(len(class_names))
    columns = precision_recall_fscore_support(true, given, labels=numbers, zero_division=0)
    names = ("precision", "recall", "f1-score", "support")  # those of scikit-learn
    table: pd.DataFrame = pd.DataFrame(dict(zip(names, columns, strict=True)), list(class_names))
    return table


TABLES = {"confusion_matrix": confusion_matrix, "classification_report": classification_report}
"""What `ImagePredictor.evaluate` returns as a table, by name."""


def bootstrap_intervals(
    scores_of: Callable[[np.ndarray], Scores], num_images: int, interval: float, max_seconds: float = math.inf
) -> dict[str, tuple[float, float]]:
    """Return percentile bootstrap intervals of metrics by name (Efron and Tibshirani 1993).

    `scores_of` maps the numbers of images, with repetitions, to metrics by name. A sample for which it raises a
    `DataError`, such as one that lacks a class, is skipped; without samples, or with less than `MIN_RESAMPLES` before
    `max_seconds`, the result is empty.
    """
    rng, start = np.random.default_rng(0), time.monotonic()
    samples: list[Scores] = []
    for number in range(NUM_RESAMPLES):
        if time.monotonic() - start > max_seconds:
            samples = samples if number >= MIN_RESAMPLES else []
            break
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


def wilson_interval(num_right: np.ndarray, num: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Return Wilson's score intervals of proportions (JASA 1927), of shape (2, ...); NaN where `num` is 0.

    Examples
    --------
    >>> wilson_interval(np.array([8, 10]), np.array([10, 10])).round(3)
    array([[0.49 , 0.722],
           [0.943, 1.   ]])
    """
    z, num = NormalDist().inv_cdf((1 + confidence) / 2), np.where(num > 0, num, np.nan)
    p = num_right / num
    reach = z * np.sqrt(p * (1 - p) / num + (z / num) ** 2 / 4)
    ends = (np.stack([p - reach, p + reach]) + z**2 / (2 * num)) / (1 + z**2 / num)
    return np.clip(ends, 0, 1)


def _with_intervals(
    scores: Scores, intervals: dict[str, tuple[float, float]], num_images: int, interval: float
) -> dict[str, Any]:
    """Return metrics with their intervals; those of an accuracy of 0 or 1 are exact (Clopper and Pearson 1934)."""
    reach = ((1 - interval) / 2) ** (1 / num_images)  # bootstraps have width 0 there
    found: dict[str, Any] = {}
    for name, score in scores.items():
        found[name] = score
        ends = intervals.get(name, (math.nan, math.nan))
        if name in ("top1", "top5", "subset_accuracy", "accuracy") and score in (0, 1):
            ends = (reach, 1.0) if score else (0.0, 1 - reach)
        if name != BY_CHANCE:
            found[f"{name}_interval"] = ends
    return found
