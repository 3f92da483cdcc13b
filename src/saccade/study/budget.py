"""How much time is left: for the search, for one trial, for one more epoch of it."""

from __future__ import annotations

import math
from collections.abc import Callable

from saccade.deadline import Deadline
from saccade.study.trial import Trial

Reserve = float | Callable[[], float]
"""Seconds to leave alone before a deadline; or who tells how many, from what has been measured by then."""


class Budget:
    """The time of a search, and what may still be begun in it.

    Parameters
    ----------
    deadline : Deadline
        When everything must be over.
    reserve_s : float or callable
        Seconds before the deadline that training leaves alone. A callable is asked again and again.
    trial_time_limit_s : float or None
        Seconds of training that one trial may have, in all of its jobs.

    Examples
    --------
    >>> from saccade.events import EpochDone
    >>> budget = Budget(Deadline(None), 0.0, trial_time_limit_s=10.0)
    >>> trial = Trial(0, {}, reports=[EpochDone(0, 1, 0.5, seconds=4.0, checkpoint="a file")])
    >>> budget.seconds_left_for(trial), budget.has_time_for(trial)
    (6.0, True)
    """

    def __init__(self, deadline: Deadline, reserve_s: Reserve, trial_time_limit_s: float | None) -> None:
        self.deadline = deadline
        self.reserve_s = reserve_s
        self.trial_time_limit_s = math.inf if trial_time_limit_s is None else float(trial_time_limit_s)
        self._least_first_epoch_s = math.inf

    @property
    def seconds_left(self) -> float:
        """Seconds left for training."""
        return self.deadline.seconds_left() - (self.reserve_s() if callable(self.reserve_s) else self.reserve_s)

    def seconds_left_for(self, trial: Trial) -> float:
        """Return the seconds that a job of the trial may take."""
        return min(self.seconds_left, self.trial_time_limit_s - trial.seconds)

    def learn(self, trial: Trial) -> None:
        """Learn from a trial's latest report what a first epoch costs."""
        if len(trial.reports) == 1:
            self._least_first_epoch_s = min(self._least_first_epoch_s, trial.reports[0].seconds)

    def has_time_for_a_trial(self) -> bool:
        """Tell whether a new trial could report in time, as far as those before it tell; the first one always can."""
        return math.isinf(self._least_first_epoch_s) or self.seconds_left > self._least_first_epoch_s

    def has_time_for(self, trial: Trial) -> bool:
        """Tell whether a trial that is not running could report one more epoch in time."""
        if not trial.reports:
            return self.has_time_for_a_trial()
        return self.seconds_left > _next_report_s(trial) and self.has_own_time(trial)

    def has_own_time(self, trial: Trial) -> bool:
        """Tell whether the trial's own limit leaves it one more epoch."""
        return math.isinf(self.trial_time_limit_s) or self.trial_time_limit_s - trial.seconds >= _next_report_s(trial)


def _next_report_s(trial: Trial) -> float:
    """Return what the next epoch will cost if it costs as much as the last, epochs to be trained again included."""
    last = trial.reports[-1]
    again_s = 0.0 if last.checkpoint is not None else sum(report.seconds for report in trial.reports)
    return again_s + last.seconds
