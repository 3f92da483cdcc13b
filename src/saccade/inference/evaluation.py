"""Metrics on labelled images, with bootstrap confidence intervals."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from saccade.checks import fraction
from saccade.errors import DataError
from saccade.inference.calibration import calibration_gaps, error_by_chance, error_of_gaps
from saccade.tasks.metrics import MeanOver, Metric, built_in_metrics
from saccade.tasks.problem import Problem

NUM_RESAMPLES, MIN_RESAMPLES = 1000, 20  # bootstrap samples of the images; an interval needs at least 20
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
    and those that are always reported. After `bootstrap_s` seconds resampling ends. Raises a DataError
    if a metric is not defined on these images.
    """
    if interval is not None:
        fraction("interval", interval)
    # Each metric with the predictions that it is computed from: details refer to unadjusted probabilities.
    asked = [] if metric is None else [(metric, adjusted)]
    usual = [(each, adjusted) for each in built_in_metrics(problem, "always").values()]
    if metrics is not None:
        asked = [(each, predictions_for(each, probabilities, adjusted)) for each in metrics]
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
    more = {"ece": lambda rows: error_of_gaps(bins[:, rows], gaps[:, rows])} if "ece" in scores else {}
    samples = resampled_scores(reported, targets, problem, more, bootstrap_s)
    found: dict[str, Any] = {}
    for name, score in scores.items():
        found[name] = score
        if name != BY_CHANCE:
            found[f"{name}_interval"] = score_interval(name, score, samples.get(name), len(targets), interval)
    return found


def predictions_for(metric: Metric, probabilities: np.ndarray, adjusted: np.ndarray) -> np.ndarray:
    """Return what a metric is computed from: probabilities as `predict_proba` returns them, or those of `predict`."""
    return probabilities if OF_PROBABILITIES.match(metric.name) else adjusted


def confusion_matrix(
    targets: np.ndarray, adjusted: np.ndarray, problem: Problem, class_names: Sequence[str]
) -> pd.DataFrame:
    """Return image counts by true (rows) and predicted class; for multilabel problems tn, fp, fn, tp of each label."""
    problem.require_classes("confusion_matrix")
    if not problem.has_one_class:
        true, given = problem.true_labels(targets) > 0, problem.predicted_labels(adjusted) > 0
        numbers = {"tn": ~true & ~given, "fp": ~true & given, "fn": true & ~given, "tp": true & given}
        by_label: pd.DataFrame = pd.DataFrame(
            {name: each.sum(0) for name, each in numbers.items()}, pd.Index(list(class_names), dtype="object")
        )
        return by_label
    counts = np.zeros((len(class_names),) * 2, np.int64)
    np.add.at(counts, (targets, adjusted.argmax(1)), 1)
    # As objects, since a name of bytes that are not UTF-8, as of a folder, cannot be a string of Arrow.
    true_names, predicted_names = (
        pd.Index(list(class_names), dtype="object", name=name) for name in ("true", "predicted")
    )
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
    table: pd.DataFrame = pd.DataFrame(
        dict(zip(names, columns, strict=True)), pd.Index(list(class_names), dtype="object")
    )
    return table


TABLES = {"confusion_matrix": confusion_matrix, "classification_report": classification_report}
"""What `ImagePredictor.evaluate` returns as a table, by name."""


def resampled_scores(
    reported: Mapping[str, tuple[Metric, np.ndarray]],
    targets: np.ndarray,
    problem: Problem,
    more: Mapping[str, Callable[[np.ndarray], float]] = MappingProxyType({}),
    max_seconds: float = math.inf,
) -> dict[str, np.ndarray]:
    """Return the values of metrics on `NUM_RESAMPLES` bootstrap samples of the images (Efron and Tibshirani 1993).

    `reported` has a metric and the predictions that it is computed from, by any name; `more` are functions of the rows
    of a sample. All values with the same position are of the same sample, so differences of them are paired. A sample
    on which a metric is not defined, such as one that lacks a class, is skipped; without samples, or with less than
    `MIN_RESAMPLES` in `max_seconds`, the result is empty.
    """
    # Metrics that are means over images are resampled by their values of each image, which is cheap.
    values_of = {
        name: each.function.values(targets, given, problem)
        for name, (each, given) in reported.items()
        if isinstance(each.function, MeanOver)
    }
    rng, start = np.random.default_rng(0), time.monotonic()
    samples: list[Scores] = []
    for number in range(NUM_RESAMPLES):
        if time.monotonic() - start > max_seconds:
            samples = samples if number >= MIN_RESAMPLES else []
            break
        rows = rng.integers(len(targets), size=len(targets))
        sample = {}
        try:
            for name, (each, given) in reported.items():
                if isinstance(each.function, MeanOver):
                    sample[name] = each.function.of_values(values_of[name][rows])
                else:
                    sample[name] = each(targets[rows], given[rows], problem)
        except DataError:
            continue
        samples.append(sample | {name: score_of(rows) for name, score_of in more.items()})
    return {name: np.array([sample[name] for sample in samples]) for name in (samples[0] if samples else ())}


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


def percentiles(samples: np.ndarray, interval: float) -> tuple[float, float]:
    """Return the percentile interval of bootstrap samples of a metric."""
    low, high = np.quantile(samples, [(1 - interval) / 2, (1 + interval) / 2]).tolist()
    return low, high


def score_interval(
    name: str, score: float, samples: np.ndarray | None, num_images: int, interval: float
) -> tuple[float, float]:
    """Return the interval of a metric from its bootstrap samples; of an accuracy of 0 or 1 an exact one; NaN without.

    Bootstrap intervals of these accuracies have width 0 (Clopper and Pearson 1934 have the exact ones).
    """
    if name in ("top1", "top5", "subset_accuracy", "accuracy") and score in (0, 1):
        reach = ((1 - interval) / 2) ** (1 / num_images)
        return (reach, 1.0) if score else (0.0, 1 - reach)
    return (math.nan, math.nan) if samples is None else percentiles(samples, interval)


def difference_p_value(differences: np.ndarray) -> float:
    """Return the two-sided p-value of no difference, from bootstrap samples of a paired difference.

    It is below 1 - `interval` where the percentile interval excludes 0, and never below 2 / (number of samples + 1).
    """
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, 2 * (1 + float(beyond)) / (1 + len(differences)))
