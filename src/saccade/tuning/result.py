"""The result of a search: its trials, with scores in the unit of the metric."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import SearchFailedError, count_of
from saccade.remote.urls import place_of
from saccade.space import Dict
from saccade.space.base import copied
from saccade.study.event_log import EventLog
from saccade.study.life import StudyRecord
from saccade.study.trial import Status, Trial
from saccade.study.trial_files import LocalTrialFiles, parse_name
from saccade.study.url_folder import fetched, urls_in_errors
from saccade.tuning.folder import EVENTS, TRIALS, best_checkpoint, read_about

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd


@dataclass(frozen=True)
class TrialResult:
    """One configuration and its results."""

    number: int
    """The trial's number, from 0."""
    config: dict[Any, Any]
    """Its configuration."""
    status: str
    """``"completed"``, ``"stopped"``, ``"paused"`` (it was not among the best, or time was up; it can be resumed) or
    ``"failed"``; in an interrupted search also ``"running"``.
    """
    score: float | None
    """The best value of the metric; None without a report."""
    best_epoch: int | None
    """The epoch in which it was reported."""
    num_epochs: int
    """Epochs trained."""
    seconds: float
    """Their duration, epochs that were trained again included."""
    reports: list[dict[str, Any]] = field(repr=False)
    """The reports in order: ``epoch``, the metric, all other metrics, and ``seconds``."""
    reason: str = ""
    """Why it failed, or ended early."""
    traceback: str = field(default="", repr=False)
    """Of the error with which it failed."""
    checkpoint: Path | None = field(default=None, repr=False)
    """The folder with the checkpoint of its best epoch that has one; None if it was removed. Of trials that have ended,
    only the best few keep theirs.
    """
    folder: Path | None = field(default=None, repr=False)
    """The folder with its files."""

    @classmethod
    def of(cls, trial: Trial, metric: str, mode: str) -> TrialResult:
        """Return the result of a study's trial; with mode ``"min"``, lower scores are better again."""
        sign = -1.0 if mode == "min" else 1.0
        best, failure, name = trial.best_report, trial.failure, best_checkpoint(trial)
        files = trial.files
        return cls(
            trial.number,
            copied(trial.config),
            trial.status.value,
            None if best is None else sign * best.score,
            None if best is None else best.epoch,
            trial.num_epochs,
            trial.seconds,
            [
                {"epoch": each.epoch, metric: sign * each.score, **each.metrics, "seconds": each.seconds}
                for each in trial.reports
            ],
            trial.note if failure is None else failure.reason,
            "" if failure is None else failure.traceback,
            None if files is None or name is None else files.get(trial.number, *parse_name(name)),
            None if files is None else files.folder(trial.number),
        )


class TuneResult:
    """The result of `tune`: all trials, by number.

    Parameters
    ----------
    trials, metric
        The trials, and the name of the metric.
    mode : {"max", "min"}
        Whether higher or lower values are better.
    path : Path, str or None
        The folder of the search, or its URL; None if it has none.

    Examples
    --------
    >>> trial = TrialResult(0, {"lr": 0.1}, "completed", 0.9, 3, 4, 8.0, reports=[])
    >>> result = TuneResult([trial], "accuracy", "max")
    >>> result.best_config, result.best_score
    ({'lr': 0.1}, 0.9)
    """

    def __init__(self, trials: Sequence[TrialResult], metric: str, mode: str, path: Path | str | None = None) -> None:
        self.trials = list(trials)
        self.metric, self.mode, self.path = metric, mode, path

    @classmethod
    def load(cls, path: str | PathLike[str], space: Dict | Mapping[Any, Any] | None = None) -> TuneResult:
        """Return the result so far of the search in a folder; it may be running, or may have been interrupted.

        Raises a HyperparameterError without a search in that folder, and a JournalError if its event log is invalid.

        Parameters
        ----------
        path
            The folder or URL that was passed to `tune`.
        space
            The search space; only needed if configurations contain objects that have no JSON form.
        """
        folder = fetched(path, with_trials=True)
        with urls_in_errors():
            about = read_about(folder)
        log = EventLog(folder / EVENTS, None if space is None else Dict(space))
        trials = StudyRecord.load(log, LocalTrialFiles(folder / TRIALS)).trials
        return cls.of(trials, about["metric"], about["mode"], place_of(path))

    @classmethod
    def of(cls, trials: Sequence[Trial], metric: str, mode: str, path: Path | str | None) -> TuneResult:
        """Return the result of a study with these trials."""
        return cls([TrialResult.of(trial, metric, mode) for trial in trials], metric, mode, path)

    @property
    def best_trial(self) -> TrialResult:
        """The trial with the best score that did not fail, the earliest among equals; else a SearchFailedError."""
        ranked = self._ranked()
        if not ranked or not _is_ranked(ranked[0]):
            reasons = sorted({trial.reason for trial in self.trials if trial.reason})
            why = f": {'; '.join(reasons)}" if reasons else ""
            raise SearchFailedError(f"no trial of {len(self.trials)} has a score{why}")
        return ranked[0]

    @property
    def best_config(self) -> dict[Any, Any]:
        """The configuration of the best trial."""
        return self.best_trial.config

    @property
    def best_score(self) -> float:
        """The best value of the metric."""
        score = self.best_trial.score
        assert score is not None
        return score

    @property
    def best_checkpoint(self) -> Path | None:
        """The folder with the checkpoint of the best trial's best epoch; None if it saved none.

        Without a path of the search, it is removed together with this object; copy what you need.
        """
        return self.best_trial.checkpoint

    def leaderboard(self) -> pd.DataFrame:
        """Return a table of the trials, the best first, failed ones last.

        It has the columns ``trial``, ``status``, the metric, ``epochs_done``, ``best_epoch``, ``fit_time_s``, the
        configuration (``config.NAME`` where a name is one of these), and ``reason`` (why a trial failed, or ended
        early).
        """
        import pandas as pd  # slow to import

        columns = ("trial", "status", self.metric, "epochs_done", "best_epoch", "fit_time_s")
        rows: list[dict[Any, Any]] = []
        for each in self._ranked():
            values = (each.number, each.status, each.score, each.num_epochs, each.best_epoch, round(each.seconds, 3))
            taken = (*columns, "reason")
            config = {f"config.{name}" if name in taken else name: value for name, value in each.config.items()}
            rows.append({**dict(zip(columns, values, strict=True)), **config, "reason": each.reason})
        table: pd.DataFrame = pd.DataFrame(rows, columns=None if rows else [*columns, "reason"])
        return table

    def remove_at_end(self, folder: Path) -> None:
        """Remove a folder when this object is garbage-collected, or when the program ends."""
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def __repr__(self) -> str:
        ranked = self._ranked()
        best = f", best {self.metric} {ranked[0].score:.6g}" if ranked and _is_ranked(ranked[0]) else ""
        return f"<TuneResult of {count_of(len(self.trials), 'trial')}{best}>"

    def _ranked(self) -> list[TrialResult]:
        sign = 1.0 if self.mode == "min" else -1.0
        return sorted(
            self.trials,
            key=lambda trial: (not _is_ranked(trial), trial.score is None, sign * (trial.score or 0.0), trial.number),
        )


def _is_ranked(trial: TrialResult) -> bool:
    return trial.score is not None and trial.status != Status.FAILED.value
