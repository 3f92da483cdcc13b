"""The interface between a study and the workers that run its jobs."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from saccade.errors import WorkerDiedError, count_of, is_disk_full
from saccade.events import EpochDone, Event, JobDone, JobFailed
from saccade.study.life import TIME_LIMIT
from saccade.study.trial import Decision, Job, Reporter, Trainable

if TYPE_CHECKING:
    from typing_extensions import Self

Handler = Callable[[Event], Decision]
"""Called with every event of a job; its return value for `EpochDone` is the decision for that trial."""


TICK_S = 1.0
"""Seconds after which the limits of jobs are looked at again."""

P = TypeVar("P")
R = TypeVar("R")

REPEAT_S = 1.0
"""Seconds after which the exception is raised again, if the job has suppressed it."""


class Executor(ABC):
    """Runs jobs on one or more workers that stay alive between jobs.

    `submit` takes at most `num_free` jobs. `run` works until no job is left and calls the handler with each event, in
    the calling thread, one event at a time. The handler may submit more jobs after `JobDone`, `JobFailed` and
    `WorkerJoined`. ``JobFailed.is_worker_lost`` marks a job whose worker crashed; other jobs are not affected.

    The number of workers may change while `run` works: pass `WorkerJoined` or `WorkerLost` to the handler after each
    change. An executor without a worker waits for one in `run`, which a study calls with or without a job.

    Use an executor as a context manager: leaving it ends the workers. Test a new executor with
    `saccade.testing.ExecutorContract`. An executor that is registered by name (entry point group
    ``saccade.executors``) gets those arguments of `make_executor` that its constructor has a parameter for.
    """

    trainable: Trainable | None
    """What is trained; set it before the first job."""

    measures_speed: bool = False
    """Whether `WorkerJoined` has the speed of the worker's node, which then need not be that of this machine."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Executor:
        """Return this executor: workers cannot be copied, and clones of an estimator share them."""
        return self

    @property
    @abstractmethod
    def num_workers(self) -> int:
        """Number of jobs that can run at once."""

    @property
    @abstractmethod
    def num_free(self) -> int:
        """Number of jobs that may be submitted now."""

    @property
    def next_node(self) -> str:
        """Name of the cluster's node that the next job is sent to; "" on this machine."""
        return ""

    @property
    def num_ready(self) -> int:
        """Workers that can begin a job at once; by default all."""
        return self.num_workers

    def wait_for_start(self, timeout_s: float | None = None) -> bool:  # noqa: ARG002
        """Wait until `num_ready` grows no more by itself; return False at the timeout in seconds."""
        return True

    def describe(self) -> str:
        """Return where jobs run, such as ``"in 2 worker processes"``."""
        return f"in {count_of(self.num_workers, 'worker process', 'worker processes')}"

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Accept a job; its configuration may be changed by the trainable."""

    @abstractmethod
    def run(self, handle: Handler, timeout_s: float = math.inf) -> None:
        """Work until no job is left or until the timeout, and pass each event to the handler.

        Jobs keep running after a timeout; call `run` again to receive their events. An executor that runs jobs in the
        calling thread cannot return before they end. An exception of the handler is not a failure of a trial: it ends
        the run and is raised.
        """

    def cancel(self, trial: int, reason: str = "cancelled") -> bool:  # noqa: ARG002
        """End the job of a trial, if necessary by killing its worker.

        The next `run` passes ``JobDone(trial, "stopped", reason)`` to the handler, and no other event of that job.
        Return False if the job is unknown or cannot be ended, as by default; it then continues.
        """
        return False

    def is_stalled(self, trial: int) -> bool:  # noqa: ARG002
        """Return whether the job of a trial makes no progress at all; False by default and if that is not known."""
        return False

    def run_within_limits(self, handle: Handler, seconds_left: Callable[[], Mapping[int, float]]) -> None:
        """Work until no job is left; cancel jobs that have not ended when their time is up.

        `seconds_left` returns the seconds after which jobs are cancelled, by trial; inf is never. A job that cannot be
        cancelled is waited for.
        """
        overdue: set[int] = set()
        while True:
            left = seconds_left()
            for trial in [trial for trial, seconds in left.items() if seconds <= 0 and trial not in overdue]:
                overdue.add(trial)
                self.cancel(trial, TIME_LIMIT)
            overdue &= left.keys()
            next_s = min((seconds for trial, seconds in left.items() if trial not in overdue), default=math.inf)
            # Jobs that are submitted meanwhile may have less time, and workers may hang. Without a worker, the caller
            # decides for how long to wait for one.
            is_limited = overdue or next_s < math.inf or not self.num_workers
            self.run(handle, min(next_s, TICK_S if is_limited else math.inf))
            if self.num_free >= self.num_workers:
                return

    def close(self) -> None:  # noqa: B027 (an executor without workers of its own has nothing to end)
        """End the workers, whatever they are doing; the next job starts new ones."""

    @contextlib.contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        """End the workers if the block raises: they are in the middle of their jobs."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class JobTimeout(BaseException):
    """Raised in the middle of a job when its time is up."""


