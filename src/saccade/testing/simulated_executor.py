"""Simulated workers and a simulated clock: hours of search in milliseconds."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.errors import DivergedError
from saccade.events import EpochDone, Event, JobDone, JobFailed, WorkerJoined, WorkerLost
from saccade.executor import Executor, Handler
from saccade.study.trial import Decision, Job


@dataclass(frozen=True)
class SimulatedWorker:
    """A worker of a `SimulatedExecutor`.

    Attributes
    ----------
    speed : float
        An epoch takes its seconds divided by `speed`.
    joins_s, leaves_s : float
        The simulated times between which the worker is there. The job that it has when it leaves loses its worker.
    node : str
        The node's name. A worker with one announces its speed when it joins.
    """

    speed: float = 1.0
    joins_s: float = 0.0
    leaves_s: float = math.inf
    node: str = ""


class SimulatedExecutor(Executor):
    """Replays learning curves on simulated workers, which may differ in speed, join late and leave early.

    Parameters
    ----------
    curve
        Returns the scores of a configuration's epochs; an exception fails the trial.
    workers
        The workers, or the number of equal ones.
    epoch_s
        Seconds of an epoch: a number, or a function of the configuration that returns a number, or one for each epoch.
    is_lost
        Whether a job loses its worker in an epoch; called before each epoch, from 1.

    Attributes
    ----------
    now_s : float
        The simulated time; `clock` returns it.
    busy_s : float
        Seconds of all epochs that have ended, over all workers.
    jobs : list of Job
        All submitted jobs.
    """

    trainable = None

    def __init__(
        self,
        curve: Callable[[dict[str, Any]], Sequence[float]],
        workers: int | Sequence[SimulatedWorker] = 1,
        epoch_s: float | Callable[[Mapping[str, Any]], float | Sequence[float]] = 1.0,
        is_lost: Callable[[Job, int], bool] = lambda job, epoch: False,
    ) -> None:
        self._curve, self._epoch_s, self._is_lost = curve, epoch_s, is_lost
        self.workers = [SimulatedWorker()] * workers if isinstance(workers, int) else list(workers)
        self.now_s = self.busy_s = 0.0
        self.jobs: list[Job] = []
        self._running: dict[int, _Running] = {}  # by trial
        self._here: dict[int, None] = {}
        # A heap of times and what happens then: workers join and leave, epochs end. Entries of jobs that were cancelled
        # or have ended are skipped. Of equal times, workers come first, then the jobs by their order of submission.
        self._due: list[tuple[float, int, _Running | int]] = []
        for index, worker in enumerate(self.workers):
            if worker.joins_s > 0 or worker.node:
                heapq.heappush(self._due, (worker.joins_s, index - len(self.workers), index))
            else:
                self._here[index] = None
            if worker.leaves_s < math.inf:
                heapq.heappush(self._due, (worker.leaves_s, index - len(self.workers), index))

    def clock(self) -> float:
        return self.now_s

    @property
    def num_workers(self) -> int:
        return len(self._here)

    @property
    def num_free(self) -> int:
        return len(self._here) - len(self._running)

    @property
    def utilization(self) -> float:
        """The fraction of the workers' time so far in which they trained, 0 to 1."""
        there_s = sum(max(0.0, min(self.now_s, each.leaves_s) - each.joins_s) for each in self.workers)
        begun_s = sum(self.now_s - each.epoch_start_s for each in self._running.values())
        return (self.busy_s + begun_s) / there_s if there_s else 0.0

    def submit(self, job: Job) -> None:
        assert self.num_free > 0
        busy = {running.worker for running in self._running.values()}
        worker = max((index for index in self._here if index not in busy), key=lambda index: self.workers[index].speed)
        epoch_s = self._epoch_s(job.config) if callable(self._epoch_s) else self._epoch_s
        epoch = 0 if job.checkpoint is None else int(Path(job.checkpoint).name)
        self._running[job.trial] = running = _Running(
            job, worker, self.workers[worker].speed, epoch_s, len(self.jobs), self.now_s, epoch
        )
        self.jobs.append(job)
        self._plan(running)

    def run(self, handle: Handler, timeout_s: float = math.inf) -> None:
        # The clock advances even if the timeout is smaller than its resolution.
        end_s = max(self.now_s + timeout_s, math.nextafter(self.now_s, math.inf))
        while self._running or (self._due and not self._here):
            at_s, _, what = self._due[0]
            if at_s > end_s and self._here:  # without a worker, it waits for one
                self.now_s = max(self.now_s, end_s)
                return
            heapq.heappop(self._due)
            if isinstance(what, int):
                self.now_s = max(self.now_s, at_s)
                self._join_or_leave(what, handle)
            elif self._running.get(what.job.trial) is what and at_s == what.next_s:
                self.now_s = max(self.now_s, at_s)
                self.busy_s += self.now_s - what.epoch_start_s
                what.epoch_start_s = self.now_s
                cancelled = None if what.cancelled is None else JobDone(what.job.trial, "stopped", what.cancelled)
                self._end(what, cancelled or self._train_epoch(what, handle), handle)

    def cancel(self, trial: int, reason: str = "cancelled") -> bool:
        running = self._running.get(trial)
        if running is not None:
            running.cancelled, running.next_s = reason, self.now_s
            heapq.heappush(self._due, (self.now_s, running.order, running))
        return running is not None

    def _join_or_leave(self, worker: int, handle: Handler) -> None:
        if worker not in self._here:
            self._here[worker] = None
            handle(WorkerJoined(len(self._here), self.workers[worker].node, self.workers[worker].speed))
            return
        del self._here[worker]
        running = next((each for each in self._running.values() if each.worker == worker), None)
        if running is None:
            handle(WorkerLost(len(self._here), self.workers[worker].node))
        else:
            self.busy_s += self.now_s - running.epoch_start_s
            del self._running[running.job.trial]
            handle(WorkerLost(len(self._here), self.workers[worker].node))
            handle(JobFailed(running.job.trial, "the worker is gone", is_worker_lost=True, is_node_lost=True))

    def _plan(self, running: _Running) -> None:
        running.epoch_start_s, running.next_s = self.now_s, self.now_s + running.next_epoch_s
        heapq.heappush(self._due, (running.next_s, running.order, running))

    def _end(self, running: _Running, event: Event | None, handle: Handler) -> None:
        """End a job with an event; None plans its next epoch."""
        if event is None:
            self._plan(running)
            return
        del self._running[running.job.trial]
        handle(event)

    def _train_epoch(self, running: _Running, handle: Handler) -> JobDone | JobFailed | None:
        job, epoch_s = running.job, running.next_epoch_s
        running.epoch += 1
        if self._is_lost(job, running.epoch):
            return JobFailed(job.trial, "the worker is gone", is_worker_lost=True)
        try:
            if running.scores is None:
                running.scores = self._curve(job.config)
            scores = running.scores
            is_last = running.epoch == len(scores)
            score, checkpoint = scores[running.epoch - 1], self.checkpoint(job, running.epoch)
            node = self.workers[running.worker].node
            event = EpochDone(job.trial, running.epoch, float(score), epoch_s, {}, checkpoint, is_last, node=node)
        except (ValueError, DivergedError) as error:
            return JobFailed(job.trial, str(error), "the traceback")
        decision = handle(event)
        if decision is not Decision.CONTINUE:
            return JobDone(job.trial, "paused" if decision is Decision.PAUSE else "stopped", "as decided")
        if is_last or running.epoch >= (job.until_epoch or math.inf):
            return JobDone(job.trial)
        if job.seconds_left - (self.now_s - running.start_s) < running.next_epoch_s:
            return JobDone(job.trial, "stopped", "time limit")
        return None

    def checkpoint(self, job: Job, epoch: int) -> str | None:
        """Return the checkpoint of an epoch: its number."""
        return str(epoch)


@dataclass(eq=False)
class _Running:
    job: Job
    worker: int
    speed: float
    epoch_s: float | Sequence[float]
    order: int  # number of the submission
    start_s: float
    epoch: int  # the last one that is done
    epoch_start_s: float = 0.0
    next_s: float = 0.0  # when the epoch ends
    scores: Sequence[float] | None = None
    cancelled: str | None = None  # the reason

    @property
    def next_epoch_s(self) -> float:
        """Seconds of the epoch in work."""
        seconds = self.epoch_s if isinstance(self.epoch_s, (int, float)) else self.epoch_s[self.epoch]
        return float(seconds) / self.speed
