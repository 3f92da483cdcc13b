"""First in, first out: train each configuration to its end, or until the median stopping rule stops it."""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict, deque
from dataclasses import dataclass

from saccade.checks import whole_number
from saccade.events import EpochDone
from saccade.scheduler.base import Scheduler, StudyState
from saccade.study.trial import Decision, Job, Status, Trial


class FIFOScheduler(Scheduler):
    """Train each trial to the end of its configuration before the next one starts.

    Trials that are paused when a search is resumed are finished first.
    """

    def __init__(self) -> None:
        self._paused: deque[int] = deque()

    def next_job(self, state: StudyState) -> Job | None:
        """Return the rest of a paused trial, or the only job of a new one."""
        while self._paused:
            trial = state.trials[self._paused.popleft()]
            if trial.status is Status.PAUSED and trial.reports and state.has_time_for(trial):
                return Job(trial.number, trial.config, checkpoint=trial.reports[-1].checkpoint)
        new = state.new_trial()
        return None if new is None else Job(new.number, new.config)

    def on_report(self, report: EpochDone) -> Decision:  # noqa: ARG002
        """Continue."""
        return Decision.CONTINUE

    def on_job_end(self, trial: Trial) -> None:
        """Queue a trial that is paused."""
        if trial.status is Status.PAUSED:
            self._paused.append(trial.number)


class MedianScheduler(FIFOScheduler):
    """The median stopping rule (Golovin et al., Google Vizier: A Service for Black-Box Optimization, KDD 2017).

    Trials are trained in the order in which they were proposed. A trial is stopped at an epoch if its best score so far
    is below the median, over all other trials that have reached the epoch, of their mean scores up to it. The rule
    needs no checkpoints, and works with curves of any length.

    Reports before the first epoch, such as that of a linear probe, do not count. The last epoch of a trial counts, but
    does not stop it. Numbers out of range raise a HyperparameterError.

    Parameters
    ----------
    grace_epochs : int
        No trial is stopped before this epoch.
    min_trials : int
        No trial is stopped at an epoch that fewer other trials have reached.

    Examples
    --------
    >>> scheduler = MedianScheduler(min_trials=2)
    >>> [scheduler.on_report(EpochDone(trial, 1, score)).value for trial, score in enumerate([0.5, 0.3, 0.2, 0.4])]
    ['continue', 'continue', 'stop', 'continue']
    """

    def __init__(self, grace_epochs: int = 1, min_trials: int = 5) -> None:
        super().__init__()
        self.grace_epochs = whole_number("grace_epochs", grace_epochs)
        self.min_trials = whole_number("min_trials", min_trials)
        self._curves: dict[int, _Curve] = defaultdict(_Curve)
        self._averages: dict[int, list[float]] = defaultdict(list)  # for each epoch, in order

    def on_report(self, report: EpochDone) -> Decision:
        """Stop a trial whose best score is below the median of the other trials' mean scores."""
        if report.epoch < 1:
            return Decision.CONTINUE
        curve, others = self._curves[report.trial], self._averages[report.epoch]
        if report.epoch <= curve.epoch:
            # A trial that was restarted reports its first epochs again; it is not compared with itself.
            return Decision.CONTINUE
        curve.add(report.epoch, report.score)
        is_early = report.epoch < self.grace_epochs or len(others) < self.min_trials
        decision = Decision.CONTINUE
        if not is_early and not report.is_last:
            middle = len(others) // 2
            if curve.best < others[middle] / 2 + others[~middle] / 2:  # the median of an odd or even number
                decision = Decision.STOP
        insort(others, curve.average)
        return decision


@dataclass
class _Curve:
    """The last epoch, the best score and the mean score of a trial."""

    epoch: int = 0
    best: float = -math.inf
    average: float = 0.0
    num: int = 0

    def add(self, epoch: int, score: float) -> None:
        self.epoch, self.best, self.num = epoch, max(self.best, score), self.num + 1
        # A sum of finite scores could overflow.
        self.average += score / self.num - self.average / self.num
