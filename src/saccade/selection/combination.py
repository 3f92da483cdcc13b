"""The networks that a predictor is made of: one candidate, or an ensemble where cross-fitting finds it better."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from saccade.inference.postprocessing import weighted_mean
from saccade.selection.candidates import Candidate, activate
from saccade.selection.ensemble import MIN_IMAGES, Evaluation, best_single, cross_fit, evaluate, select_weights
from saccade.study.trial import Trial
from saccade.training.task import ImageTask, Split


@dataclass(frozen=True, eq=False)
class Combination:
    """The members of a predictor, the one with the highest score first."""

    members: list[Candidate]
    weights: list[float]  # in the mean of predictions; the sum is 1
    predictions: np.ndarray  # for held-out images, to which calibration and thresholds are fitted
    targets: np.ndarray  # of these images
    score_how: str = ""  # how its scores were measured; empty for a single network
    evaluation: Evaluation | None = None  # its scores, unless they are those of `predictions`
    cross_fitted_scores: dict[str, float] | None = None  # of ``ensemble`` and ``single``, if they were compared
    num_folds: int = 0  # how many folds the networks come from; 0 if they come from trials
    is_refit: bool = False  # trained on the validation images as well, after the search
    split: tuple[Split, Split] | None = None  # of the first of the folds' networks: fitted to, and held out
    groups: np.ndarray | None = None  # of the held-out images, as in `Split`
    indices: np.ndarray | None = None  # of these images in the store; None are the validation images
    teacher: Combination | None = None  # of a student: what it was distilled from
    student: Trial | None = None  # its training, which is not one of the search

    @classmethod
    def single(cls, candidate: Candidate, task: ImageTask) -> Combination:
        """Return the combination of one candidate."""
        return cls([candidate], [1.0], candidate.predictions, task.val.targets, groups=task.val.groups)


@dataclass(frozen=True, eq=False)
class _Model:
    """A model in ensemble selection: a candidate, or the mean of several probes."""

    weights: dict[int, float]  # by index of the candidate
    predictions: np.ndarray

    @classmethod
    def of(cls, weights: dict[int, float], candidates: Sequence[Candidate]) -> _Model:
        rows = [candidates[index].predictions for index in weights]
        return cls(weights, weighted_mean(rows, list(weights.values())))


def combine(
    candidates: Sequence[Candidate],
    task: ImageTask,
    max_members: int = 5,
    seed: int = 0,
    seconds_left: Callable[[], float] = lambda: math.inf,
    class_prior: np.ndarray | None = None,
    loads: Mapping[int, Sequence[float]] | None = None,
) -> Combination:
    """Return the best candidate, or an ensemble unless cross-fitting finds it worse.

    At least one of the candidates is not the end of a schedule. Without time the ensemble is not cross-fitted, and not
    compared with the best candidate. `loads` are the parts of limits that the network of each trial uses, by its
    number; members together use no more than 1 of each. Raises a DataError if the metric is not defined on the
    validation images.
    """
    given = targets, problem, metric = task.val.targets, task.problem, task.metric
    groups = task.val.groups

    def combined(
        model: _Model, how: str, evaluation: Evaluation | None = None, scores: dict[str, float] | None = None
    ) -> Combination:
        of_members = {
            index: metric.score(metric(targets, candidates[index].predictions, problem)) for index in model.weights
        }
        order = sorted(model.weights, key=lambda index: (-of_members[index], index))
        members, weights = [candidates[index] for index in order], [model.weights[index] for index in order]
        if len(members) == 1:
            return replace(Combination.single(members[0], task), cross_fitted_scores=scores)
        predictions = weighted_mean([one.predictions for one in members], weights)
        evaluation = evaluation or evaluate(model.predictions, *given, class_prior, groups)
        return Combination(members, weights, predictions, targets, how, evaluation, scores, groups=groups)

    singles = [one for one in candidates if not one.is_schedule_end]
    best = singles[best_single([one.predictions for one in singles], *given)]
    alone = Combination.single(best, task)
    # A predictor is loaded with at most one network of the user's own.
    own = next((one.own_network for one in [best, *candidates] if one.own_network is not None), None)
    candidates = [one for one in candidates if one.own_network in (None, own)]
    candidates = _one_of_each_training(candidates, task, class_prior)
    if max_members == 1 or len(candidates) == 1:
        return alone
    of_candidates = np.array([loads[one.trial] if loads else [0.0] for one in candidates])
    models = _models(candidates, task, max_members, seed, of_candidates)
    has_probes_mean = len(models) < len(candidates)
    independent = "on the validation images, which were not used to select the ensemble"
    if len(models) == 1 or (has_probes_mean and len(targets) < MIN_IMAGES):  # the mean of probes
        return combined(models[0], independent)
    if len(targets) < MIN_IMAGES:
        return alone

    predictions, sizes = [one.predictions for one in models], [len(one.weights) for one in models]
    of_models = np.array([of_candidates[list(one.weights)].sum(0) for one in models])
    weights = select_weights(predictions, targets, problem, max_members, seed, sizes, of_models)
    mean = _mean_of(models, weights, candidates, max_members)
    evaluations = cross_fit(predictions, *given, max_members, seed, seconds_left, sizes, class_prior, groups, of_models)
    if evaluations is None:
        return combined(mean, "on the validation images that selected the ensemble; no time was left to cross-fit it")
    ensemble, single = evaluations
    scores = {"ensemble": ensemble.score, "single": single.score}
    if np.count_nonzero(weights) > 1 and ensemble.is_as_good_as(single, *given, groups):
        how = "cross-fitted: ensembles selected on four fifths of the validation images, evaluated on the last fifth"
        return combined(mean, how, ensemble, scores)
    if len(models[0].weights) > 1:
        of_best, of_probes = (
            evaluate(rows, *given, class_prior, groups) for rows in (best.predictions, predictions[0])
        )
        if of_probes.is_as_good_as(of_best, *given, groups):
            return combined(models[0], independent, of_probes, scores)
    return replace(alone, cross_fitted_scores=scores)


def _one_of_each_training(
    candidates: Sequence[Candidate], task: ImageTask, class_prior: np.ndarray | None
) -> list[Candidate]:
    """Keep of each trial the end of its schedule, or the best epoch where that is significantly better."""
    left_out: list[Candidate] = []
    for end in (one for one in candidates if one.is_schedule_end):
        for best in candidates:
            if best.trial == end.trial and best.probe is None and not best.is_schedule_end:
                given = task.val.targets, task.problem, task.metric
                groups = task.val.groups
                of_end, of_best = (evaluate(one.predictions, *given, class_prior, groups) for one in (end, best))
                left_out.append(best if of_end.is_as_good_as(of_best, *given, groups) else end)
    return [one for one in candidates if not any(one is other for other in left_out)]


def _models(
    candidates: Sequence[Candidate], task: ImageTask, max_members: int, seed: int, loads: np.ndarray
) -> list[_Model]:
    """Return one model for each candidate, but one for all probes, the first.

    The weights of probes are selected on their out-of-fold predictions for training images. These are many more than
    the validation images, which are then independent of the selection.
    """
    probes = {index: one.probe for index, one in enumerate(candidates) if one.probe is not None}
    rows = [probe.rows for probe in probes.values()]
    common = functools.reduce(np.intersect1d, rows) if rows else np.zeros(0, np.int64)
    if len(probes) < 2 or len(common) < len(task.val.targets):
        return [_Model.of({index: 1.0}, candidates) for index in range(len(candidates))]
    unseen = []
    for probe in probes.values():
        place_of = np.full(len(task.train.targets), -1)
        place_of[probe.rows] = np.arange(len(probe.rows))
        unseen.append(activate(probe.unseen[place_of[common]], task.problem))
    of_probes = loads[list(probes)]
    weights = select_weights(unseen, task.train.targets[common], task.problem, max_members, seed, None, of_probes)
    mean = {index: float(weight) for index, weight in zip(probes, weights, strict=True) if weight}
    others = [_Model.of({index: 1.0}, candidates) for index in range(len(candidates)) if index not in probes]
    return [_Model.of(mean, candidates), *others]


def _mean_of(
    models: Sequence[_Model], weights: np.ndarray, candidates: Sequence[Candidate], max_members: int
) -> _Model:
    """Return the weighted mean of models, with at most `max_members` candidates."""
    total: dict[int, float] = defaultdict(float)
    for model, weight in zip(models, weights.tolist(), strict=True):
        for index, part in model.weights.items():
            total[index] += weight * part
    kept = sorted((index for index in total if total[index]), key=lambda index: (-total[index], index))[:max_members]
    whole = sum(total[index] for index in kept)
    return _Model.of({index: total[index] / whole for index in kept}, candidates)
