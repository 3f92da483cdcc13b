"""The parent's side of one worker process: its start, its messages, its end."""

from __future__ import annotations

import contextlib
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from saccade.errors import WorkerDiedError
from saccade.events import Event
from saccade.executor.slots import WorkerSlot
from saccade.executor.worker import PROGRAM, Ready
from saccade.study.trial import Job, Trainable

if TYPE_CHECKING:
    Messages = SimpleQueue[tuple["WorkerProcess", Event | WorkerDiedError]]

_END_S = 10.0
"""How long a worker that has closed its channel may take to end."""

_GARBLED_S = 1.0
"""The same for one that sent what cannot be read, as a rule half a message when it died."""

_DRAIN_S = 0.5
"""How long what a dead worker had said is still read; a process that it forked may hold its channel open for ever."""


@dataclass(frozen=True)
class Startup:
    """How long a worker took until it could take up a job.

    Attributes
    ----------
    start_s : float
        Seconds from the start of its process until it was ready.
    import_s : float
        The part of it that went into the modules to preload.
    """

    start_s: float
    import_s: float


class WorkerProcess:
    """A worker process, and pickles to and from it through its standard input and output.

    One thread reads what it says, and another waits for its end, which it puts into the same queue as the last
    message. So nobody needs to look after a worker, and the death of one is no business of the others.

    Parameters
    ----------
    preload
        Modules that it imports first.
    slot
        Its part of the machine.
    messages
        Where its events go, and in the end a `WorkerDiedError`, each together with this object.

    Attributes
    ----------
    job : Job or None
        What it is to do, or does.
    trainable : Trainable or None
        What was sent to it last.
    startup : Startup or None
        How long it took to start; None until it is ready.
    """

    def __init__(self, preload: tuple[str, ...], slot: WorkerSlot, messages: Messages) -> None:
        self.job: Job | None = None
        self.trainable: Trainable | None = None
        self.startup: Startup | None = None
        self._is_up_or_dead = threading.Event()
        self._messages = messages
        self._unreadable: Exception | None = None
        path = [folder for folder in sys.path if isinstance(folder, str)]
        self._start_s = time.perf_counter()
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", PROGRAM.format(path=path, preload=preload)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if sys.__stderr__ is None else None,
            env=slot.environment(),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._reader.start()
        self._watcher.start()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def wait_for_start(self, timeout_s: float | None) -> bool:
        """Wait until the worker is ready or has died; tell whether that was in time."""
        return self._is_up_or_dead.wait(timeout_s)

    def send(self, message: object) -> None:
        """Send a message; one that does not arrive is of no account, since the worker's death is told anyway."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()

    def kill(self) -> None:
        """End the process, whatever it is doing. Many are ended sooner by killing all before the first `reap`."""
        self._process.kill()

    def reap(self) -> None:
        """Wait for the end of the killed process, and let go of what belonged to it."""
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # what was still to be flushed to a dead process
            self._process.stdin.close()
        self._watcher.join()
        self._reader.join(_DRAIN_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as outlet:
            try:
                while True:
                    self._take(pickle.load(outlet))  # noqa: S301  written by our own worker
            except Exception as error:  # the end of the pipe, as a rule
                self._see_it_ended(error)

    def _take(self, message: Event | Ready) -> None:
        if isinstance(message, Ready):
            self.startup = Startup(time.perf_counter() - self._start_s, message.import_s)
            self._is_up_or_dead.set()
        else:
            self._messages.put((self, message))

    def _see_it_ended(self, error: Exception) -> None:
        try:
            self._process.wait(_END_S if isinstance(error, EOFError | OSError) else _GARBLED_S)
        except subprocess.TimeoutExpired:
            self._unreadable = error
            self._process.kill()

    def _watch(self) -> None:
        code = self._process.wait()
        self._reader.join(_DRAIN_S)
        how = ending(code) if self._unreadable is None else "closed its channel, or sent what cannot be read"
        self._messages.put((self, WorkerDiedError(f"the worker process {how}")))
        self._is_up_or_dead.set()


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
