"""The end of a fit: the time to keep for it, which files are kept for it, and the predictor that comes of it."""

from __future__ import annotations

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.events import EpochDone, Event, JobDone, JobFailed, TrialStarted
from saccade.folding import FoldCosts, Folded
from saccade.objectives import cost_names, pareto_front, same_costs, trial_costs
from saccade.report.summary import best_figures, combined_figures, fit_summary, trial_rows
from saccade.run_folder import FOLDS, REFIT, SOUPS, START, STORE, TRIALS, FitRequest
from saccade.saved import CHOICES_FOLDER, MEMBERS_FOLDER, PREDICTOR_FOLDER, WEIGHTS, Choice, Member, SavedPredictor
from saccade.scheduler import Study
from saccade.settings import FitSettings
from saccade.training.candidates import (
    Candidate,
    Combination,
    combine,
    final_weights,
    mean_predictions,
    read_blueprint,
    read_candidates,
    read_predictions,
)
from saccade.training.own_parts import OwnPart
from saccade.training.probe import FinalProbe
from saccade.training.task import ImageTask
from saccade.training.trial_files import drop_files, outputs_file, probe_file, weights_file
from saccade.training.trust import Trust
from saccade.trial import Status, Trial

LEAST_RESERVE_S = 0.2
"""Seconds for what is too small to be measured: to end workers, to remove files, to write a summary."""

BEST = "best.safetensors"
"""What the best weights of a trial are called once the search is over."""

BEST_OUTPUTS = "best.outputs.npy"
"""And what the network said of the validation images; see `saccade.training.trial_files.outputs_file`."""

MOST_PER_NETWORK = 3
"""Trials of one network that are kept for a soup."""

SELECTION_S = 0.5
"""Seconds in which an ensemble can be chosen; with more images there are fewer repeats, and less if time is short."""

COMBINING_PART = 0.05
"""The most of a time limit that is kept for soups and the choice of an ensemble."""


class FinishingReserve:
    """How many seconds before the deadline training must end, by what the run has been seen to take.

    Listen with it to the events of the run. To copy the best weights takes no longer than it took to write a
    checkpoint, of which they are a part. A refit takes as long as the best trial up to its best epoch, and longer by as
    much as there are more images. As any trial may turn out to be the best, none is given more time than leaves it
    that of a refit.

    Parameters
    ----------
    deadline : Deadline
        Of the run.
    refit_ratio : float
        How many times as many images a refit has as a trial; 0 without a refit.
    objectives : sequence of str
        With costs among them, the weights of several trials are copied: of one for each network at most.
    max_members : int
        The most members of an ensemble, whose weights are copied.
    has_soups : bool
        Whether means of weights are tried, each of which must be judged.
    folds : FoldCosts or None
        What folds take, which are trained in the place of a refit.
    """

    def __init__(
        self,
        deadline: Deadline,
        refit_ratio: float = 0.0,
        objectives: Sequence[str] = (),
        max_members: int = 1,
        has_soups: bool = False,
        folds: FoldCosts | None = None,
    ) -> None:
        self._deadline, self._folds = deadline, folds
        self._refit_ratio = refit_ratio if folds is None else folds.ratio
        self._has_costs = bool(cost_names(objectives))
        self._max_members, self._has_soups = max_members, has_soups
        self._networks: dict[Hashable, set[int]] = defaultdict(set)
        self._write_s = self._setup_s = self._row_s = self._val_s = 0.0
        self._sent_s: dict[int, float] = {}
        self._seconds: dict[int, float] = {}  # of each trial so far
        self._best_score, self._best_s = -float("inf"), 0.0
        self._num_trials = 0

    @property
    def finishing_s(self) -> float:
        """Seconds for what comes after search and refit."""
        most = len(self._networks) if self._has_costs else min(self._max_members, self._num_trials) - 1
        num_copies = max(1 + max(0, most), 0 if self._folds is None else self._folds.num_members)
        return LEAST_RESERVE_S + num_copies * self._write_s + self._num_trials * self._row_s

    @property
    def combining_s(self) -> float:
        """Seconds for soups and the choice of an ensemble, which come before that."""
        sizes = sorted((min(len(trials), MOST_PER_NETWORK) for trials in self._networks.values()), reverse=True)
        groups = [size for size in sizes[: num_networks_kept(self._max_members)] if size > 1] if self._has_soups else []
        # Where batch normalisation has statistics of its own, these take about as long as judging.
        soups_s = sum(self._setup_s + (size - 1) * 2 * self._val_s for size in groups)
        selection_s = SELECTION_S if self._max_members > 1 and self._num_trials > 1 else 0.0
        return min(soups_s + selection_s, COMBINING_PART * self._deadline.limit_s)

    def seconds(self) -> float:
        """Return the seconds to keep."""
        ratio = self._refit_ratio
        if not ratio or self._deadline.seconds_left() == float("inf"):
            return self.finishing_s + self.combining_s
        besides_s = self.finishing_s + self._setup_s
        if self._folds is not None:
            besides_s += (self._folds.num_rounds - 1) * self._setup_s + self._folds.num_judged * self._val_s
        left_s = max(0.0, self._deadline.seconds_left() - besides_s)
        return besides_s + ratio * (left_s + self._best_s) / (1 + ratio)

    def recall(self, study: Study) -> None:
        """Learn from what a study has in its journal."""
        for trial in study.trials:
            self._networks[same_costs(trial.config)].add(trial.number)
            for report in trial.reports:
                self(report)

    def __call__(self, event: Event) -> None:
        """Learn from an event."""
        match event:
            case TrialStarted():
                self._sent_s[event.trial] = time.monotonic()
                self._num_trials = max(self._num_trials, event.trial + 1)
                self._networks[same_costs(event.config)].add(event.trial)
            case EpochDone():
                self._learn(event)
            case JobDone() if not self._row_s:
                self._row_s = _row_seconds(event.trial)

    def _learn(self, report: EpochDone) -> None:
        metrics = report.metrics
        if "train_s" in metrics and "val_s" in metrics:
            self._write_s = max(self._write_s, report.seconds - metrics["train_s"] - metrics["val_s"])
            self._val_s = max(self._val_s, metrics["val_s"])
        if (sent_s := self._sent_s.pop(report.trial, None)) is not None:
            self._setup_s = max(self._setup_s, time.monotonic() - sent_s - report.seconds)
        trial_s = self._seconds[report.trial] = self._seconds.get(report.trial, 0.0) + report.seconds
        if report.score > self._best_score:
            self._best_score, self._best_s = report.score, trial_s


