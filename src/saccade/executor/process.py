"""Jobs in a process of their own: a crash there costs one job, not the run."""

from __future__ import annotations

import contextlib
import pickle
import signal
import subprocess
import sys

import cloudpickle

from saccade.errors import WorkerDiedError
from saccade.events import EpochDone, Event, JobDone, JobFailed
from saccade.executor.base import Executor, Handler, reason_of
from saccade.trial import Job, Trainable


class ProcessExecutor(Executor):
    """One warm worker process that imports its libraries once and lives through many jobs.

    The process is a fresh interpreter that runs ``python -m saccade.executor.worker``, on every platform: the
    user's main script is not imported again, so scripts need no ``if __name__ == "__main__"``. It is started when the
    object is made, so that it can import while the caller still prepares, and replaced when it dies.

    Parameters
    ----------
    trainable : Trainable or None
        What is trained; may be set later, before the first job. It is sent to the worker by cloudpickle.
    preload : tuple of str
        Modules that the worker imports at once.
    """

    def __init__(self, trainable: Trainable | None = None, preload: tuple[str, ...] = ()) -> None:
        self.trainable = trainable
        self._preload = preload
        self._job: Job | None = None
        self._worker: _Worker | None = _Worker(preload)

    @property
    def num_workers(self) -> int:
        """One."""
        return 1

    @property
    def num_free(self) -> int:
        """One, unless a job is under way."""
        return 0 if self._job else 1

    def submit(self, job: Job) -> None:
        """Take up a job; `run` sends it."""
        self._job = job

    def run(self, handle: Handler) -> None:
        """Send jobs to the worker and pass its events on, until no job is left."""
        while self._job is not None:
            event: Event
            try:
                event = self._converse(self._job, handle)
            except WorkerDiedError as error:
                self.close()
                event = JobFailed(self._job.trial, reason_of(error))
            self._job = None
            handle(event)

    def close(self) -> None:
        """End the worker at once."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _converse(self, job: Job, handle: Handler) -> JobDone | JobFailed:
        if self._worker is None:
            self._worker = _Worker(self._preload)
        worker = self._worker
        if not worker.has_trainable:
            worker.send(("trainable", cloudpickle.dumps(self.trainable)))
            worker.has_trainable = True
        worker.send(("job", job))
        while True:
            event = worker.receive()
            if isinstance(event, JobDone | JobFailed):
                return event
            decision = handle(event)
            if isinstance(event, EpochDone):
                worker.send(decision)


class _Worker:
    """A worker process, and pickles to and from it through its standard input and output."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        self.has_trainable = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "saccade.executor.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        # The worker finds modules where its parent does, the folder of the user's script included.
        self.send(("start", list(sys.path), preload))

    def send(self, message: object) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
        except OSError as error:
            raise self._death() from error

    def receive(self) -> Event:
        assert self._process.stdout is not None
        try:
            event = pickle.load(self._process.stdout)  # noqa: S301  written by our own worker
        except (EOFError, pickle.UnpicklingError) as error:
            raise self._death() from error
        assert isinstance(event, Event)
        return event

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what was still to be flushed to a dead process
                pipe.close()

    def _death(self) -> WorkerDiedError:
        code = self._process.wait()
        if code < 0:
            hint = (
                " (the system ends processes this way when memory runs out)"
                if code == -signal.SIGKILL
                else ""
            )
            return WorkerDiedError(f"the worker process was killed by signal {-code}{hint}")
        return WorkerDiedError(f"the worker process ended with exit code {code}")
