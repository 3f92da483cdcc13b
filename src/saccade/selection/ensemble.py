"""Ensemble selection: how much each of several networks is to count in a weighted mean of their predictions.

The method is that of Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models" (ICML
2004): models are added one at a time, with replacement, whichever makes the mean best on held-out images; the start is
the mean of the best few (sorted initialisation); and there are several such selections, each among a random part of
the models (bagging). As every member costs time in every prediction, those that count most in these are the finalists
of a last selection. By few images weights cannot be told from chance, so that they are drawn towards equal ones, the
fewer images there are the more; but a model whose loss is larger than chance explains gets less, and the mean of
several networks as much as they would. What is made best is the loss of the problem, also where a metric such as the
accuracy judges: on a hundred images that has a hundred steps, and chance would decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from saccade.errors import DataError
from saccade.inference.postprocessing import weighted_mean
from saccade.inference.calibration import fit_calibration
from saccade.tasks.metrics import Metric, held_out_figures
from saccade.tasks.problem import Problem, rarest_labels

NUM_BAGS, BAG_PART, LEAST_BAG = 12, 0.5, 6
"""Selections among parts of the models, the part that each sees, and the fewest models that it sees."""

MOST_STEPS = 20
"""Models that are added to the first ones, those that are added again included."""

LEAST_WEIGHT = 0.05
"""A member that counts less is not worth the time that it takes in every prediction."""

AS_EQUAL = 200
"""Images by whose say selected weights count as much as those by `_by_evidence`: of few, selection learns chance."""

NUM_FOLDS, MOST_REPEATS = 5, 5
"""Parts of the held-out images in cross-fitting, and how often they are drawn anew where images are few."""

LEAST_IMAGES = 30
"""On fewer held-out images nothing can be told: an accuracy of .8 has a standard error of .07 there, and of several
trainings the luckiest would be taken."""

CHANCE = 2.0
"""Standard errors by which a single network must be better than an ensemble: of several, the luckiest is taken."""

DIFFERING_LOSS = 1.0
"""How much the losses of an image under two ways to predict differ, in units of the mean loss, about."""

DIFFERING_PART = 0.06
"""The part of the images of which one way to predict is right and another wrong, about: chance is in these alone."""


def select_weights(
    predictions: Sequence[np.ndarray],
    targets: np.ndarray,
    problem: Problem,
    max_members: int = 5,
    seed: int = 0,
    sizes: Sequence[int] | None = None,
) -> np.ndarray:
    """Return how much each model is to count, so that the loss of the weighted mean is small.

    Parameters
    ----------
    predictions : sequence of ndarray, each of shape (num_images, num_outputs)
        Probabilities, or numbers for regression, as `Problem.activate` returns them, of each model.
    targets : ndarray, shape (num_images,) or (num_images, num_classes)
        As `Problem.encode` returns them.
    problem : Problem
        What both mean.
    max_members : int
        The most models with a weight.
    seed : int
        Of the parts of the models in bagging.
    sizes : sequence of int or None
        Of how many networks each model is the mean: weights that are drawn to equal ones are those of networks. None
        is of one each.

    Returns
    -------
    ndarray of float64, shape (num_models,)
        From 0 on, summing to 1.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog"])
    >>> sure_of_cats = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    >>> sure_of_dogs = sure_of_cats[::-1, ::-1]
    >>> select_weights([sure_of_cats, sure_of_dogs], np.array([0, 0, 1, 1]), problem).tolist()
    [0.5, 0.5]
    """
    return _select(_parts(predictions, targets, problem), problem, max_members, seed, sizes)


def mean_loss(predictions: np.ndarray, targets: np.ndarray, problem: Problem) -> float:
    """Return the loss of the problem: the log-loss, or the mean squared error of standardised numbers."""
    return float(_loss(_parts([predictions], targets, problem), problem)[0])


@dataclass(frozen=True)
class Judgement:
    """What cross-fitting finds of a way to predict; means over draws of the parts.

    Attributes
    ----------
    score : float
        Of the metric, higher is better.
    loss : float
        As `mean_loss`, of calibrated predictions: the mean of networks that are too cautious is more cautious still,
        which a temperature mends.
    figures : dict
        As `held_out_figures`.
    """

    score: float
    loss: float
    figures: dict[str, float] = field(default_factory=dict)

    def is_better_than(self, other: Judgement) -> bool:
        """Tell whether the score is higher, or the same and the loss smaller."""
        return (self.score, -self.loss) > (other.score, -other.loss)

    def is_as_good_as(self, other: Judgement, num_images: int, problem: Problem) -> bool:
        """Tell whether neither the score nor the loss is worse by more than chance on so many images explains."""
        by_chance = CHANCE * equal_scores_differ_by(num_images, problem)
        if other.score - self.score > by_chance:
            return False
        more = CHANCE * DIFFERING_LOSS / math.sqrt(num_images) if problem.is_classification else math.inf
        return self.loss <= other.loss * (1 + more)


def judge(predictions: np.ndarray, targets: np.ndarray, problem: Problem, metric: Metric) -> Judgement:
    """Return the judgement of predictions that owe nothing to these images, or are to be compared with such.

    Raises
    ------
    DataError
        When the metric is not defined on these images.
    """
    calibrated = predictions
    if problem.is_classification:
        calibrated = fit_calibration(predictions, targets, problem).apply(predictions, problem)
    return Judgement(
        metric.score(metric(targets, predictions, problem)),
        mean_loss(calibrated, targets, problem),
        held_out_figures(targets, predictions, problem),
    )


def equal_scores_differ_by(num_images: int, problem: Problem) -> float:
    """Return up to which difference scores count as equal: a standard error, where images are right or wrong.

    Examples
    --------
    >>> [round(equal_scores_differ_by(num, Problem.of(["cat", "dog"])), 3) for num in (100, 10_000)]
    [0.024, 0.002]
    """
    return math.sqrt(DIFFERING_PART / num_images) if problem.is_classification else 0.0


def cross_fit(
    predictions: Sequence[np.ndarray],
    targets: np.ndarray,
    problem: Problem,
    metric: Metric,
    max_members: int = 5,
    seed: int = 0,
    seconds_left: Callable[[], float] = lambda: math.inf,
    sizes: Sequence[int] | None = None,
) -> tuple[Judgement, Judgement] | None:
    """Judge two ways of choosing: an ensemble, and the best single model. Neither is judged on what it was chosen by.

    The images are divided into `NUM_FOLDS` parts, each with its share of the classes. On all but one the choice is
    made, and on that one it predicts; so every image has a prediction that owes nothing to its label, but for what
    training owes to it (the epoch at which each model was best). Where images are few, parts are drawn several times.

    Parameters
    ----------
    predictions, targets, problem, max_members, seed, sizes
        As in `select_weights`.
    metric : Metric
        What chooses the single model, and judges both.
    seconds_left : callable
        When less is left than another draw takes, there is none.

    Returns
    -------
    tuple of Judgement, or None
        Of the ensemble, and of the single model; None when there are fewer than `LEAST_IMAGES` images, or no time.
    """
    num_images = len(targets)
    if num_images < LEAST_IMAGES or seconds_left() <= 0:
        return None
    parts = _parts(predictions, targets, problem)
    rng = np.random.default_rng(seed)
    ensembles: list[Judgement] = []
    singles: list[Judgement] = []
    start_s = seconds_left()
    for draw in range(num_repeats(num_images)):
        if draw and (start_s - seconds_left()) / draw > seconds_left():
            break
        folds = draw_folds(targets, problem, rng)
        ensemble, single = (np.zeros_like(predictions[0]) for _ in range(2))
        for fold in range(NUM_FOLDS):
            here, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            weights = _select(parts[:, others], problem, max_members, seed, sizes)
            ensemble[here] = weighted_mean([rows[here] for rows in predictions], weights)
            best = best_single([rows[others] for rows in predictions], targets[others], problem, metric)
            single[here] = predictions[best][here]
        ensembles.append(judge(ensemble, targets, problem, metric))
        singles.append(judge(single, targets, problem, metric))
    return _mean(ensembles), _mean(singles)


def best_single(predictions: Sequence[np.ndarray], targets: np.ndarray, problem: Problem, metric: Metric) -> int:
    """Return the number of the model with the highest score, with the smallest loss among equals."""
    losses = _loss(_parts(predictions, targets, problem), problem)
    try:
        scores = [metric.score(metric(targets, rows, problem)) for rows in predictions]
    except DataError:  # a class is missing here, without which the metric is not defined
        return int(losses.argmin())
    return max(range(len(predictions)), key=lambda number: (scores[number], -losses[number]))


def num_repeats(num_images: int) -> int:
    """Return how often parts are drawn: the fewer the images, the more a figure depends on the draw.

    Examples
    --------
    >>> num_repeats(100), num_repeats(1000), num_repeats(100_000)
    (5, 2, 1)
    """
    return max(1, min(MOST_REPEATS, 2000 // num_images))


def draw_folds(targets: np.ndarray, problem: Problem, rng: np.random.Generator) -> np.ndarray:
    """Return a number below `NUM_FOLDS` for each image; each part has its share of each class, however rare it is."""
    strata = np.zeros(len(targets))
    if problem.is_classification:
        strata = rarest_labels(targets) if problem.type == "multilabel" else targets
    order = np.lexsort([rng.random(len(targets)), strata])
    folds = np.empty(len(targets), np.int64)
    folds[order] = np.arange(len(targets)) % NUM_FOLDS
    return folds


def _mean(judgements: Sequence[Judgement]) -> Judgement:
    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    return Judgement(
        mean([judgement.score for judgement in judgements]),
        mean([judgement.loss for judgement in judgements]),
        {name: mean([judgement.figures[name] for judgement in judgements]) for name in judgements[0].figures},
    )


def _parts(predictions: Sequence[np.ndarray], targets: np.ndarray, problem: Problem) -> np.ndarray:
    """Return of what a model predicts the part that its loss depends on, (num_models, num_images, k).

    That is the probability that it gave to what is right, or the error of its number. These of a weighted mean of
    models are the weighted mean of theirs, so selection needs nothing else of a thousand classes.
    """
    if problem.type == "regression":
        return np.stack([(rows - problem.mean) / problem.std - targets[:, None] for rows in predictions]).astype(float)
    if problem.type == "multilabel":
        return np.stack([np.where(targets > 0, rows, 1 - rows) for rows in predictions]).astype(float)
    return np.stack([rows[np.arange(len(targets)), targets][:, None] for rows in predictions]).astype(float)


def _loss(parts: np.ndarray, problem: Problem) -> np.ndarray:
    """Return the losses, (num_models,), of parts (num_models, num_images, k)."""
    mean: np.ndarray = _losses_of_images(parts, problem).mean(1)
    return mean


def _losses_of_images(parts: np.ndarray, problem: Problem) -> np.ndarray:
    """Return the losses, (num_models, num_images), of parts (num_models, num_images, k)."""
    losses = parts**2 if problem.type == "regression" else -np.log(np.clip(parts, 1e-15, None))
    mean: np.ndarray = losses.mean(2)
    return mean


def _select(
    parts: np.ndarray, problem: Problem, max_members: int, seed: int, sizes: Sequence[int] | None
) -> np.ndarray:
    num_models = len(parts)
    losses = _loss(parts, problem)
    order = losses.argsort(kind="stable")
    if num_models == 1 or max_members == 1:
        best_only: np.ndarray = np.eye(num_models)[order[0]]
        return best_only
    bag_size = max(min(LEAST_BAG, num_models), math.ceil(BAG_PART * num_models))
    rng = np.random.default_rng(seed)
    sums, num_bags = np.zeros(num_models), np.zeros(num_models)
    for _ in range(NUM_BAGS if bag_size < num_models else 1):
        drawn = {order[0], *rng.permutation(order[1:])[: bag_size - 1]}  # the best is in every bag
        bag = [number for number in order if number in drawn]
        sums[bag] += _hill_climb(parts[bag], problem)
        num_bags[bag] += 1
    worth = sums / np.maximum(num_bags, 1)
    worth[order[0]] = np.inf
    finalists = [number for number in order if number in set((-worth).argsort(kind="stable")[:max_members])]
    weights = np.zeros(num_models)
    weights[finalists] = _hill_climb(parts[finalists], problem)
    kept = [number for number in finalists if number == order[0] or weights[number] >= LEAST_WEIGHT]
    weights[:] = 0
    weights[kept] = _hill_climb(parts[kept], problem)
    return _with_fewer(_drawn(weights, _by_evidence(parts, problem, sizes), parts.shape[1]), losses, max_members)


def _by_evidence(parts: np.ndarray, problem: Problem, sizes: Sequence[int] | None) -> np.ndarray:
    """Return weights that are equal as far as losses are: less by as many standard errors as a loss is larger."""
    each = _losses_of_images(parts, problem)
    more = each - each[each.mean(1).argmin()]
    error = more.std(1) / math.sqrt(parts.shape[1])
    num_errors = more.mean(1) / np.maximum(error, 1e-9)
    worth: np.ndarray = np.exp(-(num_errors**2)) * (1 if sizes is None else np.array(sizes))
    worth /= worth.sum()
    return worth


def _drawn(weights: np.ndarray, towards: np.ndarray, num_images: int) -> np.ndarray:
    """Return weights between both, the fewer images there are the nearer to the second."""
    part = AS_EQUAL / (AS_EQUAL + num_images)
    mixed: np.ndarray = (1 - part) * weights + part * towards
    return mixed


def _with_fewer(weights: np.ndarray, losses: np.ndarray, max_members: int) -> np.ndarray:
    """Return weights of so many models at most, none of which counts too little."""
    left: np.ndarray = weights.copy()
    left[np.lexsort([losses, -weights])[max_members:]] = 0.0
    left[left < LEAST_WEIGHT * left.sum()] = 0.0
    left /= left.sum()
    return left


def _hill_climb(parts: np.ndarray, problem: Problem) -> np.ndarray:
    """Return the weights of one selection among models that are sorted, the best one first."""
    num_models = len(parts)
    means = parts.cumsum(0) / np.arange(1, num_models + 1)[:, None, None]
    of_first = _loss(means, problem)
    num_first = int(of_first.argmin()) + 1
    counts = (np.arange(num_models) < num_first).astype(float)
    total, least, best = parts[:num_first].sum(0), of_first[num_first - 1], counts.copy()
    for num in range(num_first, num_first + MOST_STEPS):
        losses = _loss((total + parts) / (num + 1), problem)
        added = int(losses.argmin())
        counts[added] += 1
        total = total + parts[added]
        if losses[added] < least:
            least, best = losses[added], counts.copy()
    weights: np.ndarray = best / best.sum()
    return weights
