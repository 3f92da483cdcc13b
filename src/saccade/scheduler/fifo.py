"""First in, first out: each configuration is trained to its end, in the order in which it was proposed."""

from __future__ import annotations

from saccade.events import EpochDone
from saccade.scheduler.base import Scheduler, StudyState
from saccade.trial import Decision, Job


class FIFOScheduler(Scheduler):
    """Train each trial to the end of its recipe before the next one begins."""

    def next_job(self, state: StudyState) -> Job | None:
        """Return a new trial's only job."""
        trial = state.new_trial()
        return None if trial is None else Job(trial.number, trial.config, trial.folder)

    def on_report(self, report: EpochDone) -> Decision:  # noqa: ARG002
        """Let every trial go on."""
        return Decision.CONTINUE
