"""Ensemble selection: the weights of several networks in a weighted mean of their predictions.

The method is that of Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models" (ICML
2004). Models are added one at a time, with replacement, whichever improves the mean most on held-out images. The start
is the mean of the best few (sorted initialisation). Several selections each use a random subset of the models
(bagging), and the models with the largest weights become members.

The weights of members are those of their losses rather than those of the selection, which overfit: see
``python -m benchmarks.heads``. Selection minimises the loss of the problem, even if a metric such as accuracy evaluates
the result: on a hundred images accuracy has only a hundred steps. Each member adds its time to every prediction; with
limits of that time, members with the smallest gains for their time are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from saccade.data.splitting import Groups, split_folds
from saccade.errors import DataError
from saccade.inference.postprocessing import Postprocessing, weighted_mean
from saccade.tasks.metrics import Metric, summary_metrics
from saccade.tasks.problem import Problem

# Selections on subsets of the models, the part of the models in each, and the fewest models in it.
NUM_BAGS, BAG_PART, MIN_BAG_SIZE = 12, 0.5, 6

MAX_STEPS = 20  # models that are added to the initial ones, repetitions included
MIN_WEIGHT = 0.05  # a member with a smaller weight is not worth its time in every prediction
LOSS_SCALE, LEAST_LOSS = 0.5, 0.01  # a loss larger by this fraction of the smallest one has 1/e of its weight
NUM_FOLDS, MAX_REPEATS = 5, 5  # folds of cross-fitting, and the most repetitions with other folds
MIN_IMAGES = 30  # to select a training by; an accuracy of .8 has a standard error of .07 on 30 images
NUM_ERRORS = 2.0  # standard errors by which a single network must beat an ensemble: the luckiest is the best
NUM_GROUPS = 20  # groups of images that are left out, one at a time, to estimate the standard error of a metric


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of predictions for held-out images, with the postprocessing of a predictor."""

    score: float  # of the metric; higher is better
    metrics: dict[str, float]  # as `summary_metrics` returns them
    adjusted: np.ndarray  # predictions after calibration, class prior and cross-fitted thresholds
    # The calibrated loss of each image: the log-loss, or the squared error of standardised numbers. The mean of
    # underconfident networks is even less confident, which calibration corrects.
    losses: np.ndarray
    postprocessing: Postprocessing = field(default_factory=Postprocessing)  # as it was fitted

    def is_as_good_as(
        self, other: Evaluation, targets: np.ndarray, problem: Problem, metric: Metric, groups: Groups = None
    ) -> bool:
        """Return whether neither score nor loss is worse than on the same images by `NUM_ERRORS` standard errors."""
        excess = self.losses - other.losses
        if excess.mean() > NUM_ERRORS * excess.std() / math.sqrt(len(excess)):
            return False
        deficit = other.score - self.score
        given = self.adjusted, other.adjusted, targets, problem, metric
        return deficit <= 0 or deficit <= NUM_ERRORS * score_error(*given, groups)


def evaluate(
    predictions: np.ndarray,
    targets: np.ndarray,
    problem: Problem,
    metric: Metric,
    class_prior: np.ndarray | None = None,
    groups: Groups = None,
) -> Evaluation:
    """Evaluate predictions by the arguments of `Postprocessing.fit`; raise a DataError if the metric is undefined."""
    postprocessing, adjusted = Postprocessing.fit(predictions, targets, problem, metric, class_prior, groups)
    calibrated = postprocessing.calibration.apply(predictions, problem)
    return Evaluation(
        metric.score(metric(targets, adjusted, problem)),
        summary_metrics(targets, adjusted, problem),
        adjusted,
        problem.image_losses(calibrated, targets),
        postprocessing,
    )


def score_error(
    first: np.ndarray,
    second: np.ndarray,
    targets: np.ndarray,
    problem: Problem,
    metric: Metric,
    groups: Groups = None,
) -> float:
    """Return the standard error of the difference of two scores on the same images, for any metric.

    It is that of a jackknife which leaves out groups of images (Shao and Wu, "A General Theory for Jackknife Variance
    Estimation", Annals of Statistics 1989).
    """
    parts = split_folds(problem.strata(targets), min(NUM_GROUPS, len(targets)), np.random.default_rng(0), groups)
    found = []
    for part in range(parts.max() + 1):
        kept = parts != part
        try:
            scores = [metric.score(metric(targets[kept], rows[kept], problem)) for rows in (first, second)]
        except DataError:  # the metric needs a class that only this group has
            continue
        found.append(scores[0] - scores[1])
    return math.sqrt((len(found) - 1) * float(np.var(found))) if found else 0.0


