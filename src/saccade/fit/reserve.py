"""What is kept for the end of a fit while the search runs: time, by measurement, and the files that may be needed."""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from saccade.deadline import Deadline
from saccade.events import EpochDone, Event, JobDone, JobFailed, JobStarted, TrialCreated
from saccade.fit.settings import FitSettings
from saccade.selection.folds import FoldCosts
from saccade.selection.summary import trial_rows
from saccade.study.objectives import cost_names, same_costs
from saccade.study.study import Study
from saccade.study.trial import Status, Trial
from saccade.training.trial_files import drop_files, probe_file

LEAST_RESERVE_S = 0.2
"""Seconds for what is too small to be measured: to end workers, to remove files, to write a summary."""

SELECTION_S = 0.8
"""Seconds in which an ensemble can be chosen; with more images there are fewer repeats, and less if time is short."""

COMBINING_PART = 0.05
"""The most of a time limit that is kept for the selection of an ensemble."""


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
    folds : FoldCosts or None
        What folds take, which are trained in the place of a refit.
    """

    def __init__(
        self,
        deadline: Deadline,
        refit_ratio: float = 0.0,
        objectives: Sequence[str] = (),
        max_members: int = 1,
        folds: FoldCosts | None = None,
    ) -> None:
        self._deadline, self._folds = deadline, folds
        self._refit_ratio = refit_ratio if folds is None else folds.ratio
        self._has_costs = bool(cost_names(objectives))
        self._max_members = max_members
        self._networks: set[Hashable] = set()
        self._write_s = self._setup_s = self._row_s = 0.0
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
        """Seconds for the selection of an ensemble, which precedes `finishing_s`."""
        if self._max_members == 1 or self._num_trials < 2:
            return 0.0
        return min(SELECTION_S, COMBINING_PART * self._deadline.limit_s)

    def seconds(self) -> float:
        """Return the seconds to keep."""
        ratio = self._refit_ratio
        if not ratio or self._deadline.seconds_left() == float("inf"):
            return self.finishing_s + self.combining_s
        besides_s = self.finishing_s + self._setup_s
        if self._folds is not None:
            besides_s += (self._folds.num_rounds - 1) * self._setup_s
        left_s = max(0.0, self._deadline.seconds_left() - besides_s)
        return besides_s + ratio * (left_s + self._best_s) / (1 + ratio)

    def recall(self, study: Study) -> None:
        """Learn from what a study has in its journal."""
        for trial in study.trials:
            self._networks.add(same_costs(trial.config))
            for report in trial.reports:
                self(report)

    def __call__(self, event: Event) -> None:
        """Learn from an event."""
        match event:
            case TrialCreated():
                self._num_trials = max(self._num_trials, event.trial + 1)
                self._networks.add(same_costs(event.config))
            case JobStarted():
                self._sent_s[event.trial] = time.monotonic()
            case EpochDone():
                self._learn(event)
            case JobDone() if not self._row_s:
                self._row_s = _row_seconds(event.trial)

    def _learn(self, report: EpochDone) -> None:
        metrics = report.metrics
        self._write_s = max(self._write_s, metrics.get("write_s", 0.0))
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
    ensemble the best trial of each of several networks is kept. Of probes one for each network is kept.

    Parameters
    ----------
    study : Study
        Trials that have ended already are tidied up at once.
    objectives : sequence of str
        As `saccade.study.objectives.check_objectives` returns them.
    num_networks : int
        Of how many networks the best trial is kept.
    """

    def __init__(self, study: Study, objectives: Sequence[str] = (), num_networks: int = 1) -> None:
        self._study = study
        has_costs = bool(cost_names(objectives))
        self._num_networks = float("inf") if has_costs else num_networks
        self._kept: dict[Hashable, Trial] = {}  # the best trial of each network
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
            _drop_weights(folder)
            return
        if self._probed.setdefault(same_costs(trial.config), trial.number) != trial.number:
            probe_file(folder).unlink(missing_ok=True)
        key = None if self._num_networks == 1 else same_costs(trial.config)
        before = self._kept.get(key, trial)
        self._kept[key] = max(before, trial, key=_rank)
        losers = [] if before is trial else [min(before, trial, key=_rank)]
        if len(self._kept) > self._num_networks:
            losers.append(self._kept.pop(min(self._kept, key=lambda name: _rank(self._kept[name]))))
        for loser in losers:
            _drop_weights(Path(loser.folder))


def _drop_weights(folder: Path) -> None:
    drop_files(folder, "best")
    drop_files(folder, "end")


def _rank(trial: Trial) -> tuple[float, int]:
    """Return what is largest for the best trial, the earliest among equals."""
    return (-float("inf") if trial.best_report is None else trial.best_report.score, -trial.number)


def num_networks_kept(max_members: int) -> int:
    """Return of how many networks trials are kept for an ensemble of so many members: one to spare."""
    return max_members + 1 if max_members > 1 else 1


def superseded_weights(study: Study, settings: FitSettings) -> SupersededWeights:
    """Return what removes the files that neither the predictor nor what is combined for it can need."""
    return SupersededWeights(study, settings.tuning.objectives, num_networks_kept(settings.max_members))


def _row_seconds(trial: int) -> float:
    """Return how long a trial's part of the summary takes to be written."""
    row: dict[str, Any] = {"a hyperparameter": 0.1234567}
    example = Trial(trial, row, reports=[EpochDone(trial, 1, 0.5)])
    start_s = time.perf_counter()
    json.dumps([trial_rows([example]), example.config], indent=2, default=repr)
    return time.perf_counter() - start_s
