"""An alarm that interrupts the main thread, so that a job that hangs in it can be ended."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

P = TypeVar("P")
R = TypeVar("R")

REPEAT_S = 1.0
"""Seconds after which the exception is raised again, if the job has suppressed it."""


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
