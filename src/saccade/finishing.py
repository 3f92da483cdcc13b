"""The end of a fit: the time to keep for it, which files are kept for it, and the predictor that comes of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.events import EpochDone, Event, JobDone, JobFailed, TrialStarted
from saccade.objectives import cost_names, pareto_front, same_costs, trial_costs
from saccade.report.summary import best_figures, fit_summary, trial_rows
from saccade.run_folder import REFIT, START, STORE, TRIALS, FitRequest
from saccade.saved import CHOICES_FOLDER, PREDICTOR_FOLDER, WEIGHTS, Choice, SavedPredictor
from saccade.scheduler import Study
from saccade.training.classifier import Blueprint
from saccade.training.metrics import Metric
from saccade.training.own_parts import OwnPart
from saccade.training.problem import Problem
from saccade.training.trial_files import BLUEPRINT, drop_files, weights_file
from saccade.trial import Status, Trial

LEAST_RESERVE_S = 0.2
"""Seconds for what is too small to be measured: to end workers, to remove files, to write a summary."""

BEST = "best.safetensors"
"""What the best weights of a trial are called once the search is over."""


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
    """

    def __init__(self, deadline: Deadline, refit_ratio: float = 0.0, objectives: Sequence[str] = ()) -> None:
        self._deadline, self._refit_ratio = deadline, refit_ratio
        self._networks: set[Hashable] | None = set() if cost_names(objectives) else None
        self._write_s = self._setup_s = self._row_s = 0.0
        self._sent_s: dict[int, float] = {}
        self._seconds: dict[int, float] = {}  # of each trial so far
        self._best_score, self._best_s = -float("inf"), 0.0
        self._num_trials = 0

    @property
    def finishing_s(self) -> float:
        """Seconds for what comes after search and refit."""
        num_copies = 1 + len(self._networks or ())
        return LEAST_RESERVE_S + num_copies * self._write_s + self._num_trials * self._row_s

    def seconds(self) -> float:
        """Return the seconds to keep."""
        ratio = self._refit_ratio
        if not ratio or self._deadline.seconds_left() == float("inf"):
            return self.finishing_s
        left_s = max(0.0, self._deadline.seconds_left() - self.finishing_s - self._setup_s)
        return self.finishing_s + self._setup_s + ratio * (left_s + self._best_s) / (1 + ratio)

    def recall(self, study: Study) -> None:
        """Learn from what a study has in its journal."""
        for trial in study.trials:
            self._note_network(trial.config)
            for report in trial.reports:
                self(report)

    def __call__(self, event: Event) -> None:
        """Learn from an event."""
        match event:
            case TrialStarted():
                self._sent_s[event.trial] = time.monotonic()
                self._num_trials = max(self._num_trials, event.trial + 1)
                self._note_network(event.config)
            case EpochDone():
                self._learn(event)
            case JobDone() if not self._row_s:
                self._row_s = _row_seconds(event.trial)

    def _note_network(self, config: dict[str, Any]) -> None:
        if self._networks is not None:
            self._networks.add(same_costs(config))

    def _learn(self, report: EpochDone) -> None:
        metrics = report.metrics
        if "train_s" in metrics and "val_s" in metrics:
            self._write_s = max(self._write_s, report.seconds - metrics["train_s"] - metrics["val_s"])
        if (sent_s := self._sent_s.pop(report.trial, None)) is not None:
            self._setup_s = max(self._setup_s, time.monotonic() - sent_s - report.seconds)
        trial_s = self._seconds[report.trial] = self._seconds.get(report.trial, 0.0) + report.seconds
        if report.score > self._best_score:
            self._best_score, self._best_s = report.score, trial_s


class SupersededWeights:
    """Removes what a trial has left on the disk once it can be neither continued nor the best one.

    Listen with it to the events of a study. A trial that is running or paused keeps its files; of those that have
    ended, the best one keeps its weights, also while another that has not ended yet leads: that one may still fail.
    Where costs are objectives too, that holds for each network, since only another network can cost less.

    Parameters
    ----------
    study : Study
        Trials that have ended already are tidied up at once.
    objectives : sequence of str
        As `saccade.objectives.check_objectives` returns them.
    """

    def __init__(self, study: Study, objectives: Sequence[str] = ()) -> None:
        self._study = study
        self._has_costs = bool(cost_names(objectives))
        self._kept: dict[Hashable, Trial] = {}
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
        key = same_costs(trial.config) if self._has_costs else None
        kept = self._kept.get(key)
        loser: Trial | None = trial
        if trial.status is not Status.FAILED and (kept is None or _rank(trial) > _rank(kept)):
            loser, self._kept[key] = kept, trial
        if loser is not None and loser is not self._kept.get(key):
            drop_files(Path(loser.folder), "best")


