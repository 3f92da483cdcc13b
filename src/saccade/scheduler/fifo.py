"""First in, first out: train each configuration to its end, in the order in which it was proposed."""

from __future__ import annotations

from collections import deque

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
