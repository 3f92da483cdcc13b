"""The state of a run as a live display shows it, made from the events of the run alone."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from saccade.events import (
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    PhaseDone,
    Progressed,
    RunFinished,
    RunPlanned,
    RunStarted,
    Warned,
    WorkerJoined,
    WorkerLost,
)
from saccade.study.life import OpenJob, StudyRecord
from saccade.study.time_use import TimeUse
from saccade.study.trial import Status, Trial


class Task(NamedTuple):
    """A long task that counts its steps."""

    num_done: int
    total: int
    first_done: int  # steps at the first report, which came at `start_s` of the clock
    start_s: float


class RunState:
    """The state of a run after its events so far; shown by terminals, notebooks and ``saccade watch``.

    Every event comes with the time at which it happened, on any clock in seconds; `clock` is the same clock now. The
    time of the run itself is that of its time limit, with earlier sessions.
    """

    def __init__(self, metric: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.metric, self.clock = metric, clock
        self.record = StudyRecord()
        self.folder, self.is_started, self.is_finished = "", False, False
        self.time_limit_s: float | None = None
        self.num_trials: int | None = None
        self.use = TimeUse()
        self.tasks: dict[str, Task] = {}
        self.workers: list[int | None] = []  # the trial of each; None is idle
        self.nodes: Counter[str] = Counter()  # workers of each node of a cluster
        self.node_of: dict[int, str] = {}  # by trial: where it runs, or ran last
        self.best: list[tuple[float, float]] = []  # seconds of the run, and the best value of the metric from then on
        self.warnings: list[str] = []
        self.result = ""
        self._synchronised_s = (0.0, 0.0)  # seconds of the run, and the clock at that moment

    def elapsed_s(self) -> float:
        """Return the seconds of the time limit that the run has used, which stand still when it has finished."""
        run_s, clock_s = self._synchronised_s
        return run_s if self.is_finished or not self.is_started else run_s + max(0.0, self.clock() - clock_s)

    def __call__(self, event: Event, at_s: float | None = None) -> None:  # noqa: C901  one case for each event
        """Apply an event, which happened when the clock had this value; None is now."""
        at_s = self.clock() if at_s is None else at_s
        self.record.apply(event)
        match event:
            case RunStarted():
                self.folder = event.folder
                self.time_limit_s, self.num_trials = event.time_limit_s, event.num_trials
                self.is_started, self.is_finished = True, False
                self.use = TimeUse(event.elapsed_s if self.record.trials else 0.0)
                self.workers.clear()
                self.nodes.clear()
                self._synchronised_s = event.elapsed_s, at_s
            case RunPlanned():
                self.metric = event.metric
            case PhaseDone():
                if event.phase == "preparing":
                    self.use = TimeUse(event.start_s)
                self.workers.clear()
                self._synchronised_s = event.start_s + event.seconds, at_s
            case Progressed() if event.done >= event.total:
                self.tasks.pop(event.what, None)
            case Progressed():
                before = self.tasks.get(event.what, Task(event.done, event.total, event.done, at_s))
                self.tasks[event.what] = before._replace(num_done=event.done, total=event.total)
            case Warned():
                self.warnings.append(" ".join(event.shown().split()))
            case JobStarted():
                if self.phase == "preparing":  # a search without phases
                    self.use.add(PhaseDone("preparing", 0.0, 0.0, "search"), self._run_s(at_s))
                self._release(event.trial)
                self.node_of[event.trial] = event.node
                idle = self.workers.index(None) if None in self.workers else len(self.workers)
                self.workers[idle : idle + 1] = [event.trial]
            case JobDone() | JobFailed():
                self._release(event.trial)
            case WorkerJoined() if event.node:
                self.nodes[event.node] += 1
            case WorkerLost():
                self.nodes -= Counter([event.node])
                while len(self.workers) > event.num_workers and self.workers[-1] is None:
                    self.workers.pop()
            case RunFinished():
                self._synchronised_s, self.is_finished = (max(event.seconds, self._run_s(at_s)), at_s), True
                self.result = event.result
                self.workers.clear()
                self.tasks.clear()
        if self.is_started:
            self.use.add(event, self._run_s(at_s))
        if isinstance(event, EpochDone) and event.node:
            self.node_of[event.trial] = event.node
        if isinstance(event, EpochDone | JobFailed):
            self._note_best(at_s)

    @property
    def phase(self) -> str:
        """What the run does."""
        return "finished" if self.is_finished else self.use.phase

    def seconds(self) -> dict[str, float]:
        """Return the seconds of the time limit that each part of the run has used, in their order."""
        seconds = self.use.seconds(self.elapsed_s())
        total_s = seconds.pop("total")
        if "overhead" in seconds:  # in the middle of an epoch, most of it is training that was not reported yet
            seconds = {"search" if name == "overhead" else name: spent_s for name, spent_s in seconds.items()}
        return {name: spent_s for name, spent_s in seconds.items() if 0 < spent_s <= total_s}

    def recall(self, trials: Sequence[Trial]) -> None:
        """Add the trials of earlier sessions of the run."""
        for trial in trials:
            self.record.trials.append(dataclasses.replace(trial, reports=[]))
            for report in trial.reports:
                self.record.jobs[trial.number] = OpenJob()
                self.record.apply(report)
            self.record.jobs[trial.number] = OpenJob()
        self._note_best(self.clock())

    def counts(self) -> dict[str, int]:
        """Return the number of trials by status; those of a killed session that are to be continued are paused."""
        running = {trial for trial in self.workers if trial is not None}
        found: Counter[Status] = Counter(
            Status.PAUSED if trial.status is Status.RUNNING else trial.status
            for trial in self.record.trials
            if trial.number not in running
        )
        return {status.value: found[status] + len(running) * (status is Status.RUNNING) for status in Status}

    def value(self, report: EpochDone) -> float:
        """Return the metric of a report: where lower values are better, the score is its negative."""
        return report.metrics.get(self.metric, report.score)

    def where(self, trial: int) -> str:
        """Return " on" and the node of a trial, if there is a cluster of several nodes."""
        node = self.node_of.get(trial, "")
        return f" on {node}" if node and len({*self.nodes, *self.node_of.values()} - {""}) > 1 else ""

    def num_epochs(self, trial: Trial) -> int:
        """Return the number of epochs of a trial's configuration; 0 if it has none."""
        num = trial.config.get("epochs")
        return num if isinstance(num, int) else 0

    def images_per_s(self) -> float:
        """Return how many images all workers train on in a second, by the last epoch of each trial that runs."""
        reports = [self.record.trials[number].reports[-1:] for number in self.workers if number is not None]
        speeds = [
            (last.metrics.get("num_images", 0.0), last.metrics.get("train_s", 0.0)) for (last,) in filter(None, reports)
        ]
        return sum(num / seconds for num, seconds in speeds if seconds > 0)

    def _run_s(self, at_s: float) -> float:
        run_s, clock_s = self._synchronised_s
        return run_s + max(0.0, at_s - clock_s)

    def _release(self, trial: int) -> None:
        self.workers[:] = [None if each == trial else each for each in self.workers]

    def _note_best(self, at_s: float) -> None:
        best = self.record.best_trial
        if best is not None and best.best_report is not None:
            value = self.value(best.best_report)
            if not self.best or self.best[-1][1] != value:
                self.best.append((self._run_s(at_s), value))


def config_text(config: dict[str, Any]) -> str:
    """Return a configuration in one line."""
    return "  ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in config.items()
    )
