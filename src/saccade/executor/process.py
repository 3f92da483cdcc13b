"""Jobs in a process of their own: a crash there costs one job, not the run."""

from __future__ import annotations

import contextlib
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import cloudpickle

from saccade.errors import WorkerDiedError
from saccade.events import EpochDone, Event, JobDone, JobFailed
from saccade.executor.base import Handler, OneWorkerExecutor, failed, reason_of
from saccade.executor.worker import PROGRAM, Request
from saccade.trial import Job, Trainable

_WAKE_UP_S = 0.5
"""How long the wait for a message goes on without a look at the worker, and, on Windows, at Ctrl-C."""

_DEATH_S = 10.0
"""How long a worker that has closed its channel may take to end."""


class ProcessExecutor(OneWorkerExecutor):
    """One warm worker process that imports its libraries once and lives through many jobs.

    The process is a fresh interpreter on every platform: the user's main script is not imported again, so scripts need
    no ``if __name__ == "__main__"``. It is started when the object is made, so that it can import while the caller
    still prepares, and replaced when it dies. It ends with the executor, and with the process that made it, however
    that ends.

    Parameters
    ----------
    trainable : Trainable or None
        What is trained; may be set later, before the first job. It is sent to the worker by cloudpickle.
    preload : tuple of str
        Modules that the worker imports at once. When that fails, so does every job, with that reason.
    """

    def __init__(self, trainable: Trainable | None = None, preload: tuple[str, ...] = ()) -> None:
        super().__init__(trainable)
        self._preload = preload
        self._worker: _Worker | None = _Worker(preload)

    def close(self) -> None:
        """End the worker at once."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _do(self, trainable: Trainable, job: Job, handle: Handler) -> JobDone | JobFailed:
        try:
            return self._converse(trainable, job, handle)
        except WorkerDiedError as error:
            self.close()
            return JobFailed(job.trial, reason_of(error))
        except BaseException:  # of the handler, or Ctrl-C; the worker is in the middle of the job
            self.close()
            raise

    def _converse(self, trainable: Trainable, job: Job, handle: Handler) -> JobDone | JobFailed:
        sent_s = time.monotonic()
        worker = self._live_worker()
        try:
            pickled = None if worker.trainable is trainable else cloudpickle.dumps(trainable)
            request = Request(job.trial, cloudpickle.dumps(job), pickled, sent_s)
        except Exception as error:
            return failed(job.trial, error)
        worker.send(request)
        worker.trainable = trainable
        while not isinstance(event := worker.receive(), JobDone | JobFailed):
            decision = handle(event)
            if isinstance(event, EpochDone):
                worker.send(decision)
        return event

    def _live_worker(self) -> _Worker:
        if self._worker is not None and not self._worker.is_alive:
            self.close()
        if self._worker is None:
            self._worker = _Worker(self._preload)
        return self._worker


class _Worker:
    """A worker process, and pickles to and from it through its standard input and output."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        self.trainable: Trainable | None = None
        path = [folder for folder in sys.path if isinstance(folder, str)]
        program = PROGRAM.format(path=path, preload=preload)
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if sys.__stderr__ is None else None,
        )
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, message: object) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
        except OSError as error:
            raise self._death() from error

    def receive(self) -> Event:
        """Wait for the next event.

        A thread reads it, so that the wait has pauses: Ctrl-C cannot interrupt a wait for a pipe on Windows, and no
        pipe tells of a worker's death while a process that the worker had forked still holds it open.
        """
        was_alive = True
        while True:
            try:
                event = self._messages.get(timeout=_WAKE_UP_S)
            except queue.Empty:
                if not was_alive:
                    raise self._death() from None
                was_alive = self.is_alive
                continue
            if isinstance(event, Exception):
                raise self._death() from event
            assert isinstance(event, Event)
            return event

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # what was still to be flushed to a dead process
            self._process.stdin.close()
        self._reader.join(_WAKE_UP_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as outlet:
            try:
                while True:
                    self._messages.put(pickle.load(outlet))  # noqa: S301  written by our own worker
            except Exception as error:  # the end of the pipe, as a rule
                self._messages.put(error)

    def _death(self) -> WorkerDiedError:
        try:
            code = self._process.wait(_DEATH_S)
        except subprocess.TimeoutExpired:
            return WorkerDiedError("the worker process closed its channel, or sent what cannot be read")
        return WorkerDiedError(f"the worker process {ending(code)}")


def ending(code: int) -> str:
    """Say how a process ended that has this exit code.

    Examples
    --------
    >>> ending(3)
    'ended with exit code 3'
    >>> ending(0xC0000005)
    'ended with exit code 3221225477 (0xC0000005)'
    """
    if code >= 0:
        return f"ended with exit code {code}" + (f" (0x{code:08X})" if code > 255 else "")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    hint = " (the system ends processes this way when memory runs out)" if name == "SIGKILL" else ""
    return f"was killed by signal {name}{hint}"
