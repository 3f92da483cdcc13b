"""The worker's side of `ProcessExecutor`: runs jobs until its parent exits."""

from __future__ import annotations

import contextlib
import gc
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

from saccade.events import JobDone, JobFailed
from saccade.executor.base import failed, run_job
from saccade.executor.ray_files import NodeFiles, NodeFilesError, loads
from saccade.study.trial import Job, Trainable

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
folder, where ``python -m`` would look first. Ctrl-C reaches the whole process group; only the parent reacts to it.
"""


HEARTBEAT_S = 1.0
"""Seconds between two heartbeats of a worker."""


class Heartbeat:
    """Sent by a thread of the worker, whatever its jobs do, as long as the process runs."""


@dataclass(frozen=True)
class Ready:
    """A worker's first message: its imports are done or have failed, and it waits for jobs."""

    speed: float | None = None  # of the machine, where a function to measure it is preloaded


@dataclass(frozen=True)
class Request:
    """A job on its way to the worker; its parts are pickled, so that unpickling errors fail one job only."""

    trial: int
    job: bytes
    trainable: bytes | None  # None stands for the one sent before
    sent_s: float  # on the monotonic clock, which all processes of a machine share
    files: tuple[str, ...] = ()  # keys of `SharedFiles`, for files that this machine may not have


_SENDING = threading.Lock()
_ASKING = threading.Lock()
_channel: tuple[BinaryIO, SimpleQueue[Any]]
"""Set by `main`: to the parent, and from it."""


def ask(message: object) -> Any:
    """Send a message of a job to the parent of this worker, and return its answer; raise it if it is an error."""
    outbox, inbox = _channel
    with _ASKING:
        _send(outbox, message)
        answer = inbox.get()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def main(preload: Iterable[str] = ()) -> None:
    """Import modules, then run jobs until the parent ends this process or exits itself.

    An entry ``"module:function"`` is a function that returns the speed of this machine, relative to any other one.
    """
    global _channel
    # Reserve the pipes from and to the parent for messages. For everything else standard input is empty and standard
    # output goes to standard error, whether Python, a C library or a child process writes it.
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    messages: SimpleQueue[Any] = SimpleQueue()
    _channel = outbox, messages
    threading.Thread(target=_receive, args=(inbox, messages), daemon=True).start()
    threading.Thread(target=_beat, args=(outbox,), daemon=True).start()
    preload_error: BaseException | None = None
    speed: float | None = None
    gc.disable()  # to look for garbage among modules, which stay, takes a fifth of the time of their import
    try:
        for name in preload:
            module, _, function = name.partition(":")
            imported = importlib.import_module(module)
            if function:
                speed = float(getattr(imported, function)())
    except BaseException as error:  # reported as the failure of each job
        preload_error = error
    gc.enable()
    _send(outbox, Ready(speed))

    pickled, trainable, node_files = b"", None, NodeFiles(ask)
    while True:
        request: Request = messages.get()
        end: JobDone | JobFailed
        try:
            if preload_error is not None:
                raise preload_error
            if request.trainable is not None:
                pickled, trainable = request.trainable, None
            paths = node_files.paths(request.files)
            if trainable is None:  # a new one, or one whose unpickling failed before
                loaded: Trainable = loads(pickled, paths)
                trainable = loaded
            job: Job = loads(request.job, paths)
            waited_s = time.monotonic() - request.sent_s
            end = run_job(trainable, replace(job, seconds_left=job.seconds_left - waited_s), ask)
        except NodeFilesError as error:
            end = JobFailed(request.trial, str(error), is_worker_lost=True, is_node_lost=True)
        except BaseException as error:  # Ctrl-C is ignored here; see `PROGRAM`
            end = failed(request.trial, error)
        _send(outbox, end)


def _receive(inbox: BinaryIO, messages: SimpleQueue[Any]) -> None:
    """Put messages into the queue; exit when the parent is gone, even in the middle of an epoch."""
    try:
        while True:
            messages.put(pickle.load(inbox))  # noqa: S301  written by our own parent
    finally:
        os._exit(1)


def _beat(outbox: BinaryIO) -> None:
    with contextlib.suppress(OSError, ValueError):  # the channel is closed; `_receive` ends this process
        while True:
            _send(outbox, Heartbeat())
            time.sleep(HEARTBEAT_S)


def _send(outbox: BinaryIO, message: object) -> None:
    pickled = pickle.dumps(message)  # as a whole first: half a pickle would garble all that follow
    with _SENDING:
        outbox.write(pickled)
        outbox.flush()
