"""Which checkpoints of a search are kept: the best ones, and those that training may continue from."""

from __future__ import annotations

import operator
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from saccade.events import EpochDone, Event, JobDone, JobFailed, JobStarted
from saccade.study.function import CHECKPOINTS
from saccade.study.trial import Status, Trial

NUM_BEST = 3
"""Of so many of the trials that have ended, the best ones, the checkpoint of the best epoch is kept."""


class CheckpointKeeper:
    """A listener of a study that removes checkpoints as soon as nobody needs them.

    A trial that runs or is paused keeps those of its best and of its last epoch, and the one that its job began with; a
    trial that has ended keeps that of its best epoch while it is among the best `NUM_BEST`. So what is on disk does not
    grow with the number of epochs, nor with that of trials, those aside that may go on.

    Parameters
    ----------
    trials : sequence of Trial
        The study's trials, by number.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = trials
        self._begun_with: dict[int, str | None] = {}
        ended = (trial for trial in trials if trial.status in (Status.COMPLETED, Status.STOPPED))
        self._best = sorted((trial for trial in ended if trial.reports), key=_rank)[:NUM_BEST]

    def __call__(self, event: Event) -> None:
        """Remove what an event has made superfluous."""
        match event:
            case JobStarted():
                reports = self._trials[event.trial].reports
                self._begun_with[event.trial] = reports[-1].checkpoint if reports else None
            case EpochDone(checkpoint=str()):
                trial = self._trials[event.trial]
                _prune(trial, [event.checkpoint, *_needed(trial), self._begun_with.get(event.trial)])
            case JobDone() | JobFailed():
                self._begun_with.pop(event.trial, None)
                self._end(self._trials[event.trial])

    def _end(self, trial: Trial) -> None:
        if trial.status in (Status.COMPLETED, Status.STOPPED):
            ranked = sorted([*self._best, trial], key=_rank)
            self._best = ranked[:NUM_BEST]
            for loser in ranked[NUM_BEST:]:
                _prune(loser, [])
        if trial in self._best:
            _prune(trial, [best_checkpoint(trial)])
        else:
            _prune(trial, _needed(trial) if trial.status is Status.PAUSED else [])


def best_checkpoint(trial: Trial) -> str | None:
    """Return the checkpoint of the trial's best epoch, or of the best one that has one; None if none has."""
    saved = [report for report in trial.reports if report.checkpoint is not None]
    best = max(saved, key=operator.attrgetter("score"), default=None)
    return None if best is None else best.checkpoint


def _needed(trial: Trial) -> list[str | None]:
    """Return the checkpoints of a trial that may go on."""
    last = next((report.checkpoint for report in reversed(trial.reports) if report.checkpoint is not None), None)
    return [best_checkpoint(trial), last]


def _rank(trial: Trial) -> tuple[float, int]:
    best = trial.best_report
    assert best is not None
    return -best.score, trial.number


def _prune(trial: Trial, kept: Iterable[str | None]) -> None:
    """Remove all checkpoints of a trial but these; what does not let itself be removed is left to the next time."""
    folder = Path(trial.folder) / CHECKPOINTS
    if not folder.is_dir():
        return
    names = {Path(path).name for path in kept if path is not None}
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path, ignore_errors=True)
