"""The clock of a run: how long it may take, and how much of that is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Deadline:
    """A time limit that started when the object was made.

    Parameters
    ----------
    limit_s : float or None
        Seconds from now, any number; None means that there is no limit.
    clock : callable
        Returns seconds; only differences count. A simulated clock may be passed.

    Examples
    --------
    >>> Deadline(None).seconds_left()
    inf
    """

    def __init__(self, limit_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = math.inf if limit_s is None else float(limit_s)
        self._clock = clock
        self._start = clock()

    def elapsed_s(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._start

    def seconds_left(self) -> float:
        """Return the seconds until the limit; negative once it has passed, inf without one."""
        return self.limit_s - self.elapsed_s()
