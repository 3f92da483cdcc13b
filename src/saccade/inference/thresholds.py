"""Decision thresholds: which label is given if the metric does not reward the most probable one.

For imbalanced classes, F1 or balanced accuracy are highest at another threshold than 0.5. It is found on held-out
images, and validated by cross-fitting: each image is decided by the thresholds of the other folds. If the cross-fitted
metric is not better, 0.5 stays.

With several classes, balanced accuracy weighs each class alike. Its optimal decision is the class with the largest
ratio of probability to class prior (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021). So
probabilities are divided by the class prior, unless that is worse on held-out images by more than `NUM_ERRORS` standard
errors: there may be only one or two images of a rare class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from saccade.data.splitting import Groups, split_folds
from saccade.errors import DataError
from saccade.inference.calibration import EQUAL_CLASSES, NUM_FOLDS
from saccade.tasks.metrics import Metric
from saccade.tasks.problem import Problem

MIN_IMAGES = 5  # held-out images with a label, and without it, that a threshold requires
NUM_ERRORS = 2.0  # standard errors by which the metric must be worse for balanced classes to be rejected
_LOGITS = np.arange(-60, 61) / 10  # candidate thresholds as logits: from .0025 to .9975

Criterion = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""A metric, given true positives, false positives, false negatives and true negatives at each threshold."""


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of probabilities, or a class prior by which they are divided, before a label is decided."""

    values: tuple[float, ...] = ()  # of the positive class (binary), or of each label (multilabel); empty for 0.5
    metric_before: float | None = None  # on the held-out images, at 0.5
    metric_after: float | None = None  # the same, cross-fitted
    class_prior: tuple[float, ...] = ()  # divisor of each class's probability; empty if there is none

    def adjust(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return adjusted probabilities, to which the usual rule applies: the largest one, or those from 0.5 on.

        With `class_prior` they are the posterior under equal class frequencies; with `values`, thresholds are mapped to
        0.5 on the scale of odds. The dtype is kept; they are computed in float64.
        """
        if self.class_prior:
            prior = torch.tensor(self.class_prior, dtype=torch.float64, device=probabilities.device)
            ratio = probabilities.double() / prior
            return (ratio / ratio.sum(1, keepdim=True)).to(probabilities.dtype)
        if not self.values:
            return probabilities
        p, t = probabilities.double(), torch.tensor(self.values, dtype=torch.float64, device=probabilities.device)
        is_binary = len(self.values) < p.shape[1]
        if is_binary:
            p = p[:, 1:]
        odds, against = p * (1 - t), (1 - p) * t
        adjusted = odds / (odds + against)
        if is_binary:
            adjusted = torch.cat([1 - adjusted, adjusted], 1)
        return adjusted.to(probabilities.dtype)

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Return what `adjust` does, for arrays."""
        return self.adjust(torch.from_numpy(probabilities)).numpy()


def fit_thresholds(
    probabilities: np.ndarray,
    targets: np.ndarray,
    problem: Problem,
    metric: Metric,
    class_prior: np.ndarray | None = None,
    groups: Groups = None,
) -> tuple[Thresholds, np.ndarray]:
    """Find the thresholds that maximise a metric; return them, and the adjusted probabilities of the held-out images.

    These are cross-fitted: no image is adjusted by a threshold that was fitted to it. Binary and multilabel problems
    get thresholds for F1, the Jaccard index, balanced accuracy, Matthews' correlation or Cohen's kappa; other metrics
    are highest at 0.5 or do not depend on it. For balanced accuracy, multiclass problems get a class prior, and so do
    binary ones with too few images for a threshold; without `class_prior` it is that of `targets`.
    """
    p = problem.threshold_columns(probabilities)
    if p is None:
        if problem.has_one_class and metric.name == "balanced_accuracy":
            return _with_prior(probabilities, targets, problem, metric, class_prior)
        return Thresholds(), probabilities
    criterion = (BINARY if problem.has_one_class else MULTILABEL).get(metric.name)
    if criterion is None:
        return Thresholds(), probabilities
    is_positive = targets.reshape(p.shape) > 0
    is_by_label = metric.name.endswith("_macro") and not problem.has_one_class
    num_positive = is_positive.sum(0) if is_by_label else np.full(is_positive.shape[1], is_positive.sum())
    num_all = len(is_positive) if is_by_label else is_positive.size
    is_enough = (num_positive >= MIN_IMAGES) & (num_all - num_positive >= MIN_IMAGES)
    if not is_enough.any() or len(is_positive) < 2 * MIN_IMAGES:
        if metric.name == "balanced_accuracy" and class_prior is not None:
            return _with_prior(probabilities, targets, problem, metric, class_prior)
        return Thresholds(), probabilities
    folds = split_folds(np.zeros(len(is_positive)), NUM_FOLDS, np.random.default_rng(0), groups)
    adjusted, logits = probabilities.copy(), []
    for fold in range(folds.max() + 1):
        is_in = folds == fold
        best = _best_logits(p[~is_in], is_positive[~is_in], criterion, is_by_label)
        logits.append(np.where(is_enough, best, 0.0))
        adjusted[is_in] = Thresholds(_sigmoid(logits[-1])).apply(probabilities[is_in])
    try:
        before, after = metric(targets, probabilities, problem), metric(targets, adjusted, problem)
    except DataError:  # the metric is not defined on so few images
        return Thresholds(), probabilities
    if not metric.score(after) > metric.score(before):
        return Thresholds(metric_before=before, metric_after=before), probabilities
    return Thresholds(_sigmoid(np.mean(logits, axis=0)), before, after), adjusted


def _with_prior(
    probabilities: np.ndarray, targets: np.ndarray, problem: Problem, metric: Metric, class_prior: np.ndarray | None
) -> tuple[Thresholds, np.ndarray]:
    """Return the class prior as divisor, unless the metric is worse with it by more than `NUM_ERRORS` errors."""
    counts = np.bincount(targets, minlength=probabilities.shape[1])
    if class_prior is None:  # a class without images counts as one image
        class_prior = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    if np.ptp(class_prior) < EQUAL_CLASSES * class_prior.mean():
        return Thresholds(), probabilities
    found = Thresholds(class_prior=tuple(class_prior.tolist()))
    adjusted = found.apply(probabilities)
    try:
        before, after = (metric(targets, rows, problem) for rows in (probabilities, adjusted))
    except DataError:  # the metric is not defined on so few images
        return found, adjusted
    # Standard error of the difference of two balanced accuracies: images of a class weigh 1 / its count.
    change = (adjusted.argmax(1) == targets).astype(float) - (probabilities.argmax(1) == targets)
    error = math.sqrt(float(((change / counts[targets]) ** 2).sum())) / np.count_nonzero(counts)
    if metric.score(before) - metric.score(after) > NUM_ERRORS * error:
        return Thresholds(), probabilities
    return replace(found, metric_before=before, metric_after=after), adjusted


def _sigmoid(logits: np.ndarray) -> tuple[float, ...]:
    return tuple((1 / (1 + np.exp(-logits))).tolist())


def _best_logits(p: np.ndarray, is_positive: np.ndarray, criterion: Criterion, is_by_label: bool) -> np.ndarray:
    """Return the best threshold as a logit for each label: its own, or one for all labels."""
    values = 1 / (1 + np.exp(-_LOGITS))
    counts = []
    for column, is_label in zip(p.T, is_positive.T, strict=True):
        positive, negative = np.sort(column[is_label]), np.sort(column[~is_label])
        # A probability equal to the threshold gives the label.
        fn, tn = np.searchsorted(positive, values), np.searchsorted(negative, values)
        counts.append(np.array([len(positive) - fn, len(negative) - tn, fn, tn], np.float64))
    if not is_by_label:
        return np.full(len(counts), _middle_of_best(criterion(*np.sum(counts, axis=0))))
    return np.array([_middle_of_best(criterion(*each)) for each in counts])


def _middle_of_best(criterion: np.ndarray) -> float:
    """Return the middle of an interval of best thresholds, of several the one nearest to logit 0."""
    best = criterion >= criterion.max() - 1e-12
    starts = np.flatnonzero(np.diff(best.astype(np.int8), prepend=0) == 1)
    ends = np.flatnonzero(np.diff(best.astype(np.int8), append=0) == -1)
    middles = (_LOGITS[starts] + _LOGITS[ends]) / 2
    return float(middles[np.abs(middles).argmin()])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0))


def _f1(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:  # noqa: ARG001
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _jaccard(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:  # noqa: ARG001
    return _ratio(tp, tp + fp + fn)


def _matthews(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
    return _ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))


BINARY: dict[str, Criterion] = {
    "f1": _f1,
    "f1_macro": lambda tp, fp, fn, tn: (_f1(tp, fp, fn, tn) + _f1(tn, fn, fp, tp)) / 2,
    "jaccard": _jaccard,
    "balanced_accuracy": lambda tp, fp, fn, tn: (_ratio(tp, tp + fn) + _ratio(tn, tn + fp)) / 2,
    "matthews_corrcoef": _matthews,
    "mcc": _matthews,
    "quadratic_kappa": lambda tp, fp, fn, tn: _ratio(
        2 * (tp * tn - fp * fn), (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)
    ),
}
"""Metrics of binary problems as functions of the positive class's confusion counts."""

MULTILABEL: dict[str, Criterion] = {
    "f1_micro": _f1,
    "f1_macro": _f1,
    "f1_weighted": _f1,
    "f1_samples": _f1,
    "jaccard_micro": _jaccard,
    "jaccard_macro": _jaccard,
    "jaccard_weighted": _jaccard,
    "jaccard_samples": _jaccard,
}
"""Metrics of multilabel problems as functions of confusion counts: of each label (``_macro``), or of all together."""
