"""The worker's side of `ProcessExecutor`: takes one job after the other until its parent goes away."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, BinaryIO

from saccade.events import EpochDone, JobDone, JobFailed
from saccade.executor.base import failed, run_job
from saccade.study.trial import Decision, Job, Trainable

PROGRAM = """\
import sys
sys.path[:] = {path!a}
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from saccade.executor.worker import main
main({preload!a})
"""
"""What a worker's interpreter runs.

It finds modules where its parent does, the folder of the user's script included, and nowhere else: not in the working
folder, where ``python -m`` would look first. Ctrl-C reaches the whole process group; the parent decides what becomes of
its worker.
"""


@dataclass(frozen=True)
class Ready:
    """What a worker says first: it has imported what it was to import, or has failed to, and waits for jobs.

    Attributes
    ----------
    import_s : float
        Seconds that those imports took.
    """

    import_s: float


@dataclass(frozen=True)
class Request:
    """A job on its way to the worker, its parts pickled, so that what cannot be unpickled fails one job only.

    Attributes
    ----------
    trial : int
        The trial's number.
    job : bytes
        The pickled job.
    trainable : bytes or None
        The pickled trainable; None stands for the one sent before.
    sent_s : float
        When it was sent, on the monotonic clock, which all processes of a machine share.
    """

    trial: int
    job: bytes
    trainable: bytes | None
    sent_s: float


def main(preload: Iterable[str] = ()) -> None:
    """Import modules, then serve jobs until the parent ends this process or goes away itself."""
    inbox, outbox = _take_channel()
    messages: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_receive, args=(inbox, messages), daemon=True).start()
    worker = _Worker(messages, outbox)
    start_s = time.perf_counter()
    worker.preload(preload)
    _send(outbox, Ready(time.perf_counter() - start_s))
    while True:
        _send(outbox, worker.do(messages.get()))


class _Worker:
    def __init__(self, messages: SimpleQueue[Any], outbox: BinaryIO) -> None:
        self._messages, self._outbox = messages, outbox
        self._pickled = b""
        self._trainable: Trainable | None = None
        self._preload_error: BaseException | None = None

    def preload(self, modules: Iterable[str]) -> None:
        """Import modules; what that raises is kept for the jobs, since nobody listens before."""
        try:
            for module in modules:
                importlib.import_module(module)
        except BaseException as error:
            self._preload_error = error

    def do(self, request: Request) -> JobDone | JobFailed:
        try:
            if self._preload_error is not None:
                raise self._preload_error
            if request.trainable is not None:
                self._pickled, self._trainable = request.trainable, None
            if self._trainable is None:
                self._trainable = pickle.loads(self._pickled)  # noqa: S301  written by our own parent
            job: Job = pickle.loads(request.job)  # noqa: S301  written by our own parent
            waited_s = time.monotonic() - request.sent_s
            return run_job(self._trainable, replace(job, seconds_left=job.seconds_left - waited_s), self._report)
        except BaseException as error:  # no Ctrl-C comes here; see `PROGRAM`
            return failed(request.trial, error)

    def _report(self, event: EpochDone) -> Decision:
        _send(self._outbox, event)
        decision = self._messages.get()
        assert isinstance(decision, Decision)
        return decision


def _receive(inbox: BinaryIO, messages: SimpleQueue[Any]) -> None:
    """Pass on what comes; without a parent end at once, even in the middle of an epoch."""
    try:
        while True:
            messages.put(pickle.load(inbox))  # noqa: S301  written by our own parent
    finally:
        os._exit(1)


def _send(outbox: BinaryIO, message: object) -> None:
    outbox.write(pickle.dumps(message))  # in one piece: half a pickle would garble all that follow
    outbox.flush()


def _take_channel() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes from and to the parent for messages.

    For everyone else standard input is empty, and what is printed goes to standard error, whoever prints it: Python,
    a library in C, or another process.
    """
    inbox = os.fdopen(os.dup(0), "rb")
    outbox = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return inbox, outbox
