"""The seam between a study and the scheduler, which decides on jobs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from saccade.events import EpochDone
from saccade.study.trial import Decision, Job, Trial


class StudyState(Protocol):
    """The part of a study that a scheduler uses."""

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials so far, by number."""

    @property
    def seconds_left(self) -> float:
        """Seconds left for training; inf without a time limit."""

    @property
    def num_trials(self) -> float:
        """Maximum number of trials; inf without a limit."""

    @property
    def num_workers(self) -> int:
        """Number of trials that are trained at once."""

    @property
    def reference_speed(self) -> float | None:
        """Speed of the node in whose seconds searchers observe costs; None if no speed was measured."""

    def new_trial(self) -> Trial | None:
        """Create a trial with the searcher's next configuration; None if there may be no more trials."""

    def has_time_for(self, trial: Trial) -> bool:
        """Return whether the trial can report one more epoch before the deadline and its own time limit."""


class Scheduler(ABC):
    """Decides which job runs next, and what a trial does after a report.

    Test a new one with `saccade.testing.SchedulerContract`.
    """

    def on_start(self, state: StudyState) -> None:  # noqa: B027  optional
        """React to the start of the study; in a resumed run, after `on_report` for all earlier reports."""

    @abstractmethod
    def next_job(self, state: StudyState) -> Job | None:
        """Return the next job for a free worker, of a new trial or of one that is paused.

        This is called again after the end of each job, so None means that there is nothing to do for now. The study
        sets the job's `seconds_left`.
        """

    @abstractmethod
    def on_report(self, report: EpochDone) -> Decision:
        """Return what the trial does next.

        In a resumed run, this is called for all earlier reports first, and the return values are ignored.
        """

    def on_job_end(self, trial: Trial) -> None:  # noqa: B027  optional
        """React to the end of a job of the trial, which has its new ``trial.status``."""
