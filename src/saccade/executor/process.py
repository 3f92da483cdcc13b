"""Jobs in worker processes: a crash of a worker costs one job, not the run."""

from __future__ import annotations

import contextlib
import math
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle

from saccade.errors import HyperparameterError, WorkerDiedError
from saccade.events import EpochDone, Event, JobDone, JobFailed
from saccade.executor.base import Executor, Handler, failed, reason_of
from saccade.executor.slots import WorkerSlot
from saccade.executor.worker import HEARTBEAT_S, PROGRAM, Heartbeat, Ready, Request
from saccade.study.trial import Job, Trainable

if TYPE_CHECKING:
    Messages = queue.SimpleQueue[tuple["WorkerProcess", Event | WorkerDiedError]]

_WAKE_UP_S = 0.5  # longest wait for messages in one call; on Windows, Ctrl-C is only noticed between such calls

SILENCE_S = 5.0
"""A worker that has sent no heartbeat and used no processor time for so long is stopped or hangs; it is killed.

Code that holds Python's lock sends no heartbeats either, but uses the processor.
"""

UNKNOWN_FACTOR = 20  # times as long where processor time is not known, on systems without ``/proc``

STALL_S = 2.0  # a worker that has used no processor time for so long is stalled, even if it sends heartbeats
_EXIT_S = 10.0  # time that a worker has to exit after it closed its channel
_GARBLED_S = 1.0  # the same after an unreadable message, which is usually half a message of a worker that died

# Time for reading the last messages of a dead worker; a process that it forked may hold its channel open for ever.
_DRAIN_S = 0.5


class ProcessExecutor(Executor):
    """Warm worker processes that import their libraries once and run many jobs.

    Each is a fresh interpreter on every platform: the user's main script is not imported again, so scripts need
    no ``if __name__ == "__main__"``. The constructor starts all of them, so that they import while the caller
    prepares. A worker that dies fails its job and is replaced when its slot is needed; the others continue. A worker
    that stops sending heartbeats is killed (`SILENCE_S`).
    The workers end with the executor, and with the process that created it, even if that is killed.

    Parameters
    ----------
    trainable : Trainable or None
        What is trained; may be set later, before the first job. It is pickled once, by cloudpickle, and sent to each
        worker once.
    preload : sequence of str
        Modules that the workers import at their start. If an import fails, every job fails with that error.
    workers : sequence of WorkerSlot
        A slot for each worker, at least one, as `plan_workers` returns; no more than there will be jobs. By default one
        worker with default resources.
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
            raise HyperparameterError("workers is empty; pass at least one slot, as plan_workers() returns")
        self._messages: Messages = queue.SimpleQueue()
        self._cancelled: list[JobDone] = []
        self._pickled: tuple[Trainable, bytes] | None = None
        self._workers: list[WorkerProcess | None] = [None] * len(self._slots)
        with self._closing_on_error():
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
    def num_ready(self) -> int:
        """Workers that have started and finished their imports."""
        return sum(worker is not None and worker.is_ready for worker in self._workers)

    def wait_for_start(self, timeout_s: float | None = None) -> bool:
        """Wait until all workers are ready or dead; return whether that happened before the timeout in seconds."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        return all(
            worker.ready_or_dead.wait(None if end_s is None else max(0.0, end_s - time.monotonic()))
            for worker in self._workers
            if worker is not None
        )

    def submit(self, job: Job) -> None:
        """Send the job to a free worker, preferably a warm one. A job that cannot be pickled fails."""
        places = self._free_places()
        assert places, "every worker has a job; see num_free"
        assert self.trainable is not None, "set the executor's trainable before the first job"
        alive = [worker for place in places if (worker := self._workers[place]) is not None and worker.is_alive]
        worker = next((each for each in alive if each.is_ready), alive[0] if alive else None)
        if worker is None:
            worker = self._start(places[0])
        worker.job = job
        with self._closing_on_error():  # Ctrl-C may interrupt a message halfway
            sent_s = time.monotonic()
            try:
                pickled = None
                if worker.trainable is not self.trainable:
                    if self._pickled is None or self._pickled[0] is not self.trainable:
                        self._pickled = self.trainable, cloudpickle.dumps(self.trainable)
                    pickled = self._pickled[1]
                request = Request(job.trial, cloudpickle.dumps(job), pickled, sent_s)
            except Exception as error:
                self._messages.put((worker, failed(job.trial, error)))
                return
            worker.send(request)
            worker.trainable = self.trainable

    def run(self, handle: Handler, timeout_s: float = math.inf) -> None:
        """Pass the workers' messages to the handler, until no job is left or until the timeout."""
        end_s = time.monotonic() + timeout_s
        with self._closing_on_error():  # of the handler, or Ctrl-C; the workers are in the middle of their jobs
            while self._cancelled or self.num_free < self.num_workers:
                if self._cancelled:
                    handle(self._cancelled.pop(0))
                    continue
                try:
                    worker, message = self._messages.get(timeout=min(_WAKE_UP_S, max(0.0, end_s - time.monotonic())))
                except queue.Empty:
                    if time.monotonic() >= end_s:
                        return
                    continue
                if worker not in self._workers:  # it was ended, and another one has its slot
                    continue
                if isinstance(message, WorkerDiedError):
                    job = worker.job
                    self._remove(worker)
                    if job is not None:
                        handle(JobFailed(job.trial, reason_of(message), is_worker_lost=True))
                    continue
                if isinstance(message, JobDone | JobFailed):
                    worker.job = None
                decision = handle(message)
                if isinstance(message, EpochDone):
                    worker.send(decision)

    def cancel(self, trial: int, reason: str = "cancelled") -> bool:
        """Kill the worker that runs the job."""
        for worker in self._workers:
            if worker is not None and worker.job is not None and worker.job.trial == trial:
                self._remove(worker)
                self._cancelled.append(JobDone(trial, "stopped", reason))
                return True
        return False

    def is_stalled(self, trial: int) -> bool:
        """Return whether the worker of the job has used no processor time for `STALL_S`; False if that is not known."""
        jobs = {worker.job.trial: worker for worker in self._workers if worker is not None and worker.job is not None}
        return trial in jobs and jobs[trial].idle_s >= STALL_S

    def close(self) -> None:
        """Kill the workers; their jobs send no further events."""
        workers = [worker for worker in self._workers if worker is not None]
        for worker in workers:
            worker.kill()
        self._workers = [None] * len(self._slots)
        self._cancelled.clear()
        for worker in workers:
            worker.reap()

    def _free_places(self) -> list[int]:
        return [place for place, worker in enumerate(self._workers) if worker is None or worker.job is None]

    def _start(self, place: int) -> WorkerProcess:
        if (dead := self._workers[place]) is not None:
            self._remove(dead)
        worker = self._workers[place] = WorkerProcess(self._preload, self._slots[place], self._messages)
        return worker

    def _remove(self, worker: WorkerProcess) -> None:
        self._workers[self._workers.index(worker)] = None
        worker.kill()
        worker.reap()