class Alarm:
    """A context manager that raises `JobTimeout` in its block once `seconds` have passed.

    Only the main thread of a POSIX system can be interrupted, between two instructions of Python or in a system call;
    elsewhere an alarm does nothing. It uses SIGVTALRM, which programs hardly use, and leaves their timers as they are.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_held = self._is_due = False
        self._is_over = threading.Event()
        self._before: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        is_main = threading.current_thread() is threading.main_thread()
        if self._seconds < math.inf and is_main and hasattr(signal, "pthread_kill"):
            self._before = signal.signal(signal.SIGVTALRM, self._ring)
            self._thread = threading.Thread(target=self._wait, args=(threading.get_ident(),), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_held = True
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
            signal.signal(signal.SIGVTALRM, self._before)

    def not_within(self, function: Callable[[P], R]) -> Callable[[P], R]:
        """Return the function; an alarm during a call raises after its end."""

        def call(argument: P) -> R:
            self._is_held = True
            try:
                returned = function(argument)
            finally:
                self._is_held = False
            if self._is_due:
                raise JobTimeout
            return returned

        return call

    def _wait(self, main: int) -> None:
        wait_s = max(0.0, self._seconds)
        while not self._is_over.wait(min(wait_s, threading.TIMEOUT_MAX)):
            signal.pthread_kill(main, signal.SIGVTALRM)
            wait_s = REPEAT_S

    def _ring(self, *signal_and_frame: object) -> None:  # noqa: ARG002
        self._is_due = True
        if not self._is_held:
            raise JobTimeout


class InlineExecutor(Executor):
    """Runs jobs in the calling thread, one at a time, without worker processes.

    `run_within_limits` ends a job whose time is up by a `JobTimeout`, between two instructions of Python or while it
    waits for the system, if it runs in the main thread of a POSIX system. Elsewhere, or in a library that does not
    return, a job that hangs cannot be ended. A crash of the trained function ends the process.

    Examples
    --------
    >>> from saccade.study.function import FunctionTrainable
    >>> executor = InlineExecutor(FunctionTrainable(lambda config, report: report(score=config["x"])))
    >>> executor.submit(Job(trial=0, config={"x": 0.5}))
    >>> events = []
    >>> executor.run(lambda event: events.append(event) or Decision.CONTINUE)
    >>> events[0].score, events[1].status
    (0.5, 'completed')
    """

    def __init__(self, trainable: Trainable | None = None) -> None:
        self.trainable = trainable
        self._job: Job | None = None

    @property
    def num_workers(self) -> int:
        """One."""
        return 1

    def describe(self) -> str:
        """Return where jobs run."""
        return "in this process"

    @property
    def num_free(self) -> int:
        """One, unless a job waits or runs."""
        return 0 if self._job else 1

    def submit(self, job: Job) -> None:
        """Keep the job for `run`."""
        assert self._job is None, "the worker already has a job; see num_free"
        self._job = job

    def run(self, handle: Handler, timeout_s: float = math.inf) -> None:  # noqa: ARG002
        """Run the job, and those that the handler submits; the timeout has no effect."""
        self.run_within_limits(handle, dict)

    def run_within_limits(self, handle: Handler, seconds_left: Callable[[], Mapping[int, float]]) -> None:
        """Run the job, and those that the handler submits; interrupt them when their time is up."""
        while (job := self._job) is not None:
            assert self.trainable is not None, "set the executor's trainable before the first job"
            end: JobDone | JobFailed
            try:
                with Alarm(seconds_left().get(job.trial, math.inf)) as alarm:
                    end = run_job(self.trainable, job, alarm.not_within(handle))
            except JobTimeout:
                end = JobDone(job.trial, "stopped", TIME_LIMIT)
            finally:
                self._job = None
            handle(end)


def run_job(trainable: Trainable, job: Job, report: Reporter) -> JobDone | JobFailed:
    """Run one job to its end; an exception of the trainable becomes a failed job with its traceback.

    An exception of `report` is not the fault of the trainable. It is raised, even if the trainable suppresses it.
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
    """Return the failure of a trial that raised this error; a WorkerDiedError is the loss of a worker of its own."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    is_lost = isinstance(error, WorkerDiedError)
    return JobFailed(trial, reason_of(error), text, is_worker_lost=is_lost, is_disk_full=is_disk_full(error))


def reason_of(error: BaseException) -> str:
    """Return the type and message of an error in one line."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text}" if text else name
