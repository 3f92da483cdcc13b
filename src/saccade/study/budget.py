"""The time that is left: for the search, for one trial, for one more epoch of it."""

from __future__ import annotations

import math
from collections.abc import Callable

from saccade.deadline import Deadline
from saccade.study.trial import Trial

Reserve = float | Callable[[], float]
"""Seconds before a deadline that are not used for training; or a function that returns them."""


class Budget:
    """The time of a search; its arguments are those of `Study`."""

    def __init__(self, deadline: Deadline, reserve_s: Reserve, trial_time_limit_s: float | None) -> None:
        self.deadline = deadline
        self.reserve_s = reserve_s
        self.trial_time_limit_s = math.inf if trial_time_limit_s is None else float(trial_time_limit_s)
        self._shortest_first_epoch_s = math.inf
        self._submitted_s: dict[int, float] = {}
        self._setup_s = math.inf  # the shortest time from a job's start to its first report, without the epoch itself

    @property
    def seconds_left(self) -> float:
        """Seconds left for training."""
        return self.deadline.seconds_left() - (self.reserve_s() if callable(self.reserve_s) else self.reserve_s)

    def seconds_left_for(self, trial: Trial) -> float:
        """Return the seconds that a job of the trial may take."""
        return min(self.seconds_left, self.trial_time_limit_s - trial.seconds)

    @property
    def setup_s(self) -> float:
        """Seconds that a job takes before its first epoch: building a network, loading weights, measuring numerics."""
        return 0.0 if math.isinf(self._setup_s) else self._setup_s

    def submitted(self, trial: Trial) -> None:
        """Note the start of a job."""
        self._submitted_s[trial.number] = self.deadline.elapsed_s()

    def learn(self, trial: Trial) -> None:
        """Update the shortest set-up and the shortest first epoch from a trial's latest report."""
        if (submitted_s := self._submitted_s.pop(trial.number, None)) is not None:
            setup_s = self.deadline.elapsed_s() - submitted_s - trial.reports[-1].seconds
            self._setup_s = min(self._setup_s, max(0.0, setup_s))
        if len(trial.reports) == 1:
            self._shortest_first_epoch_s = min(self._shortest_first_epoch_s, trial.reports[0].seconds)

    def has_time_for_a_trial(self) -> bool:
        """Return whether a new trial could report in time, estimated from the trials so far; True before the first."""
        first_s = self._shortest_first_epoch_s
        return math.isinf(first_s) or self.seconds_left > first_s + self.setup_s

    def has_time_for(self, trial: Trial) -> bool:
        """Return whether a trial that is not running could report one more epoch in time."""
        if not trial.reports:
            return self.has_time_for_a_trial()
        return self.seconds_left > _next_report_s(trial) + self.setup_s and self.has_own_time(trial)

    def has_own_time(self, trial: Trial) -> bool:
        """Return whether the trial's own limit leaves time for one more epoch."""
        return math.isinf(self.trial_time_limit_s) or self.trial_time_limit_s - trial.seconds >= _next_report_s(trial)


def _next_report_s(trial: Trial) -> float:
    """Return the duration of the next epoch if it is that of the last one, plus that of epochs to be trained again."""
    last = trial.reports[-1]
    again_s = 0.0 if last.checkpoint is not None else sum(report.seconds for report in trial.reports)
    return again_s + last.seconds