class WorkerProcess:
    """The parent's side of one worker: its process, and pickles to and from it through its standard input and output.

    One thread reads its messages; another one waits for its exit, and kills it if its heartbeats stop.
    `messages` receives its events, and finally a `WorkerDiedError`, each together with this object.
    """

    def __init__(
        self, preload: tuple[str, ...], slot: WorkerSlot, messages: Messages, folder: str | None = None
    ) -> None:
        self.job: Job | None = None
        self.trainable: Trainable | None = None  # that was sent last
        self.is_ready = False  # whether it has finished its imports
        self.speed: float | None = None  # of its machine, if it has measured that
        self.idle_s = 0.0  # without processor time; 0 if that is not known
        self.ready_or_dead = threading.Event()
        self._messages = messages
        self._why_killed = ""
        self._has_beaten = False
        path = [folder for folder in sys.path if isinstance(folder, str)]
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", PROGRAM.format(path=path, preload=preload)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if sys.__stderr__ is None else None,
            env=slot.environment(),
            cwd=folder,
        )
        self._reader, self._watcher = (
            threading.Thread(target=target, daemon=True) for target in (self._read, self._watch)
        )
        self._reader.start()
        self._watcher.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def send(self, message: object) -> None:
        """Send a message; an error is ignored, since the death of the worker is reported anyway."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()

    def kill(self) -> None:
        """Kill the process. To end many quickly, kill all before the first `reap`."""
        self._process.kill()

    def reap(self) -> None:
        """Wait for the exit of the killed process, and release its pipes and threads."""
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # unsent bytes to a dead process
            self._process.stdin.close()
        self._watcher.join()
        self._reader.join(_DRAIN_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as outlet:
            try:
                while True:
                    message = pickle.load(outlet)  # noqa: S301  written by our own worker
                    if isinstance(message, Heartbeat):
                        self._has_beaten = True
                    elif isinstance(message, Ready):
                        self.is_ready, self.speed = True, message.speed
                        self.ready_or_dead.set()
                    else:
                        self._messages.put((self, message))
            except Exception as error:  # usually the end of the pipe
                if self._exit_code(_EXIT_S if isinstance(error, EOFError | OSError) else _GARBLED_S) is None:
                    self._why_killed = "closed its channel or sent an unreadable message"
                    self._process.kill()

    def _watch(self) -> None:
        """Wait for the exit of the process, and report it; kill a process whose heartbeats stop."""
        # Ticks are counted, not seconds: while this process is stopped as well, as by Ctrl-Z, none pass.
        num_silent, before = 0, None
        while (code := self._exit_code(HEARTBEAT_S)) is None:
            used = processor_time(self._process.pid)
            is_idle = used == before
            self.idle_s = self.idle_s + HEARTBEAT_S if is_idle and used is not None else 0.0
            num_silent = num_silent + 1 if is_idle and not self._has_beaten else 0
            self._has_beaten, before = False, used
            silent_s = num_silent * HEARTBEAT_S
            if silent_s >= SILENCE_S * (UNKNOWN_FACTOR if used is None else 1):
                self._why_killed = f"was stopped or hung: no sign of life for {silent_s:.0f} s"
                self._process.kill()
        self._reader.join(_DRAIN_S)
        how = self._why_killed or exit_text(code)
        self._messages.put((self, WorkerDiedError(f"the worker process {how}")))
        self.ready_or_dead.set()

    def _exit_code(self, timeout_s: float) -> int | None:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None


def processor_time(pid: int) -> tuple[str, ...] | None:
    """Return the processor time of a process in the system's ticks, for comparison; None if it is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:  # not Linux, or the process has ended
        return None
    return tuple(fields[11:13])


def exit_text(code: int) -> str:
    """Describe an exit code; a negative one is the number of a signal."""
    if code >= 0:
        return f"ended with exit code {code}" + (f" (0x{code:08X})" if code > 255 else "")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    hint = " (the system ends processes this way when memory runs out)" if name == "SIGKILL" else ""
    return f"was killed by signal {name}{hint}"
