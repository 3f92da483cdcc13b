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
    used_s : float
        Seconds of the limit that were used up before the object was made, as by an earlier part of the same run.

    Examples
    --------
    >>> Deadline(None).seconds_left()
    inf
    >>> Deadline(60, used_s=50).seconds_left() <= 10
    True
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