def _rank(trial: Trial) -> tuple[float, int]:
    """Return what is largest for the best trial, the earliest among equals."""
    return (-float("inf") if trial.best_report is None else trial.best_report.score, -trial.number)


def best_trials(study: Study, objectives: Sequence[str]) -> list[Trial]:
    """Return the trials whose weights a predictor is to have, the best one first: more than one if costs count."""
    if cost_names(objectives):
        return pareto_front(study.trials, objectives)
    return [] if study.best_trial is None else [study.best_trial]


def keep_best(
    request: FitRequest,
    folder: Path,
    study: Study,
    problem: Problem,
    metric: Metric,
    deadline: Deadline,
    is_refit: bool,
) -> SavedPredictor:
    """Write the predictor of the best trial into the run folder; after a kill it is whole, or not there.

    Raises
    ------
    DataError
        When somebody has removed its weights.
    """
    objectives = request.settings.tuning.objectives
    kept = best_trials(study, objectives)
    best = kept[0]
    costs = trial_costs(study.trials, objectives) if cost_names(objectives) else None
    weights = {_name_of_weights(trial, best): _weights(Path(trial.folder), trial) for trial in kept}
    if is_refit:
        weights[WEIGHTS] = _weights(folder / REFIT, best)
    partial = folder / f".{PREDICTOR_FOLDER}"
    shutil.rmtree(partial, ignore_errors=True)
    saved = SavedPredictor(
        folder=partial,
        label=request.label,
        problem=problem,
        blueprint=_blueprint(best),
        metric=metric.name,
        eval_metric=request.eval_metric if isinstance(request.eval_metric, str) else None,  # code is never saved
        class_names=request.train.class_names,
        summary={**fit_summary(best, study.trials, metric.name, deadline.elapsed_s()), "refit_full": is_refit},
        trials=trial_rows(study.trials, costs, [trial.number for trial in kept]),
        net=net if isinstance(net := best.config.get("model"), OwnPart) else None,
        choices=[] if costs is None else [_choice(trial, costs[trial.number], best) for trial in kept],
    )
    saved.write(weights)
    partial.rename(folder / PREDICTOR_FOLDER)
    for trial in study.trials:
        if trial is not best:
            drop_files(Path(trial.folder), "best")  # of those that are paused; or the predictor has them now
    return replace(saved, folder=folder / PREDICTOR_FOLDER)


def _choice(trial: Trial, costs: dict[str, float], best: Trial) -> Choice:
    summary = {**best_figures(trial), **({} if trial is best else {"refit_full": False})}
    return Choice(trial.number, costs, _blueprint(trial), summary, _name_of_weights(trial, best))


def _blueprint(trial: Trial) -> Blueprint:
    return Blueprint.from_json(json.loads((Path(trial.folder) / BLUEPRINT).read_text(encoding="utf-8")))


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
    for name in (STORE, REFIT):
        shutil.rmtree(folder / name, ignore_errors=True)
    trials = folder / TRIALS
    (trials / START).unlink(missing_ok=True)
    for pattern in ("last-*", "*.part"):
        for path in trials.glob(f"*/{pattern}"):
            path.unlink(missing_ok=True)
    for path in trials.glob("*/best-*"):
        path.replace(path.with_name(BEST))


def _row_seconds(trial: int) -> float:
    """Return how long a trial's part of the summary takes to be written."""
    row: dict[str, Any] = {"a hyperparameter": 0.1234567}
    example = Trial(trial, row, reports=[EpochDone(trial, 1, 0.5)])
    start_s = time.perf_counter()
    json.dumps([trial_rows([example]), example.config], indent=2, default=repr)
    return time.perf_counter() - start_s