def best_single(predictions: Sequence[np.ndarray], targets: np.ndarray, problem: Problem, metric: Metric) -> int:
    """Return the index of the model with the highest score, with the smallest loss among equals."""
    losses = problem.term_losses(_loss_terms(predictions, targets, problem)).mean(1)
    try:
        scores = [metric.score(metric(targets, rows, problem)) for rows in predictions]
    except DataError:  # the metric needs a class that is missing here
        return int(losses.argmin())
    return max(range(len(predictions)), key=lambda number: (scores[number], -losses[number]))


def select_weights(
    predictions: Sequence[np.ndarray],
    targets: np.ndarray,
    problem: Problem,
    max_members: int = 5,
    seed: int = 0,
    sizes: Sequence[int] | None = None,
    loads: np.ndarray | None = None,
) -> np.ndarray:
    """Return the weights of models in a weighted mean with a small loss; they sum to 1.

    At most `max_members` are positive. `predictions`, from `Problem.activate`, are one array of shape (num_images,
    num_outputs) for each model; `sizes` is the number of networks that each averages, which count equally in shrinkage.
    `loads` are the parts of limits that each model uses, shape (num_models, num_limits), at most 1; members together
    use no more than 1 of each.
    """
    return _select(_loss_terms(predictions, targets, problem), problem, max_members, seed, sizes, loads)


