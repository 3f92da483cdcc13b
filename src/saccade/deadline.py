"""The time limit of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_start_s: ContextVar[float | None] = ContextVar("start_s", default=None)


@contextmanager
def counting_from(start_s: float) -> Iterator[None]:
    """Context in which the time limit of the first fit began at `start_s`, on the monotonic clock."""
    token = _start_s.set(start_s)
    try:
        yield
    finally:
        _start_s.reset(token)


def call_start_s() -> float:
    """Return when the time limit of this call began: now, or for the first one in `counting_from` at its time."""
    start_s = _start_s.get()
    _start_s.set(None)
    return time.monotonic() if start_s is None else start_s


class Deadline:
    """A time limit that starts when the object is created; `limit_s` None means no limit, and 0 or less is valid.

    `used_s` are seconds of the limit that were used before, such as by an earlier session of the same run. Of the
    `clock`, only differences are used.
    """

    def __init__(
        self, limit_s: float | None, clock: Callable[[], float] = time.monotonic, *, used_s: float = 0.0
    ) -> None:
        self.limit_s = math.inf if limit_s is None else float(limit_s)
        self._clock = clock
        self._start = clock() - used_s

    def elapsed_s(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._start

    def seconds_left(self) -> float:
        """Return the seconds until the limit; negative once it has passed, inf without one."""
        return self.limit_s - self.elapsed_s()

    def within(self, limit_s: float) -> Deadline:
        """Return the earlier of this deadline and one in `limit_s` seconds."""
        return Deadline(min(limit_s, self.seconds_left()), self._clock)
