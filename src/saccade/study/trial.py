"""What a study is made of: trials, the jobs that train them, decisions, and the seam to what is trained."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from saccade.events import EpochDone, JobFailed


class Decision(str, Enum):
    """What a trial is to do after a report."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


class Status(str, Enum):
    """Where a trial stands."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """A piece of work for one worker: train trial `trial` up to an epoch.

    Attributes
    ----------
    trial : int
        The trial's number, from 0.
    config : dict
        Its configuration, which belongs to whoever trains it.
    folder : str
        Where the trial keeps its files.
    until_epoch : int or None
        The epoch to end the job after, at which the trial is paused if it has not told that this was its last; None
        trains to the end of the recipe.
    checkpoint : str or None
        The file to continue from; None starts afresh.
    seconds_left : float
        Time for the job from the moment a worker takes it up; inf without a limit, and 0 or less when the time is up
        already.
    """

    trial: int
    config: dict[str, Any]
    folder: str = ""
    until_epoch: int | None = None
    checkpoint: str | None = None
    seconds_left: float = float("inf")


@dataclass
class Trial:
    """One configuration and all that is known of it.

    Examples
    --------
    >>> trial = Trial(0, {"lr": 0.1})
    >>> trial.add(EpochDone(0, epoch=1, score=0.5, seconds=2.0))
    True
    >>> trial.add(EpochDone(0, epoch=1, score=0.6, seconds=3.0))
    False
    >>> trial.best_report.score, trial.seconds
    (0.5, 5.0)
    """

    number: int
    config: dict[str, Any]
    folder: str = ""
    status: Status = Status.RUNNING
    reports: list[EpochDone] = field(default_factory=list)
    failure: JobFailed | None = None
    note: str = ""
    num_retries: int = 0
    _tally: _Tally = field(default_factory=lambda: _Tally(), init=False, repr=False, compare=False)

    @property
    def best_report(self) -> EpochDone | None:
        """The report with the highest score, the earliest among equals; None before the first."""
        return self._counted().best

    @property
    def num_epochs(self) -> int:
        """Epochs trained so far."""
        return self.reports[-1].epoch if self.reports else 0

    @property
    def seconds(self) -> float:
        """What the trial has cost so far, epochs that had to be trained again included."""
        return self._counted().seconds

    def add(self, report: EpochDone) -> bool:
        """Keep a report, and tell whether it is news.

        An epoch that had to be trained again, as there was no checkpoint to continue from, is no news: only its
        seconds count, unless its first report was dropped.
        """
        tally = self._counted()
        is_news = report.epoch > tally.last_epoch
        if self.reports and report.epoch <= self.reports[-1].epoch:
            tally.seconds += report.seconds
        else:
            self.reports.append(report)
        return is_news

    def drop_after(self, epoch: int) -> None:
        """Forget the reports of all later epochs, which are to be trained again; what they cost is not forgotten."""
        tally = self._counted()
        self.reports[:] = [report for report in self.reports if report.epoch <= epoch]
        tally.num_reports = len(self.reports)
        tally.best = max(self.reports, key=operator.attrgetter("score"), default=None)

    def _counted(self) -> _Tally:
        """Return the tally, all reports included: whoever asks after each report never makes it count them all."""
        tally = self._tally
        while tally.num_reports < len(self.reports):
            tally.count(self.reports[tally.num_reports])
        return tally


@dataclass
class _Tally:
    """What is kept of the first `num_reports` reports of a trial."""

    num_reports: int = 0
    seconds: float = 0.0
    best: EpochDone | None = None
    last_epoch: int = -1  # a trial's first report may be of epoch 0, before any training

    def count(self, report: EpochDone) -> None:
        self.num_reports += 1
        self.seconds += report.seconds
        self.last_epoch = max(self.last_epoch, report.epoch)
        if self.best is None or report.score > self.best.score:
            self.best = report


Reporter = Callable[[EpochDone], Decision]


class Trainable(ABC):
    """Something that can be trained an epoch at a time: images, any function, a replay of recorded curves.

    It is sent once to each worker and lives through many jobs, so it may keep warm what jobs share.
    Test a new one with `saccade.testing.TrainableContract`.
    """

    @abstractmethod
    def train(self, job: Job, report: Reporter) -> str:
        """Train, report epochs and at least the last one of the job, and obey the answer.

        Training ends when `report` answers anything but CONTINUE, when ``job.until_epoch`` is reached, when
        ``job.seconds_left`` is spent (but not before the first report, so that there is a result), or at the end of
        what the configuration asks for. Whatever is raised makes the trial *failed*.

        Returns
        -------
        str
            Why it ended early; "" at the end of the configuration, or of the job.
        """
