"""Workers that replay recorded learning curves on a simulated clock: days of search in seconds, by the same study."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from benchmarks.curves import Curve
from saccade.events import EpochDone, JobDone
from saccade.executor import Executor, Handler
from saccade.study.trial import Decision, Job


class ReplayExecutor(Executor):
    """Any number of workers on one simulated clock.

    An epoch that would end after the job's time limit is not reported: its worker is busy until then, without a result.

    Parameters
    ----------
    curve_of
        Gives the recorded run of a configuration.
    num_workers
        How many jobs run at once.

    Attributes
    ----------
    now_s : float
        The simulated time; `clock` returns it.
    """

    trainable = None

    def __init__(self, curve_of: Callable[[dict[str, Any]], Curve], num_workers: int = 1) -> None:
        self.curve_of, self._num_workers = curve_of, num_workers
        self.now_s = 0.0
        self._running: list[_Running] = []

    def clock(self) -> float:
        """Return the simulated time in seconds."""
        return self.now_s

    @property
    def num_workers(self) -> int:
        """How many jobs can run at once."""
        return self._num_workers

    @property
    def num_free(self) -> int:
        """How many more jobs may be submitted now."""
        return self._num_workers - len(self._running)

    def submit(self, job: Job) -> None:
        """Accept a job."""
        self._running.append(_Running(job, self.curve_of(job.config), self.now_s))

    def run(self, handle: Handler, timeout_s: float = math.inf) -> None:  # noqa: ARG002 (no simulated job hangs)
        """Replay until no job is left."""
        while self._running:
            running = min(self._running, key=lambda other: other.next_s)  # the earliest submitted among equals
            self.now_s = running.next_s
            end = running.end_epoch(handle)
            if end is not None:
                self._running.remove(running)
                handle(end)


class _Running:
    def __init__(self, job: Job, curve: Curve, now_s: float) -> None:
        self.job, self.curve = job, curve
        self.epoch = int(job.checkpoint or 0)
        self.limit_s = now_s + job.seconds_left
        self.next_s = now_s
        self._plan()

    def _plan(self) -> None:
        end_s = self.next_s + float(self.curve.epoch_s[self.epoch])
        self.is_late = end_s > self.limit_s
        self.next_s = max(min(end_s, self.limit_s), self.next_s)

    def end_epoch(self, handle: Handler) -> JobDone | None:
        if self.is_late:
            return JobDone(self.job.trial, "stopped", "time limit")
        seconds = float(self.curve.epoch_s[self.epoch])
        self.epoch += 1
        score, is_last = float(self.curve.scores[self.epoch - 1]), self.epoch == len(self.curve.scores)
        event = EpochDone(self.job.trial, self.epoch, score, seconds, {}, str(self.epoch), is_last)
        decision = handle(event)
        if decision is not Decision.CONTINUE:
            return JobDone(self.job.trial, "paused" if decision is Decision.PAUSE else "stopped", "as decided")
        if is_last or self.epoch >= (self.job.until_epoch or math.inf):
            return JobDone(self.job.trial)
        self._plan()
        return None
