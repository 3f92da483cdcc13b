"""The seam between a study and the workers that do its jobs."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from saccade.events import EpochDone, Event, JobDone, JobFailed
from saccade.study.trial import Decision, Job, Reporter, Trainable

if TYPE_CHECKING:
    from typing_extensions import Self

Handler = Callable[[Event], Decision]
"""Called with every event of a job; what it returns for `EpochDone` is the decision for that trial."""


class Executor(ABC):
    """Runs jobs on one or more warm workers.

    `submit` hands over jobs, at most as many as `num_free` says; `run` works until no job is left, and calls the
    handler with each event, in the calling thread, one event at a time. The handler may submit more jobs when one has
    ended, which is the case when `JobDone` or `JobFailed` has come; `JobFailed.is_worker_lost` tells that its worker
    crashed, which costs no other job. Use it as a context manager: leaving it ends the workers.
    ``tests/contracts/executor_contract.py`` holds what each executor must do.

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
        """Take up a job; its configuration belongs to whoever trains it."""

    @abstractmethod
    def run(self, handle: Handler) -> None:
        """Work until no job is left.

        What the handler raises is no failure of a trial: it ends the run, and comes out of it.
        """

    def close(self) -> None:  # noqa: B027 (an executor without workers of its own has none to end)
        """End the workers, whatever they are doing; the next job finds new ones."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class OneWorkerExecutor(Executor):
    """An executor with one worker; to inherit from it is to say how one job is done.

    Parameters
    ----------
    trainable : Trainable or None
        What is trained; may be set later, before the first job.
    """

    def __init__(self, trainable: Trainable | None = None) -> None:
        self.trainable = trainable
        self._job: Job | None = None

    @property
    def num_workers(self) -> int:
        """One."""
        return 1

    @property
    def num_free(self) -> int:
        """One, unless a job waits or runs."""
        return 0 if self._job else 1

    def submit(self, job: Job) -> None:
        """Keep the job for `run`."""
        assert self._job is None, "the one worker has a job; see num_free"
        self._job = job

    def run(self, handle: Handler) -> None:
        """Do the job, and those that the handler adds."""
        while self._job is not None:
            assert self.trainable is not None, "set the executor's trainable before the first job"
            try:
                end = self._do(self.trainable, self._job, handle)
            finally:
                self._job = None
            handle(end)

    @abstractmethod
    def _do(self, trainable: Trainable, job: Job, handle: Handler) -> JobDone | JobFailed:
        """Do one job, pass on what it reports, and return how it ended."""


def run_job(trainable: Trainable, job: Job, report: Reporter) -> JobDone | JobFailed:
    """Run one job to its end; whatever the trainable raises becomes a failed job with its traceback.

    What `report` raises is no fault of the trainable, and is passed on, whatever the trainable makes of it.
    """
    decision = Decision.CONTINUE
    report_errors: list[BaseException] = []

    def reporting(event: EpochDone) -> Decision:
        nonlocal decision
        try:
            decision = report(event)
        except BaseException as error:
            report_errors.append(error)
            raise
        return decision

    try:
        reason = trainable.train(job, reporting)
    except (Exception, SystemExit) as error:  # a function that calls sys.exit() must not end the search
        if not report_errors:
            return failed(job.trial, error)
    if report_errors:
        raise report_errors[0]
    if decision is Decision.PAUSE:
        return JobDone(job.trial, "paused", reason)
    return JobDone(job.trial, "stopped" if reason or decision is Decision.STOP else "completed", reason)


def failed(trial: int, error: BaseException) -> JobFailed:
    """Return the failure of a trial that raised this error."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return JobFailed(trial, reason_of(error), "".join(lines))


def reason_of(error: BaseException) -> str:
    r"""Return the one line that says what was wrong.

    Examples
    --------
    >>> reason_of(ValueError("two\nlines"))
    'ValueError: two lines'
    """
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text}" if text else name
