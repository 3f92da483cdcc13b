"""Trials, the jobs that train them, and the seam to what is trained."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from saccade.events import Decision as Decision
from saccade.events import EpochDone, JobFailed
from saccade.study.trial_files import TrialFiles


class Status(str, Enum):
    """The status of a trial."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """A task for one worker: train a trial up to an epoch."""

    trial: int
    """The trial's number, from 0."""
    config: dict[str, Any]
    """Its configuration; the trainable may change it."""
    until_epoch: int | None = None
    """The epoch after which the job ends; None trains to the end of the configuration."""
    checkpoint: str | None = None
    """Name of the checkpoint to continue from, as in its report; None starts from the beginning."""
    seconds_left: float = float("inf")
    """Time for the job from the moment a worker receives it; inf without a limit, and 0 or less if the time is up."""
    files: TrialFiles | None = None
    """Where the trial's files are; the study sets it. None if it keeps no files."""


@dataclass
class Trial:
    """One configuration and its results so far.

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
    files: TrialFiles | None = None
    """Where its files are; None if the study keeps no files."""
    status: Status = Status.RUNNING
    reports: list[EpochDone] = field(default_factory=list)
    failure: JobFailed | None = None
    """Why the trial failed; None if it did not."""
    note: str = ""
    """Why the last job ended early; "" if it did not."""
    num_retries: int = 0
    """How often the trial was retried after the loss of its worker, since its last new epoch."""
    num_lost_nodes: int = 0
    """How often it was retried after the loss of its worker's node, since then."""
    _totals: _Totals = field(default_factory=lambda: _Totals(), init=False, repr=False, compare=False)

    @property
    def best_report(self) -> EpochDone | None:
        """The report with the highest score, the earliest among equals; None before the first."""
        return self._updated_totals().best

    @property
    def num_epochs(self) -> int:
        """Epochs trained so far."""
        return self.reports[-1].epoch if self.reports else 0

    @property
    def seconds(self) -> float:
        """Seconds of training so far, epochs that were trained twice included."""
        return self._updated_totals().seconds

    def add(self, report: EpochDone) -> bool:
        """Add a report, and return whether its epoch is new.

        Of an epoch that is trained again, for lack of a checkpoint, only the seconds count, unless its report was
        dropped.
        """
        totals = self._updated_totals()
        is_new = report.epoch > totals.last_epoch
        if self.reports and report.epoch <= self.reports[-1].epoch:
            totals.seconds += report.seconds
        else:
            self.reports.append(report)
        return is_new

    def drop_after(self, epoch: int) -> None:
        """Drop the reports of later epochs, which are to be trained again; their seconds still count."""
        totals = self._updated_totals()
        self.reports[:] = [report for report in self.reports if report.epoch <= epoch]
        totals.num_reports = len(self.reports)
        totals.best = max(self.reports, key=operator.attrgetter("score"), default=None)

    def _updated_totals(self) -> _Totals:
        """Return the totals over all reports, at the cost of the new ones only."""
        totals = self._totals
        for report in self.reports[totals.num_reports :]:
            totals.num_reports += 1
            totals.seconds += report.seconds
            totals.last_epoch = max(totals.last_epoch, report.epoch)
            if totals.best is None or report.score > totals.best.score:
                totals.best = report
        return totals


@dataclass
class _Totals:
    """Totals over the first `num_reports` reports of a trial."""

    num_reports: int = 0
    seconds: float = 0.0
    best: EpochDone | None = None
    last_epoch: int = -1  # the first report may be of epoch 0


Reporter = Callable[[EpochDone], Decision]

LocalFiles = Sequence["Path | tuple[Path, ...]"]
"""Files on this machine's disk: a file, a folder with all of its files, or a tuple of many small files."""


class Trainable(ABC):
    """Something that is trained epoch by epoch: networks, any function, a replay of recorded curves.

    A trainable is sent once to each worker and is used for many jobs, so it may cache what jobs share.
    Test a new one with `saccade.testing.TrainableContract`.
    """

    @abstractmethod
    def train(self, job: Job, report: Reporter) -> str:
        """Train, and report epochs, at least the last one of the job; return why training ended early, or "".

        Training ends when `report` returns anything but CONTINUE, when ``job.until_epoch`` is reached, when
        ``job.seconds_left`` is spent (but not before the first report, so that there is a result), or at the end of the
        configuration. The return value is "" at the end of the job or of the configuration. A trial whose training
        raises an error fails.
        """

    def portable(self, job: Job) -> tuple[Job, LocalFiles]:
        """Return the job for a worker that may not see this machine's disk, and the local files that it reads.

        Called once for each job, where the search runs, by executors whose workers are on other machines. A machine
        that does not see these files gets a copy of each, once for all of its jobs. Wherever this trainable or the
        returned job has the `pathlib.Path` of such a file, of its folder, or of something in that folder, the worker's
        has the path of the copy; paths in strings stay as they are. The files must not change during the search.

        By default, the job is returned as it is and no files are needed. The trial's own files (`Job.files`) are not
        among them.
        """
        return job, ()
