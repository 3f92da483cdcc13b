"""The seam between a study and whoever decides which training job runs next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from saccade.events import EpochDone
from saccade.study.trial import Decision, Job, Trial


class StudyState(Protocol):
    """What a scheduler may see of a study, and the one thing it may ask of it."""

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials so far, by number."""

    @property
    def seconds_left(self) -> float:
        """Seconds left for training; inf without a time limit."""

    @property
    def num_trials(self) -> float:
        """How many trials may be begun in all; inf without a limit."""

    @property
    def num_workers(self) -> int:
        """How many trials are trained at once."""

    def new_trial(self) -> Trial | None:
        """Begin a trial with a configuration of the searcher's; None when no more may be begun."""

    def has_time_for(self, trial: Trial) -> bool:
        """Tell whether the trial could train one more epoch and report it before the deadline and its own limit."""


class Scheduler(ABC):
    """Decides which job runs next, and what a trial does after a report.

    Test a new one with `saccade.testing.SchedulerContract`.
    """

    def on_start(self, state: StudyState) -> None:  # noqa: B027 (most need to know nothing before they are asked)
        """Learn that the study begins to run; of a run that is resumed, all earlier reports have been told by now."""

    @abstractmethod
    def next_job(self, state: StudyState) -> Job | None:
        """Return the next job for a free worker, of a new trial or of one that is paused.

        It is asked again after each job's end, so None means that there is nothing to do for now; and the study sets
        the job's `seconds_left`.
        """

    @abstractmethod
    def on_report(self, report: EpochDone) -> Decision:
        """Return what the trial that reported is to do.

        A run that is resumed tells the scheduler of all earlier reports first, and does not mind the answers.
        """

    def on_job_end(self, trial: Trial) -> None:  # noqa: B027 (most look at the trials when they are asked)
        """Learn that a job of the trial has ended, and how: see ``trial.status``. This default learns nothing."""
