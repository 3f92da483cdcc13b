"""Simulated workers and a simulated clock: hours of search in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.errors import DivergedError
from saccade.events import EpochDone, JobDone, JobFailed
from saccade.executor import Executor, Handler
from saccade.study.trial import Decision, Job


class SimulatedExecutor(Executor):
    """Replays learning curves on `num_workers` simulated workers.

    Parameters
    ----------
    curve
        Returns the scores of a configuration's epochs; an exception fails the trial.
    epoch_s
        Seconds of an epoch: a number, or a function of the configuration.
    is_lost
        Whether a job loses its worker in an epoch; called before each epoch, from 1.

    Attributes
    ----------
    now_s : float
        The simulated time; `clock` returns it.
    jobs : list of Job
        All submitted jobs.
    """

    trainable = None

    def __init__(
        self,
        curve: Callable[[dict[str, Any]], list[float]],
        num_workers: int = 1,
        epoch_s: float | Callable[[Mapping[str, Any]], float] = 1.0,
        is_lost: Callable[[Job, int], bool] = lambda job, epoch: False,
    ) -> None:
        self._is_lost = is_lost
        self._curve, self._num_workers, self._epoch_s = curve, num_workers, epoch_s
        self.now_s = 0.0
        self.jobs: list[Job] = []
        self._running: list[_Running] = []

    def clock(self) -> float:
        return self.now_s

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @property
    def num_free(self) -> int:
        return self._num_workers - len(self._running)

    def submit(self, job: Job) -> None:
        assert self.num_free > 0
        self.jobs.append(job)
        epoch_s = self._epoch_s(job.config) if callable(self._epoch_s) else self._epoch_s
        epoch = 0 if job.checkpoint is None else int(Path(job.checkpoint).name)
        self._running.append(_Running(job, epoch_s, self.now_s, self.now_s + epoch_s, epoch))

    def run(self, handle: Handler, timeout_s: float = math.inf) -> None:
        end_s = self.now_s + timeout_s
        while self._running:
            running = min(self._running, key=lambda other: other.next_s)  # the earliest submitted among equals
            if running.next_s > end_s:
                self.now_s = max(self.now_s, end_s)
                return
            self.now_s = max(self.now_s, running.next_s)
            if running.cancelled is not None:
                self._running.remove(running)
                handle(JobDone(running.job.trial, "stopped", running.cancelled))
                continue
            end = self._train_epoch(running, handle)
            if end is not None:
                self._running.remove(running)
                handle(end)

    def cancel(self, trial: int, reason: str = "cancelled") -> bool:
        found = [running for running in self._running if running.job.trial == trial]
        for running in found:
            running.cancelled, running.next_s = reason, self.now_s
        return bool(found)

    def _train_epoch(self, running: _Running, handle: Handler) -> JobDone | JobFailed | None:
        job = running.job
        running.epoch += 1
        if self._is_lost(job, running.epoch):
            return JobFailed(job.trial, "the worker is gone", is_worker_lost=True)
        try:
            scores = self._curve(job.config)
            is_last = running.epoch == len(scores)
            score, checkpoint = scores[running.epoch - 1], self.checkpoint(job, running.epoch)
            event = EpochDone(job.trial, running.epoch, score, running.epoch_s, {}, checkpoint, is_last)
        except (ValueError, DivergedError) as error:
            return JobFailed(job.trial, str(error), "the traceback")
        is_end = is_last or running.epoch >= (job.until_epoch or math.inf)
        running.next_s += running.epoch_s
        decision = handle(event)
        if decision is not Decision.CONTINUE:
            return JobDone(job.trial, "paused" if decision is Decision.PAUSE else "stopped", "as decided")
        if is_end:
            return JobDone(job.trial)
        if job.seconds_left - (self.now_s - running.start_s) < running.epoch_s:
            return JobDone(job.trial, "stopped", "time limit")
        return None

    def checkpoint(self, job: Job, epoch: int) -> str | None:
        """Return the checkpoint of an epoch: its number."""
        return str(epoch)


@dataclass
class _Running:
    job: Job
    epoch_s: float
    start_s: float
    next_s: float  # when the epoch ends
    epoch: int
    cancelled: str | None = None  # the reason