class SupersededWeights:
    """Removes what a trial has left on the disk once it can be neither continued nor the best one.

    Listen with it to the events of a study. A trial that is running or paused keeps its files; of those that have
    ended, the best one keeps its weights, also while another that has not ended yet leads: that one may still fail.
    Where costs are objectives too, that holds for each network, since only another network can cost less. For an
    ensemble the best trials of several networks are kept, and for soups several trials of each of these. Of probes one
    for each network is kept.

    Parameters
    ----------
    study : Study
        Trials that have ended already are tidied up at once.
    objectives : sequence of str
        As `saccade.objectives.check_objectives` returns them.
    num_networks : int
        Of how many networks trials are kept.
    per_network : int
        How many trials of each are kept.
    """

    def __init__(
        self, study: Study, objectives: Sequence[str] = (), num_networks: int = 1, per_network: int = 1
    ) -> None:
        self._study = study
        has_costs = bool(cost_names(objectives))
        self._is_one_for_all = not has_costs and num_networks == per_network == 1
        self._num_networks = float("inf") if has_costs else num_networks
        self._per_network = per_network
        self._kept: dict[Hashable, list[Trial]] = {}  # the best first
        self._probed: dict[Hashable, int] = {}  # the trial whose probe is kept, by network
        for trial in study.trials:
            self._settle(trial)

    def __call__(self, event: Event) -> None:
        """Tidy up after a job."""
        if isinstance(event, JobDone | JobFailed):
            self._settle(self._study.trials[event.trial])

    def _settle(self, trial: Trial) -> None:
        if trial.status in (Status.RUNNING, Status.PAUSED):
            return
        folder = Path(trial.folder)
        drop_files(folder, "last")
        if trial.status is Status.FAILED:
            drop_files(folder, "best")
            return
        if self._probed.setdefault(same_costs(trial.config), trial.number) != trial.number:
            probe_file(folder).unlink(missing_ok=True)
        key = None if self._is_one_for_all else same_costs(trial.config)
        group = [kept for kept in self._kept.get(key, []) if kept is not trial]
        group = sorted([*group, trial], key=_rank, reverse=True)
        self._kept[key], losers = group[: self._per_network], group[self._per_network :]
        if len(self._kept) > self._num_networks:
            losers += self._kept.pop(min(self._kept, key=lambda name: _rank(self._kept[name][0])))
        for loser in losers:
            drop_files(Path(loser.folder), "best")


