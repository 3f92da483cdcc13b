"""What a journal has to say of a study's trials; `restore` makes the trials of it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saccade.events import EpochDone, JobFailed
from saccade.study.trial import Decision, Status, Trial


@dataclass(frozen=True)
class Begun:
    """A trial has got its number, its configuration and its folder."""

    trial: int
    config: dict[str, Any]
    folder: str = ""


@dataclass(frozen=True)
class Started:
    """A job of a trial was handed to a worker."""

    trial: int
    until_epoch: int | None = None


@dataclass(frozen=True)
class Reported:
    """A trial has reported an epoch, and was told what to do."""

    report: EpochDone
    decision: Decision = Decision.CONTINUE

    @property
    def trial(self) -> int:
        """The trial's number."""
        return self.report.trial


@dataclass(frozen=True)
class BegunAgain:
    """A trial is to be trained again from an epoch on; what it reported of later ones is forgotten."""

    trial: int
    after_epoch: int
    num_retries: int = 0


@dataclass(frozen=True)
class Ended:
    """A job of a trial has come to its end; so has the trial, unless it is paused."""

    trial: int
    status: Status
    note: str = ""
    failure: JobFailed | None = None
    best_score: float | None = None


Entry = Begun | Started | Reported | BegunAgain | Ended


def restore(entry: Entry, trials: list[Trial]) -> None:
    """Bring the trials to where they stood after an entry."""
    match entry:
        case Begun():
            trials.append(Trial(entry.trial, entry.config, entry.folder))
        case Started():
            trials[entry.trial].status = Status.RUNNING
        case Reported():
            trials[entry.trial].add(entry.report)
        case BegunAgain():
            trial = trials[entry.trial]
            trial.drop_after(entry.after_epoch)
            trial.status, trial.num_retries = Status.PAUSED, entry.num_retries
        case Ended():
            trial = trials[entry.trial]
            trial.status, trial.note, trial.failure = entry.status, entry.note, entry.failure


def moved(entries: Iterable[Entry], folder_of: Callable[[int], str]) -> Iterator[Entry]:
    """Return entries as they would be had the run always been in the folder that it is in now.

    Parameters
    ----------
    entries
        What a journal has.
    folder_of
        Where the trial of a number keeps its files now.
    """
    folders: dict[int, tuple[str, str]] = {}
    for entry in entries:
        if isinstance(entry, Begun) and entry.folder:
            folders[entry.trial] = (entry.folder, folder_of(entry.trial))
            yield replace(entry, folder=folder_of(entry.trial))
        elif isinstance(entry, Reported) and entry.report.checkpoint is not None and entry.trial in folders:
            checkpoint = _moved_path(entry.report.checkpoint, *folders[entry.trial])
            yield replace(entry, report=replace(entry.report, checkpoint=checkpoint))
        else:
            yield entry


def _moved_path(path: str, old: str, new: str) -> str:
    try:
        return path if old == new else str(Path(new) / Path(path).relative_to(old))
    except ValueError:  # it was elsewhere
        return path
