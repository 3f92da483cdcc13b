"""Which label is given, where the metric does not reward the likeliest answer.

F1 or balanced accuracy are highest at another threshold than .5 where classes are of unequal size. It is found on
images that taught nothing, and what it is worth is cross-fitted: each image is judged with the thresholds that suit the
folds that it is not in. Where that is no better, .5 stays.

Of several classes, balanced accuracy counts each alike, however rare it is; the best answer is then the class whose
probability is largest beside the share of training images that have it (Menon et al., "Long-tail learning via logit
adjustment", ICLR 2021). So probabilities are divided by these shares, unless held-out images say that it is worse by
more than chance: of rare classes there are one or two of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from saccade.errors import DataError
from saccade.inference.calibration import EQUAL_SHARES, fold_numbers
from saccade.tasks.metrics import Metric
from saccade.tasks.problem import Problem

MIN_IMAGES = 5
"""Held-out images with a label, and without it, that it takes to find the label's threshold."""

CHANCE = 2.0
"""Standard errors by which classes that count alike must be worse, before they do not."""

_LOGITS = np.arange(-60, 61) / 10
"""The thresholds that are tried, as logits: from .0025 to .9975."""

Counts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Of true positives, false positives, false negatives and true negatives, at each threshold."""


@dataclass(frozen=True)
class Thresholds:
    """From which probability on a label is given, or beside what probabilities count.

    Attributes
    ----------
    shares : tuple of float
        The part of the training images that each class has, where classes are to count alike; else empty.
    values : tuple of float
        For a binary problem that of the positive class; for multilabel ones that of each label. Empty where .5 counts.
    figure_before, figure_after : float or None
        The metric on the held-out images: at .5, and cross-fitted.
    """

    values: tuple[float, ...] = ()
    figure_before: float | None = None
    figure_after: float | None = None
    shares: tuple[float, ...] = ()

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """Return probabilities that are moved so that .5 is where each threshold was, for all that decides at .5.

        With `shares`, those that there would be if all classes were equally frequent.

        Parameters
        ----------
        probabilities : ndarray, shape (num_images, num_classes)
            Calibrated as those were that the thresholds were found on.

        Examples
        --------
        >>> Thresholds((0.2,)).decided(np.array([[0.7, 0.3], [0.85, 0.15]])).argmax(1)
        array([1, 0])
        """
        if self.shares:
            beside = probabilities.astype(np.float64) / np.array(self.shares)
            alike: np.ndarray = (beside / beside.sum(1, keepdims=True)).astype(probabilities.dtype)
            return alike
        if not self.values:
            return probabilities
        p, t = probabilities.astype(np.float64), np.array(self.values)
        is_binary = len(self.values) < p.shape[1]
        if is_binary:
            p = p[:, 1:]
        has, has_not = p * (1 - t), (1 - p) * t
        moved = has / (has + has_not)
        if is_binary:
            moved = np.hstack([1 - moved, moved])
        decided: np.ndarray = moved.astype(probabilities.dtype)
        return decided


def fit_thresholds(
    probabilities: np.ndarray,
    targets: np.ndarray,
    problem: Problem,
    metric: Metric,
    seed: int = 0,
    shares: np.ndarray | None = None,
) -> Thresholds:
    """Find the thresholds that suit a metric.

    Parameters
    ----------
    probabilities : ndarray, shape (num_images, num_classes)
        Of images that the network did not learn from.
    targets : ndarray, shape (num_images,) or (num_images, num_classes)
        Their labels, as `Problem.encode` returned them.
    problem : Problem
        Binary or multilabel; of several classes, the shares are taken for balanced accuracy, and of two where there are
        too few images for a threshold.
    metric : Metric
        F1, the Jaccard index, balanced accuracy, Matthews' or Cohen's coefficient, by name. All others, accuracy and
        the area under the ROC curve among them, want .5 or do not care.
    seed : int
        Of the folds.
    shares : ndarray or None
        As `saccade.training.imbalance.class_priors` returned them, or what `Calibration.shares_left` leaves of them;
        None takes those of `targets`.
    """
    p = problem.threshold_columns(probabilities)
    if p is None:
        is_balanced = problem.has_one_class and metric.name == "balanced_accuracy"
        return _by_shares(probabilities, targets, problem, metric, shares) if is_balanced else Thresholds()
    worth = (BINARY if problem.has_one_class else MULTILABEL).get(metric.name)
    if worth is None:
        return Thresholds()
    has = targets.reshape(p.shape) > 0
    is_by_label = metric.name.endswith("_macro") and not problem.has_one_class
    num_with = has.sum(0) if is_by_label else np.full(has.shape[1], has.sum())
    num_all = len(has) if is_by_label else has.size
    is_enough = (num_with >= MIN_IMAGES) & (num_all - num_with >= MIN_IMAGES)
    if not is_enough.any() or len(has) < 2 * MIN_IMAGES:
        is_known = metric.name == "balanced_accuracy" and shares is not None
        return _by_shares(probabilities, targets, problem, metric, shares) if is_known else Thresholds()
    folds = fold_numbers(len(has), np.random.default_rng(seed))
    decided, logits = probabilities.copy(), []
    for fold in range(folds.max() + 1):
        is_in = folds == fold
        logits.append(np.where(is_enough, _best_logits(p[~is_in], has[~is_in], worth, is_by_label), 0.0))
        decided[is_in] = Thresholds(_as_values(logits[-1])).decided(probabilities[is_in])
    try:
        before, after = metric(targets, probabilities, problem), metric(targets, decided, problem)
    except DataError:  # not defined on so few images
        return Thresholds()
    if not metric.score(after) > metric.score(before):
        return Thresholds(figure_before=before, figure_after=before)
    return Thresholds(_as_values(np.mean(logits, axis=0)), before, after)


def _by_shares(
    probabilities: np.ndarray, targets: np.ndarray, problem: Problem, metric: Metric, shares: np.ndarray | None
) -> Thresholds:
    """Return the shares of classes, unless it is worse by more than chance to count them alike."""
    counts = np.bincount(targets, minlength=probabilities.shape[1])
    if shares is None:  # a class that is not there has one image
        shares = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    if np.ptp(shares) < EQUAL_SHARES * shares.mean():
        return Thresholds()
    found = Thresholds(shares=tuple(shares.tolist()))
    decided = found.decided(probabilities)
    try:
        before, after = (metric(targets, rows, problem) for rows in (probabilities, decided))
    except DataError:  # not defined on so few images
        return found
    gained = (decided.argmax(1) == targets).astype(float) - (probabilities.argmax(1) == targets)
    by_chance = CHANCE * math.sqrt(float(((gained / counts[targets]) ** 2).sum())) / np.count_nonzero(counts)
    is_worse = metric.score(before) - metric.score(after) > by_chance
    return Thresholds() if is_worse else replace(found, figure_before=before, figure_after=after)


def _as_values(logits: np.ndarray) -> tuple[float, ...]:
    return tuple((1 / (1 + np.exp(-logits))).tolist())


def _best_logits(
    p: np.ndarray, has: np.ndarray, worth: Callable[[Counts], np.ndarray], is_by_label: bool
) -> np.ndarray:
    """Return the best threshold as a logit for each label: its own, or one for all."""
    counts = [_counts(p_of, has_of) for p_of, has_of in zip(p.T, has.T, strict=True)]
    if not is_by_label:
        tp, fp, fn, tn = np.sum(counts, axis=0)
        return np.full(len(counts), _middle_of_best(worth((tp, fp, fn, tn))))
    return np.array([_middle_of_best(worth(each)) for each in counts])


def _counts(p: np.ndarray, has: np.ndarray) -> Counts:
    """Count what is right and wrong at each of the thresholds."""
    values = 1 / (1 + np.exp(-_LOGITS))
    with_it, without = np.sort(p[has]), np.sort(p[~has])
    fn, tn = np.searchsorted(with_it, values), np.searchsorted(without, values)  # at the threshold a label is given
    return len(with_it) - fn, len(without) - tn, fn, tn


def _middle_of_best(worth: np.ndarray) -> float:
    """Return the middle of the best thresholds that is nearest to 0: between images rather than next to one."""
    best = worth >= worth.max() - 1e-12
    starts = np.flatnonzero(np.diff(best.astype(np.int8), prepend=0) == 1)
    ends = np.flatnonzero(np.diff(best.astype(np.int8), append=0) == -1)
    middles = (_LOGITS[starts] + _LOGITS[ends]) / 2
    return float(middles[np.abs(middles).argmin()])


def _part(share: np.ndarray, whole: np.ndarray) -> np.ndarray:
    parts: np.ndarray = np.divide(share, whole, out=np.zeros(len(share)), where=whole > 0)
    return parts


def _f1(counts: Counts) -> np.ndarray:
    tp, fp, fn, _ = counts
    return _part(2 * tp, 2 * tp + fp + fn)


def _f1_of_both(counts: Counts) -> np.ndarray:
    tp, fp, fn, tn = counts
    both: np.ndarray = (_f1(counts) + _f1((tn, fn, fp, tp))) / 2
    return both


def _jaccard(counts: Counts) -> np.ndarray:
    tp, fp, fn, _ = counts
    return _part(tp, tp + fp + fn)


def _balanced_accuracy(counts: Counts) -> np.ndarray:
    tp, fp, fn, tn = counts
    both: np.ndarray = (_part(tp, tp + fn) + _part(tn, tn + fp)) / 2
    return both


def _matthews(counts: Counts) -> np.ndarray:
    tp, fp, fn, tn = (each.astype(np.float64) for each in counts)
    return _part(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))


def _kappa(counts: Counts) -> np.ndarray:
    tp, fp, fn, tn = (each.astype(np.float64) for each in counts)
    return _part(2 * (tp * tn - fp * fn), (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn))


Worth = Callable[[Counts], np.ndarray]

BINARY: dict[str, Worth] = {
    "f1": _f1,
    "f1_macro": _f1_of_both,
    "jaccard": _jaccard,
    "balanced_accuracy": _balanced_accuracy,
    "matthews_corrcoef": _matthews,
    "mcc": _matthews,
    "quadratic_kappa": _kappa,
}
"""What a threshold of the positive class is worth to metrics of binary problems."""

MULTILABEL: dict[str, Worth] = {
    "f1_micro": _f1,
    "f1_macro": _f1,
    "f1_weighted": _f1,
    "f1_samples": _f1,
    "jaccard_micro": _jaccard,
    "jaccard_macro": _jaccard,
    "jaccard_weighted": _jaccard,
    "jaccard_samples": _jaccard,
}
"""What a threshold is worth to metrics of multilabel problems: of each label, where the metric is a mean over labels
(``…_macro``), else of all labels together."""
