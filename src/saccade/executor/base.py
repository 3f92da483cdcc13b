"""The seam between a study and the workers that do its jobs."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType

from saccade.events import EpochDone, Event, JobDone, JobFailed
from saccade.trial import Decision, Job, Reporter, Trainable

Handler = Callable[[Event], Decision]
"""Called with every event of a job; what it returns for `EpochDone` is the decision for that trial."""


class Executor(ABC):
    """Runs jobs on one or more warm workers.

    `submit` hands over jobs, at most as many as `num_free` says; `run` works until no job is left, and calls the
    handler with each event. The handler may submit more jobs when one has ended. Use it as a context manager: leaving
    it ends the workers.

    Attributes
    ----------
    trainable : Trainable or None
        What is trained; it must be set before the first job.
    """

    trainable: Trainable | None

    @property
    @abstractmethod
    def num_workers(self) -> int:
        """How many jobs can run at once."""

    @property
    @abstractmethod
    def num_free(self) -> int:
        """How many more jobs may be submitted now."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take up a job."""

    @abstractmethod
    def run(self, handle: Handler) -> None:
        """Work until no job is left."""

    def close(self) -> None:
        """End the workers, whatever they are doing."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def run_job(trainable: Trainable, job: Job, report: Reporter) -> JobDone | JobFailed:
    """Run one job to its end; whatever the trainable raises becomes a failed job with its traceback."""
    paused = False

    def reporting(event: EpochDone) -> Decision:
        nonlocal paused
        decision = report(event)
        paused = decision is Decision.PAUSE
        return decision

    try:
        reason = trainable.train(job, reporting)
    except Exception as error:
        return JobFailed(job.trial, reason_of(error), traceback.format_exc())
    if paused:
        return JobDone(job.trial, "paused", reason)
    return JobDone(job.trial, "stopped" if reason else "completed", reason)


def reason_of(error: BaseException) -> str:
    """Return the one line that says what was wrong."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text}" if text else name
