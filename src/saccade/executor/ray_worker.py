"""The worker's side of `RayExecutor`: an actor with a worker process."""

from __future__ import annotations

import os
import platform
import queue
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saccade import __version__
from saccade.errors import WorkerDiedError
from saccade.events import Event, JobDone, JobFailed
from saccade.executor.base import reason_of
from saccade.executor.process import WorkerProcess
from saccade.executor.ray_files import remove_copies
from saccade.executor.slots import WorkerSlot
from saccade.executor.worker import Request


@dataclass(frozen=True)
class Hello:
    """What a worker says of itself when it is ready for jobs."""

    host: str
    node_id: str
    pid: int  # of the worker process
    versions: Mapping[str, str]
    speed: float | None = None  # relative to other nodes; None if it was not measured


class RayWorker:
    """A Ray actor that runs jobs in a worker process, as `ProcessExecutor` does on one machine.

    The process has the main thread and all of Python's lock to itself. If it crashes, the actor stays and starts
    another one, so the study distinguishes a trial that crashes from a node that is lost.
    """

    def __init__(self, preload: tuple[str, ...], slot: WorkerSlot, folder: str | None) -> None:
        import ray

        context = ray.get_runtime_context()
        self._node_id = context.get_node_id()
        os.environ["RAY_ADDRESS"] = context.gcs_address  # for trials that use the cluster themselves
        # The program's working folder, where the node has it and the runtime environment sets no other.
        has_own = bool(context.runtime_env.get("working_dir"))
        self._folder = folder if folder is not None and not has_own and Path(folder).is_dir() else None
        self._preload, self._slot = preload, slot
        self._messages: queue.SimpleQueue[tuple[WorkerProcess, Event | WorkerDiedError]] = queue.SimpleQueue()
        self._starting = threading.Lock()  # held while a job is given to a process, or a process is ended
        self._job = self._num_ended = 0  # number of the last job; jobs up to the second number are not to be run
        self._is_open = False  # whether the last job has not ended
        self._trial = -1
        self._trainable = b""  # pickled
        self._has_trainable = False  # whether the process has got it
        self._process = self._start()

    def hello(self) -> Hello:
        """Wait until the process has done its imports."""
        self._process.ready_or_dead.wait()
        versions = {"Saccade": __version__, "Python": platform.python_version()}
        return Hello(socket.gethostname(), self._node_id, self._process.pid, versions, self._process.speed)

    def step(self, job: int, message: Any, trainable: bytes | None = None) -> Event | Any:
        """Send a job of this number, or the answer to its last message, to the process; return its next message.

        `trainable` is the pickle of another one than before.
        """
        if trainable is not None:
            self._trainable, self._has_trainable = trainable, False
        with self._starting:
            if job <= self._num_ended:
                return None
            if isinstance(message, Request):
                if self._is_open or not self._process.is_alive:  # open: the call that ends it has not arrived yet
                    self._process.kill()
                    self._process.reap()
                    self._process = self._start()
                self._trial, pickled = message.trial, None if self._has_trainable else self._trainable
                message = replace(message, trainable=pickled, sent_s=time.monotonic())  # clocks of machines differ
                self._has_trainable = self._is_open = True
                self._job = job
            process = self._process
            process.send(message)
        while True:
            sender, received = self._messages.get()
            if sender is not process:
                continue
            self._is_open = not isinstance(received, JobDone | JobFailed | WorkerDiedError)
            if isinstance(received, WorkerDiedError):
                return JobFailed(self._trial, reason_of(received), is_worker_lost=True)
            return received

    def beat(self) -> float:
        """Return the seconds for which the process has used no processor time; the call itself is the heartbeat."""
        return self._process.idle_s

    def end_job(self, job: int) -> None:
        """End the job of this number, and all before, by killing the process; `step` then returns that it has died."""
        with self._starting:
            self._num_ended = max(self._num_ended, job)
            if self._job <= job:
                self._process.kill()

    def remove_copies(self, session: str) -> None:
        """Remove the copies of files that this node has got."""
        remove_copies(session)

    def _start(self) -> WorkerProcess:
        self._has_trainable = False
        return WorkerProcess(self._preload, self._slot, self._messages, self._folder)
