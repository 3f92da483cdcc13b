"""What a final predictor may be made of: trials, and soups of them, with what they say of the held-out images."""

from __future__ import annotations

import functools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.inference.postprocessing import weighted_mean
from saccade.inference.classifier import Blueprint
from saccade.models.custom import OwnPart
from saccade.selection.ensemble import LEAST_IMAGES, Judgement, best_single, cross_fit, judge, select_weights
from saccade.study.trial import Status, Trial
from saccade.tasks.problem import Problem
from saccade.training.probes.final_probe import FinalProbe
from saccade.training.task import ImageTask
from saccade.training.trial_files import BLUEPRINT, end_files, last_end, outputs_file, probe_file, weights_file

MOST_BYTES = 2**29
"""Of all candidates' predictions together; those with lower scores are left out."""


@dataclass(frozen=True)
class Candidate:
    """A network with its weights, and its predictions for the held-out images.

    Attributes
    ----------
    trial : int
        Its number; of a soup, that of the best trial in it.
    config : dict
        The hyperparameters of that trial.
    blueprint : Blueprint
        The network.
    weights : Path or None
        The file of its weights; None for a probe, which is built again when it is wanted.
    predictions : ndarray, shape (num_images, num_outputs)
        As `Problem.activate` returns them.
    soup : tuple of int
        The trials whose weights were averaged; empty for a trial's own.
    epoch : int or None
        Of the trial, whose weights they are; None of a soup.
    is_end : bool
        Whether that is the end of the schedule, and another epoch had the highest score.
    probe : FinalProbe or None
        Of a network before any training: its last layer, and what that says of training images new to it.
    temperature : float
        What its outputs are to be divided by; the predictions are of these already.
    """

    trial: int
    config: dict[str, Any]
    blueprint: Blueprint
    weights: Path | None
    predictions: np.ndarray
    soup: tuple[int, ...] = ()
    epoch: int | None = None
    is_end: bool = False
    probe: FinalProbe | None = None
    temperature: float = 1.0

    @property
    def own_network(self) -> OwnPart | None:
        """The network of the user's own, if it is one."""
        model = self.config.get("model")
        return model if isinstance(model, OwnPart) else None


@dataclass(frozen=True)
class Combination:
    """What was found to be best: one candidate, or several with weights.

    Attributes
    ----------
    members : list of Candidate
        The one with the highest score first.
    weights : list of float
        How much each counts; they sum to 1.
    judgement : Judgement
        What is to be said of it: cross-fitted for an ensemble; of a single candidate, what it does on all images.
    ensemble, single : Judgement or None
        What cross-fitting found of both, where there were several candidates.
    is_judged_by_choice : bool
        Whether there was no time for that, and the judgement is by the very images that chose the weights.
    """

    members: list[Candidate]
    weights: list[float]
    judgement: Judgement
    ensemble: Judgement | None = None
    single: Judgement | None = None
    is_judged_by_choice: bool = False


def read_blueprint(trial: Trial) -> Blueprint:
    """Return the blueprint in a trial's folder."""
    return Blueprint.from_json(json.loads((Path(trial.folder) / BLUEPRINT).read_text(encoding="utf-8")))


