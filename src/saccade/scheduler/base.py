"""The seam between a study and whoever decides which training job runs next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from saccade.events import EpochDone
from saccade.trial import Decision, Job, Trial


class StudyState(Protocol):
    """What a scheduler may see of a study, and the one thing it may ask of it."""

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials so far, by number."""

    @property
    def seconds_left(self) -> float:
        """Seconds left for training; inf without a time limit."""

    def new_trial(self) -> Trial | None:
        """Begin a trial with a configuration of the searcher's; None when no more may be begun."""


class Scheduler(ABC):
    """Decides which job runs next, and what a trial does after a report.

    ``tests/contracts/scheduler_contract.py`` holds what each scheduler must do.
    """

    @abstractmethod
    def next_job(self, state: StudyState) -> Job | None:
        """Return the next job for a free worker, of a new trial or of one that is paused.

        It is asked again after each job's end, so None means that there is nothing to do for now; and the study sets
        the job's `seconds_left`.
        """

    @abstractmethod
    def on_report(self, report: EpochDone) -> Decision:
        """Return what the trial that reported is to do."""