def cross_fit(
    predictions: Sequence[np.ndarray],
    targets: np.ndarray,
    problem: Problem,
    metric: Metric,
    max_members: int = 5,
    seed: int = 0,
    seconds_left: Callable[[], float] = lambda: math.inf,
    sizes: Sequence[int] | None = None,
    class_prior: np.ndarray | None = None,
    groups: Groups = None,
    loads: np.ndarray | None = None,
) -> tuple[Evaluation, Evaluation] | None:
    """Evaluate two ways to select, an ensemble and the best single model; None with few images or without time.

    Selection on the other of `NUM_FOLDS` stratified folds predicts each fold, so every image has a prediction that is
    independent of its label (except for the choice of each model's best epoch). On few images this is repeated.
    """
    num_images = len(targets)
    if num_images < MIN_IMAGES or seconds_left() <= 0:
        return None
    terms = _loss_terms(predictions, targets, problem)
    rng = np.random.default_rng(seed)
    ensembles: list[Evaluation] = []
    singles: list[Evaluation] = []
    start_s = seconds_left()
    # The fewer the images, the more a score depends on the folds.
    for repeat in range(max(1, min(MAX_REPEATS, 2000 // num_images))):
        if repeat and (start_s - seconds_left()) / repeat > seconds_left():
            break
        folds = split_folds(problem.strata(targets), NUM_FOLDS, rng, groups)
        ensemble, single = (np.zeros_like(predictions[0]) for _ in range(2))
        for fold in range(folds.max() + 1):
            here, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            weights = _select(terms[:, others], problem, max_members, seed, sizes, loads)
            ensemble[here] = weighted_mean([rows[here] for rows in predictions], weights)
            best = best_single([rows[others] for rows in predictions], targets[others], problem, metric)
            single[here] = predictions[best][here]
        ensembles.append(evaluate(ensemble, targets, problem, metric, class_prior, groups))
        singles.append(evaluate(single, targets, problem, metric, class_prior, groups))
    return _mean(ensembles), _mean(singles)


def _mean(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return the means over repetitions; the predictions are those of the first one."""
    first = evaluations[0]
    return Evaluation(
        float(np.mean([one.score for one in evaluations])),
        {name: float(np.mean([one.metrics[name] for one in evaluations])) for name in first.metrics},
        first.adjusted,
        np.mean([one.losses for one in evaluations], axis=0),
    )


def _loss_terms(predictions: Sequence[np.ndarray], targets: np.ndarray, problem: Problem) -> np.ndarray:
    """Return what the loss depends on, shape (num_models, num_images, k): the target's probability, or the error.

    These terms of a weighted mean of models are the weighted mean of the models' terms, so that selection needs one
    column instead of one for each class.
    """
    return np.stack([problem.loss_terms(rows, targets) for rows in predictions])


def _select(
    terms: np.ndarray,
    problem: Problem,
    max_members: int,
    seed: int,
    sizes: Sequence[int] | None,
    loads: np.ndarray | None,
) -> np.ndarray:
    num_models, losses = len(terms), problem.term_losses(terms).mean(1)
    order = losses.argsort(kind="stable")
    if num_models == 1 or max_members == 1:
        return np.asarray(np.eye(num_models)[order[0]])

    # Bagging: the mean weight of each model over selections from random subsets, which all contain the best model.
    bag_size = max(min(MIN_BAG_SIZE, num_models), math.ceil(BAG_PART * num_models))
    rng = np.random.default_rng(seed)
    sums, num_bags = np.zeros(num_models), np.zeros(num_models)
    for _ in range(NUM_BAGS if bag_size < num_models else 1):
        drawn = {order[0], *rng.permutation(order[1:])[: bag_size - 1]}
        bag = [number for number in order if number in drawn]
        sums[bag] += _hill_climb(terms[bag], problem)
        num_bags[bag] += 1
    mean_weight = sums / np.maximum(num_bags, 1)
    mean_weight[order[0]] = np.inf

    # The models with the largest mean weights are the members. Their weights follow from their losses alone: weights
    # that minimise the loss of the mean are further from those that would be best for new images.
    members = [number for number in order if number in set((-mean_weight).argsort(kind="stable")[:max_members])]
    weights = np.zeros(num_models)
    excess = (losses[members] - losses[order[0]]) / max(losses[order[0]], LEAST_LOSS)
    weights[members] = np.exp(-excess / LOSS_SCALE) * (1 if sizes is None else np.array(sizes)[members])
    weights[weights < MIN_WEIGHT * weights.sum()] = 0.0
    weights /= weights.sum()
    worse = problem.term_losses(np.tensordot(weights, terms, 1)) - problem.term_losses(terms[order[0]])
    if worse.mean() > NUM_ERRORS * worse.std() / math.sqrt(len(worse)):
        weights[:] = 0.0
        weights[members] = _hill_climb(terms[members], problem)
    return weights if loads is None else _within_limits(weights, terms, problem, loads)


def _within_limits(weights: np.ndarray, terms: np.ndarray, problem: Problem, loads: np.ndarray) -> np.ndarray:
    """Leave out members, one at a time, until the others together are within the limits.

    The first is the one without which the loss rises least for its load.
    """
    while np.count_nonzero(weights) > 1 and loads[weights > 0].sum(0).max() > 1:
        loss, found = problem.term_losses(np.tensordot(weights, terms, 1)).mean(), []
        for index in np.flatnonzero(weights):
            others = np.where(np.arange(len(weights)) == index, 0.0, weights)
            others /= others.sum()
            gain = problem.term_losses(np.tensordot(others, terms, 1)).mean() - loss
            found.append((gain / loads[index].max(), index, others))
        weights = min(found)[2]
    return weights


def _hill_climb(terms: np.ndarray, problem: Problem) -> np.ndarray:
    """Return the weights of one greedy selection among models that are sorted by their loss."""
    num_models = len(terms)
    # Sorted initialisation: as many of the best models as have the mean with the smallest loss.
    means = terms.cumsum(0) / np.arange(1, num_models + 1)[:, None, None]
    of_first = problem.term_losses(means).mean(1)
    num_first = int(of_first.argmin()) + 1
    counts = (np.arange(num_models) < num_first).astype(float)
    total, least, best = terms[:num_first].sum(0), of_first[num_first - 1], counts.copy()
    for num in range(num_first, num_first + MAX_STEPS):
        losses = problem.term_losses((total + terms) / (num + 1)).mean(1)
        added = int(losses.argmin())
        counts[added] += 1
        total = total + terms[added]
        if losses[added] < least:
            least, best = losses[added], counts.copy()
    return np.asarray(best / best.sum())