def read_predictions(outputs: Path, task: ImageTask) -> np.ndarray | None:
    """Return the predictions in a file of a network's outputs; None unless it has those of all held-out images."""
    try:
        rows: np.ndarray = np.load(outputs, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # it has been removed, or cut short
        return None
    if rows.shape != (len(task.val.targets), task.problem.num_outputs) or not np.isfinite(rows).all():
        return None
    return activated(rows, task.problem)


def activated(outputs: np.ndarray, problem: Problem) -> np.ndarray:
    """Return predictions of raw outputs, both of shape (num_images, num_outputs)."""
    return problem.activate(torch.from_numpy(outputs)).numpy()


def read_candidates(trials: Sequence[Trial], task: ImageTask) -> list[Candidate]:
    """Return what trials have left: their best weights, and the probe of each network, whatever training made of it.

    Those are left out whose weights, or outputs for all held-out images, are not there. A trial with a higher score
    comes before others.
    """
    candidates: list[Candidate] = []
    probed: set[str] = set()
    num_bytes = 0
    for trial in ranked(trials):
        for candidate in (_probe_of(trial, task), *_trained(trial, task)):
            if candidate is None:
                continue
            if candidate.probe is not None:
                key = _network_key(trial)
                if key in probed:
                    continue
                probed.add(key)
            num_bytes += candidate.predictions.nbytes
            if num_bytes > MOST_BYTES and candidates:
                return candidates
            candidates.append(candidate)
    return candidates


def _trained(trial: Trial, task: ImageTask) -> list[Candidate | None]:
    """Return the candidates of a trial's best epoch, unless that is the probe, and of the end of its schedule."""
    assert trial.best_report is not None
    folder, epoch = Path(trial.folder), trial.best_report.epoch
    found = []
    if epoch > 0 or not probe_file(folder).is_file():
        found.append(_saved(trial, epoch, weights_file(folder, epoch), outputs_file(folder, epoch), task))
    if (last := last_end(folder)) is not None and (end := _saved(trial, last, *end_files(folder, last), task)):
        found.append(replace(end, is_end=True))
    return found


def _saved(trial: Trial, epoch: int, weights: Path, outputs: Path, task: ImageTask) -> Candidate | None:
    """Return the candidate of an epoch; None where its files are not there."""
    predictions = read_predictions(outputs, task) if weights.is_file() else None
    if predictions is None:
        return None
    return Candidate(trial.number, trial.config, read_blueprint(trial), weights, predictions, epoch=epoch)


def _probe_of(trial: Trial, task: ImageTask) -> Candidate | None:
    """Return the candidate of the probe with which a trial began."""
    assert trial.best_report is not None
    folder = Path(trial.folder)
    probe = FinalProbe.load(probe_file(folder))
    if probe is None or len(probe.outputs) != len(task.val.targets):
        return None
    weights = weights_file(folder, 0)
    candidate = Candidate(
        trial.number,
        trial.config,
        read_blueprint(trial),
        weights if weights.is_file() else None,
        activated(probe.outputs, task.problem),
        epoch=0,
        probe=probe,
    )
    # A network of the user's own may not be the same when it is built again.
    return None if candidate.weights is None and candidate.own_network is not None else candidate


def _network_key(trial: Trial) -> str:
    """Return what is the same for trials whose probes are the same."""
    which = [trial.config.get(name) for name in ("model", "pretrained", "weights", "class_weight")]
    return json.dumps([read_blueprint(trial).to_json(), *map(repr, which)])


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that have a score and did not fail, the highest score first, the earliest among equals."""
    usable = [trial for trial in trials if trial.best_report is not None and trial.status is not Status.FAILED]
    return sorted(usable, key=lambda trial: (-_score(trial), trial.number))


def _score(trial: Trial) -> float:
    return -math.inf if trial.best_report is None else trial.best_report.score


def combine(
    candidates: Sequence[Candidate],
    task: ImageTask,
    max_members: int = 5,
    seed: int = 0,
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> Combination:
    """Return the best single candidate, or an ensemble where cross-fitting says that it is better.

    Parameters
    ----------
    candidates : sequence of Candidate
        At least one.
    task : ImageTask
        The held-out images, and what judges.
    max_members : int
        The most members of an ensemble; with 1 there is none.
    seed : int
        See `saccade.selection.ensemble.cross_fit`.
    seconds_left : callable
        Without time an ensemble is not cross-fitted, and there is one without a comparison.

    Raises
    ------
    DataError
        When the metric is not defined on the held-out images.
    """
    targets, problem, metric = task.val.targets, task.problem, task.metric
    singles = [one for one in candidates if not one.is_end]
    best = singles[best_single([one.predictions for one in singles], targets, problem, metric)]
    alone = Combination([best], [1.0], judge(best.predictions, targets, problem, metric))
    candidates = _one_of_each_training(_with_one_own_network(candidates, best), task)
    if max_members == 1 or len(candidates) == 1:
        return alone
    options = _options(candidates, task, max_members, seed)
    predictions = [one.predictions for one in options]
    if len(options) == 1:
        return options[0].combination(judge(predictions[0], targets, problem, metric), task)  # the mean of probes
    if len(targets) < LEAST_IMAGES:  # by which nothing can be told
        return (
            alone
            if len(options) == len(candidates)
            else options[0].combination(judge(predictions[0], targets, problem, metric), task)
        )
    sizes = [len(one.members) for one in options]
    weights = select_weights(predictions, targets, problem, max_members, seed, sizes)
    judged = cross_fit(predictions, targets, problem, metric, max_members, seed, seconds_left, sizes)
    if judged is None:
        mean = _mean_of(options, weights, max_members)
        by_chosen = judge(mean.predictions, targets, problem, metric)
        return replace(mean.combination(by_chosen, task), is_judged_by_choice=True)
    ensemble, single = judged
    if np.count_nonzero(weights) > 1 and ensemble.is_as_good_as(single, len(targets), problem):
        chosen = _mean_of(options, weights, max_members).combination(ensemble, task)
    else:
        of_first = judge(predictions[0], targets, problem, metric)
        is_mean = len(options[0].members) > 1
        use_mean = is_mean and of_first.is_as_good_as(alone.judgement, len(targets), problem)
        chosen = options[0].combination(of_first, task) if use_mean else alone
    return replace(chosen, ensemble=ensemble, single=single)


def _one_of_each_training(candidates: Sequence[Candidate], task: ImageTask) -> list[Candidate]:
    """Leave out the end of a schedule, or the epoch that had the highest score where that was by chance alone."""
    num_images = len(task.val.targets)
    left_out = []
    for end in (one for one in candidates if one.is_end):
        for best in candidates:
            if best.trial == end.trial and best.probe is None and not best.soup and not best.is_end:
                judged_end, judged_best = (
                    judge(one.predictions, task.val.targets, task.problem, task.metric) for one in (end, best)
                )
                is_end_as_good = judged_end.is_as_good_as(judged_best, num_images, task.problem)
                left_out.append(best if is_end_as_good else end)
    return [one for one in candidates if not any(one is other for other in left_out)]


@dataclass(frozen=True)
class _Option:
    """What an ensemble may be made of: a candidate, or the mean of several probes."""

    members: dict[int, float]  # places among the candidates, with their weights
    candidates: Sequence[Candidate]
    predictions: np.ndarray

    @classmethod
    def of(cls, members: dict[int, float], candidates: Sequence[Candidate]) -> _Option:
        """Return the option of these members, the heaviest weights of which count."""
        mean = weighted_mean([candidates[place].predictions for place in members], list(members.values()))
        return cls(members, candidates, mean)

    def combination(self, judgement: Judgement, task: ImageTask) -> Combination:
        """Return it as what a predictor is made of, the member with the highest score first."""
        metric, targets = task.metric, task.val.targets
        scores = {
            place: metric.score(metric(targets, self.candidates[place].predictions, task.problem))
            for place in self.members
        }
        places = sorted(self.members, key=lambda place: (-scores[place], place))
        return Combination(
            [self.candidates[place] for place in places], [self.members[place] for place in places], judgement
        )


def _options(candidates: Sequence[Candidate], task: ImageTask, max_members: int, seed: int) -> list[_Option]:
    """Return the candidates, the probes among them as one: their weights come from training images unseen by each.

    These are many more than the held-out images, so that chance has less to say; and the held-out images are then
    there to judge.
    """
    probes = {place: one.probe for place, one in enumerate(candidates) if one.probe is not None}
    common = _common_rows([probe.rows for probe in probes.values()])
    if len(probes) < 2 or len(common) < len(task.val.targets):
        return [_Option.of({place: 1.0}, candidates) for place in range(len(candidates))]
    unseen = []
    for probe in probes.values():
        place_of = np.full(len(task.train.targets), -1)
        place_of[probe.rows] = np.arange(len(probe.rows))
        unseen.append(activated(probe.unseen[place_of[common]], task.problem))
    weights = select_weights(unseen, task.train.targets[common], task.problem, max_members, seed)
    mean = {place: float(weight) for place, weight in zip(probes, weights, strict=True) if weight}
    others = [_Option.of({place: 1.0}, candidates) for place in range(len(candidates)) if place not in probes]
    return [_Option.of(mean, candidates), *others]


def _common_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return the training images that all probes have seen, by their places."""
    return functools.reduce(np.intersect1d, rows) if rows else np.zeros(0, np.int64)


def _mean_of(options: Sequence[_Option], weights: np.ndarray, max_members: int) -> _Option:
    """Return options together, but for the members that count least where there would be too many."""
    total: dict[int, float] = defaultdict(float)
    for option, weight in zip(options, weights.tolist(), strict=True):
        for place, part in option.members.items():
            total[place] += weight * part
    kept = sorted((place for place in total if total[place]), key=lambda place: (-total[place], place))[:max_members]
    whole = sum(total[place] for place in kept)
    return _Option.of({place: total[place] / whole for place in kept}, options[0].candidates)


def mean_predictions(combination: Combination) -> np.ndarray:
    """Return what a combination predicts for the held-out images, by which its weights were chosen."""
    return weighted_mean([one.predictions for one in combination.members], combination.weights)


def _with_one_own_network(candidates: Sequence[Candidate], best: Candidate) -> list[Candidate]:
    """Leave out networks of the user's own but for one: a predictor is loaded with one of them at most."""
    own = next((one.own_network for one in [best, *candidates] if one.own_network is not None), None)
    return [one for one in candidates if one.own_network in (None, own)]
