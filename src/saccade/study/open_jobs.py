"""The jobs that have not ended, as the entries of a study's journal tell of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from saccade.events import EpochDone, JobFailed
from saccade.study.entries import Begun, BegunAgain, Ended, Entry, Reported, Started
from saccade.study.trial import Decision, Trial


@dataclass
class OpenJob:
    """A job that a worker has, or had when its process was killed.

    Attributes
    ----------
    until_epoch : int or None
        The epoch at which the job ends; None trains the trial to the end of its configuration.
    checkpoint : str or None
        What it continues from, as far as this process began it.
    has_own_limit : bool
        Whether the trial's own time limit comes before the deadline of the search.
    last : Reported or None
        What it has reported last, and what the trial was told to do then.
    """

    until_epoch: int | None = None
    checkpoint: str | None = None
    has_own_limit: bool = False
    last: Reported | None = None

    @property
    def is_at_its_end(self) -> bool:
        """Whether the trial has come as far as the job goes."""
        return self.last is not None and self.until_epoch is not None and self.last.report.epoch >= self.until_epoch

    @property
    def end(self) -> str | None:
        """How the job ends after its last report, in the words of `JobDone`; None if the trial was to go on."""
        if self.last is None:
            return None
        if self.last.report.is_last:
            return "completed"
        if self.last.decision is Decision.STOP:
            return "stopped"
        return "paused" if self.last.decision is Decision.PAUSE or self.is_at_its_end else None


class OpenJobs:
    """Follows a study's entries.

    Examples
    --------
    >>> jobs = OpenJobs()
    >>> for entry in [Begun(0, {}), Started(0), Begun(1, {}), Started(1, until_epoch=3)]:
    ...     jobs.follow(entry)
    >>> [(trial, job.until_epoch) for trial, job in jobs]
    [(0, None), (1, 3)]
    """

    def __init__(self) -> None:
        self._jobs: dict[int, OpenJob] = {}

    def __getitem__(self, trial: int) -> OpenJob:
        return self._jobs[trial]

    def __iter__(self) -> Iterator[tuple[int, OpenJob]]:
        """Go through trials and their jobs, in the order in which these were started."""
        return iter(list(self._jobs.items()))

    def follow(self, entry: Entry) -> None:
        """Take note of an entry."""
        match entry:
            case Begun():
                self._jobs[entry.trial] = OpenJob()
            case Started():
                self._jobs.pop(entry.trial, None)
                self._jobs[entry.trial] = OpenJob(entry.until_epoch)
            case Reported():
                self._jobs[entry.trial].last = entry
            case BegunAgain():
                self._jobs[entry.trial].last = None
            case Ended():
                del self._jobs[entry.trial]


def has_checkpoint(report: EpochDone) -> bool:
    """Tell whether training can continue after a report of this process."""
    return report.checkpoint is not None


def has_readable_checkpoint(report: EpochDone) -> bool:
    """Tell whether training can continue after a report of an earlier process: files may have gone since."""
    return report.checkpoint is not None and os.access(report.checkpoint, os.R_OK)


@dataclass
class SecondTry:
    """A job that is to be done again, as far as it must be.

    Attributes
    ----------
    trial : Trial
        Its trial.
    until_epoch : int or None
        As in `OpenJob`.
    is_usable : callable or None
        Tells whether training can continue after a report; None trains the trial from the beginning.
    failure : JobFailed or None
        Why it is done again; None after the end of an earlier process.
    """

    trial: Trial
    until_epoch: int | None
    is_usable: Callable[[EpochDone], bool] | None
    failure: JobFailed | None = None

    @property
    def last(self) -> EpochDone | None:
        """The report to continue after; None without one."""
        if self.is_usable is None:
            return None
        return next((report for report in reversed(self.trial.reports) if self.is_usable(report)), None)