def _rank(trial: Trial) -> tuple[float, int]:
    """Return what is largest for the best trial, the earliest among equals."""
    return (-float("inf") if trial.best_report is None else trial.best_report.score, -trial.number)


def best_trials(study: Study, objectives: Sequence[str]) -> list[Trial]:
    """Return the trials whose weights a predictor is to have, the best one first: more than one if costs count."""
    if cost_names(objectives):
        return pareto_front(study.trials, objectives)
    return [] if study.best_trial is None else [study.best_trial]


def num_networks_kept(max_members: int) -> int:
    """Return of how many networks trials are kept for an ensemble of so many members: one to spare."""
    return max_members + 1 if max_members > 1 else 1


def superseded_weights(study: Study, settings: FitSettings) -> SupersededWeights:
    """Return what removes the files that neither the predictor nor what is combined for it can need."""
    return SupersededWeights(
        study,
        settings.tuning.objectives,
        num_networks_kept(settings.max_members),
        MOST_PER_NETWORK if settings.makes_soups else 1,
    )


def keep_best(
    request: FitRequest,
    folder: Path,
    study: Study,
    task: ImageTask,
    deadline: Deadline,
    is_refit: bool,
    soups: Sequence[Candidate] = (),
    until: Deadline | None = None,
    folded: Folded | None = None,
) -> SavedPredictor:
    """Write the predictor of the best trial into the run folder; after a kill it is whole, or not there.

    It may also be a soup, or an ensemble of trials and soups, where that is better.

    Parameters
    ----------
    request, folder, study, task, deadline
        What was asked, and what has come of it.
    is_refit : bool
        Whether the best trial's recipe was trained once more, on all images.
    soups : sequence of Candidate
        Means of weights that are better than each of their trials.
    until : Deadline or None
        When there must be no more thought of ensembles.
    folded : Folded or None
        What came of folds; it takes the place of all else.

    Raises
    ------
    DataError
        When somebody has removed its weights.
    """
    objectives, metric = request.settings.tuning.objectives, task.metric
    kept = best_trials(study, objectives)
    best = kept[0]
    costs = trial_costs(study.trials, objectives) if cost_names(objectives) else None
    combination = _combination(request.settings, study, task, soups, until or deadline, folded)
    layers = folder / REFIT / "layers"
    if combination is None:
        weights = {_name_of_weights(trial, best): _last_layer_of_all(trial, task, layers) for trial in kept}
        members: list[Member] = []
        first, net = best, best.config.get("model")
    else:
        members = _members(combination)
        weights = {
            member.weights: final_weights(one, task, layers)
            for member, one in zip(members, combination.members, strict=True)
        }
        first = study.trials[members[0].trial]
        net = next((one.own_network for one in combination.members if one.own_network), None)
    trust = _trust(best, task) if combination is None else _trust_of_combination(combination, task, folded)
    if is_refit:
        weights[WEIGHTS] = _weights(folder / REFIT, best)
    partial = folder / f".{PREDICTOR_FOLDER}"
    shutil.rmtree(partial, ignore_errors=True)
    summary = fit_summary(first, study.trials, metric.name, deadline.elapsed_s())
    summary |= {**trust.summary(task.problem, is_refit), "refit_full": is_refit}
    summary |= combined_figures(combination, len(study.trials)) if folded is None else folded.figures()
    saved = SavedPredictor(
        folder=partial,
        label=request.label,
        problem=task.problem,
        blueprint=read_blueprint(first),
        metric=metric.name,
        eval_metric=request.eval_metric if isinstance(request.eval_metric, str) else None,  # code is never saved
        class_names=request.train.class_names,
        summary=summary,
        trials=trial_rows(study.trials, costs, [trial.number for trial in kept]),
        net=net if isinstance(net, OwnPart) else None,
        choices=[] if costs is None else [_choice(trial, costs[trial.number], best, task) for trial in kept],
        members=members,
        trust=trust,
    )
    saved.write(weights)
    partial.rename(folder / PREDICTOR_FOLDER)
    for trial in study.trials:
        if trial is not first:
            drop_files(Path(trial.folder), "best")  # of those that are paused; or the predictor has them now
    return replace(saved, folder=folder / PREDICTOR_FOLDER)


