"""Jobs in processes of their own: a crash there costs one job, not the run."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import cloudpickle

from saccade.errors import HyperparameterError, WorkerDiedError
from saccade.events import EpochDone, Event, JobDone, JobFailed
from saccade.executor.base import Executor, Handler, failed, reason_of
from saccade.executor.slots import WorkerSlot
from saccade.executor.worker import Request
from saccade.executor.worker_process import Startup, WorkerProcess
from saccade.study.trial import Job, Trainable

if TYPE_CHECKING:
    from saccade.executor.worker_process import Messages

_WAKE_UP_S = 0.5
"""How long a wait for messages is deaf to Ctrl-C on Windows."""


class ProcessExecutor(Executor):
    """Warm worker processes that import their libraries once and live through many jobs.

    Each is a fresh interpreter on every platform: the user's main script is not imported again, so scripts need
    no ``if __name__ == "__main__"``. All are started when the object is made, so that they can import while the caller
    still prepares. One that dies fails its job and is replaced when its place is needed; the others do not notice.
    They end with the executor, and with the process that made it, however that ends.

    Parameters
    ----------
    trainable : Trainable or None
        What is trained; may be set later, before the first job. It is pickled once, by cloudpickle, and sent to each
        worker once.
    preload : sequence of str
        Modules that the workers import at once. When that fails, so does every job, with that reason.
    workers : sequence of WorkerSlot
        A slot for each worker, as `plan_workers` returns; no more than there will be jobs. By default one worker that
        is given nothing in particular.

    Raises
    ------
    HyperparameterError
        Without a slot.
    """

    def __init__(
        self,
        trainable: Trainable | None = None,
        preload: Sequence[str] = (),
        workers: Sequence[WorkerSlot] = (WorkerSlot(),),
    ) -> None:
        self.trainable = trainable
        self._preload, self._slots = tuple(preload), tuple(workers)
        if not self._slots:
            raise HyperparameterError("workers was given no slots; expected one at least, as plan_workers() returns")
        self._messages: Messages = queue.SimpleQueue()
        self._pickled: tuple[Trainable, bytes] | None = None
        self._workers: list[WorkerProcess | None] = [None] * len(self._slots)
        with self._ending_all_on_error():
            for place in range(len(self._slots)):
                self._start(place)

    @property
    def num_workers(self) -> int:
        """One for each slot."""
        return len(self._slots)

    @property
    def num_free(self) -> int:
        """Workers without a job."""
        return len(self._free_places())

    @property
    def startup(self) -> Startup | None:
        """How long the slowest worker took to start; None while none is ready."""
        startups = [worker.startup for worker in self._workers if worker is not None and worker.startup is not None]
        return max(startups, key=lambda startup: startup.start_s, default=None)

    def wait_for_start(self, timeout_s: float | None = None) -> bool:
        """Wait until all workers are ready, or have died in trying, and tell whether that was in time.

        Parameters
        ----------
        timeout_s
            Seconds; None waits as long as it takes.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        return all(
            worker.wait_for_start(None if end_s is None else max(0.0, end_s - time.monotonic()))
            for worker in self._workers
            if worker is not None
        )

    def submit(self, job: Job) -> None:
        """Send the job to a free worker, a warm one where there is one. What cannot be sent is a failed job."""
        places = self._free_places()
        assert places, "every worker has a job; see num_free"
        assert self.trainable is not None, "set the executor's trainable before the first job"
        place = min(places, key=self._coldness)
        worker = self._workers[place]
        if worker is None or not worker.is_alive:
            worker = self._start(place)
        worker.job = job
        with self._ending_all_on_error():  # Ctrl-C may leave half a message with the worker
            self._send(worker, job, self.trainable)

    def run(self, handle: Handler) -> None:
        """Pass on what the workers say, one event after the other, until no job is left."""
        with self._ending_all_on_error():  # of the handler, or Ctrl-C; the workers are in the middle of their jobs
            while self.num_free < self.num_workers:
                self._pass_on(*self._receive(), handle)

    def close(self) -> None:
        """End the workers at once; their jobs are forgotten."""
        workers = [worker for worker in self._workers if worker is not None]
        for worker in workers:
            worker.kill()
        self._workers = [None] * len(self._slots)
        for worker in workers:
            worker.reap()

    def _pass_on(self, worker: WorkerProcess, message: Event | WorkerDiedError, handle: Handler) -> None:
        if worker not in self._workers:  # it was ended, and another has its place
            return
        if isinstance(message, WorkerDiedError):
            job = worker.job
            self._remove(worker)
            if job is not None:
                handle(JobFailed(job.trial, reason_of(message), is_worker_lost=True))
            return
        if isinstance(message, JobDone | JobFailed):
            worker.job = None
        decision = handle(message)
        if isinstance(message, EpochDone):
            worker.send(decision)

    def _receive(self) -> tuple[WorkerProcess, Event | WorkerDiedError]:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._messages.get(timeout=_WAKE_UP_S)

    def _send(self, worker: WorkerProcess, job: Job, trainable: Trainable) -> None:
        sent_s = time.monotonic()
        try:
            pickled = None if worker.trainable is trainable else self._pickle(trainable)
            request = Request(job.trial, cloudpickle.dumps(job), pickled, sent_s)
        except Exception as error:
            self._messages.put((worker, failed(job.trial, error)))
            return
        worker.send(request)
        worker.trainable = trainable

    def _pickle(self, trainable: Trainable) -> bytes:
        if self._pickled is None or self._pickled[0] is not trainable:
            self._pickled = trainable, cloudpickle.dumps(trainable)
        return self._pickled[1]

    def _free_places(self) -> list[int]:
        return [place for place, worker in enumerate(self._workers) if worker is None or worker.job is None]

    def _coldness(self, place: int) -> int:
        """Rank a place by what a job would have to wait for there: nothing, the rest of a start, a whole start."""
        worker = self._workers[place]
        if worker is None or not worker.is_alive:
            return 2
        return 0 if worker.startup else 1

    def _start(self, place: int) -> WorkerProcess:
        if (dead := self._workers[place]) is not None:
            self._remove(dead)
        worker = self._workers[place] = WorkerProcess(self._preload, self._slots[place], self._messages)
        return worker

    def _remove(self, worker: WorkerProcess) -> None:
        self._workers[self._workers.index(worker)] = None
        worker.kill()
        worker.reap()

    @contextlib.contextmanager
    def _ending_all_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise
