"""Asynchronous successive halving whose rungs are chosen from the time limit, or from the number of trials."""

from __future__ import annotations

import math
from dataclasses import replace

from saccade.events import EpochDone
from saccade.scheduler.asha import ASHAScheduler
from saccade.scheduler.base import Scheduler, StudyState
from saccade.scheduler.rungs import choose_rungs, choose_rungs_for
from saccade.study.trial import Decision, Job, Trial

DEFAULT_EPOCHS = 50
"""The epochs of a whole training if `max_epochs` is not given."""


class AutoScheduler(Scheduler):
    """ASHA with rungs and a reduction factor chosen for the search; it works with every searcher.

    With a time limit the rungs are chosen when the first epoch has been measured. Without one they follow from the
    number of trials: most trials end paused, and one is trained to its end.

    Parameters
    ----------
    max_epochs : int or None
        The most epochs of any configuration; None if that is unknown.

    Examples
    --------
    >>> import saccade
    >>> space, scheduler = {"x": saccade.Real(0, 1)}, AutoScheduler(max_epochs=9)
    >>> result = saccade.tune(lambda config: config["x"], space, scheduler=scheduler, num_trials=3, verbosity=0)
    >>> len(result.trials)
    3
    """

    def __init__(self, max_epochs: int | None = None) -> None:
        self.max_epochs = max_epochs
        self._longest = DEFAULT_EPOCHS if max_epochs is None else max_epochs
        self._state: StudyState | None = None
        self._asha: ASHAScheduler | None = None
        self._before: list[EpochDone | Trial] = []  # reports and ended jobs before the rungs are chosen

    def on_start(self, state: StudyState) -> None:
        """Choose the rungs, unless an epoch must be measured first."""
        self._state = state
        self._choose(state)

    def next_job(self, state: StudyState) -> Job | None:
        """Return ASHA's next job; a new trial while no epoch has been measured."""
        self._state = state
        if self._asha is not None:
            return self._asha.next_job(state)
        trial = state.new_trial()
        return None if trial is None else Job(trial.number, trial.config)

    def on_report(self, report: EpochDone) -> Decision:
        """Return ASHA's decision; the report of the first measured epoch chooses the rungs."""
        if self._asha is not None:
            return self._asha.on_report(report)
        self._before.append(report)
        if self._state is not None:
            self._choose(self._state)
        return Decision.CONTINUE

    def on_job_end(self, trial: Trial) -> None:
        """Pass on which trials are paused."""
        if self._asha is not None:
            self._asha.on_job_end(trial)
        else:
            self._before.append(replace(trial))  # with its current status

    def _choose(self, state: StudyState) -> None:
        """Choose the rungs, unless an epoch must be measured first, and pass everything so far to ASHA."""
        if math.isinf(state.seconds_left):
            grace_epochs, factor = choose_rungs_for(state.num_trials, self._longest)
        else:
            epoch_s = [each.seconds for each in self._before if isinstance(each, EpochDone) and each.epoch >= 1]
            if not epoch_s:
                return
            grace_epochs, factor = choose_rungs(self._longest, state.seconds_left, epoch_s[0], state.num_workers)
            grace_epochs = min(grace_epochs, self._longest)
        self._asha = ASHAScheduler(self.max_epochs, grace_epochs, factor)
        for each in self._before:
            if isinstance(each, EpochDone):
                self._asha.on_report(each)
            else:
                self._asha.on_job_end(each)
        self._asha.on_start(state)