def _combination(
    settings: FitSettings,
    study: Study,
    task: ImageTask,
    soups: Sequence[Candidate],
    until: Deadline,
    folded: Folded | None,
) -> Combination | None:
    """Return the best candidate or an ensemble; None where only the best trial is asked for, or can be judged."""
    if folded is not None:
        return folded.combination
    if settings.max_members == 1 and not settings.makes_soups:
        return None
    candidates = read_candidates(study.trials, task)
    if not candidates or study.best_trial is None or candidates[0].trial != study.best_trial.number:
        return None
    seed = settings.random_state or 0
    return combine([*candidates, *soups], task, settings.max_members, seed, until.seconds_left)


def _members(combination: Combination) -> list[Member]:
    return [
        Member(
            one.trial,
            one.blueprint,
            f"{MEMBERS_FOLDER}/{number:04d}.safetensors" if number else WEIGHTS,
            weight,
            list(one.soup),
            one.config.get("amp"),
        )
        for number, (one, weight) in enumerate(zip(combination.members, combination.weights, strict=True))
    ]


def _choice(trial: Trial, costs: dict[str, float], best: Trial, task: ImageTask) -> Choice:
    trust = _trust(trial, task)
    summary = best_figures(trial) if trial is best else {**best_figures(trial), "refit_full": False}
    summary |= {} if trial is best else trust.summary(task.problem)
    return Choice(trial.number, costs, read_blueprint(trial), summary, _name_of_weights(trial, best), trust)


def _trust(trial: Trial, task: ImageTask) -> Trust:
    """Return what is known of a trial's certainty: nothing, where what it said of the held-out images was not kept."""
    assert trial.best_report is not None
    folder = Path(trial.folder)
    for path in (outputs_file(folder, trial.best_report.epoch), folder / BEST_OUTPUTS):
        if (predictions := read_predictions(path, task)) is not None:
            return _trust_of(predictions, task)
    return Trust()


def _trust_of_combination(combination: Combination, task: ImageTask, folded: Folded | None) -> Trust:
    """Return what is known of several networks; of those of folds, what each of them did on what was new to it."""
    if folded is None:
        return _trust_of(mean_predictions(combination), task)
    return Trust.of(folded.predictions, folded.targets, task.problem, task.metric)


def _trust_of(predictions: np.ndarray, task: ImageTask) -> Trust:
    return Trust.of(predictions, task.val.targets, task.problem, task.metric)


def _last_layer_of_all(trial: Trial, task: ImageTask, layers: Path) -> Path:
    """Return the file of a trial's best weights, with a last layer of all images if it was best before any training."""
    assert trial.best_report is not None
    weights = _weights(Path(trial.folder), trial)
    probe = FinalProbe.load(probe_file(Path(trial.folder))) if trial.best_report.epoch == 0 else None
    return final_weights(
        Candidate(trial.number, trial.config, read_blueprint(trial), weights, np.zeros(0), probe=probe), task, layers
    )


def _name_of_weights(trial: Trial, best: Trial) -> str:
    return WEIGHTS if trial is best else f"{CHOICES_FOLDER}/{trial.number:04d}.safetensors"


def _weights(folder: Path, trial: Trial) -> Path:
    """Return the file in a folder that has the weights of a trial's best epoch."""
    assert trial.best_report is not None
    expected = weights_file(folder, trial.best_report.epoch)
    for path in (expected, folder / BEST):
        if path.is_file():
            return path
    raise DataError(f"{expected} is gone, the weights of trial {trial.number}, one of the best; start the run anew")


def tidy_up(folder: Path) -> None:
    """Remove what a finished run leaves behind in its folder besides results; doing it twice does no harm."""
    for name in (STORE, REFIT, SOUPS, FOLDS):
        shutil.rmtree(folder / name, ignore_errors=True)
    trials = folder / TRIALS
    (trials / START).unlink(missing_ok=True)
    for pattern in ("last-*", "*.part", "probe.npz"):
        for path in trials.glob(f"*/{pattern}"):
            path.unlink(missing_ok=True)
    for name in (BEST, BEST_OUTPUTS):
        for path in trials.glob(f"*/best-*{name.removeprefix('best')}"):
            path.replace(path.with_name(name))


def _row_seconds(trial: int) -> float:
    """Return how long a trial's part of the summary takes to be written."""
    row: dict[str, Any] = {"a hyperparameter": 0.1234567}
    example = Trial(trial, row, reports=[EpochDone(trial, 1, 0.5)])
    start_s = time.perf_counter()
    json.dumps([trial_rows([example]), example.config], indent=2, default=repr)
    return time.perf_counter() - start_s
