"""What the trackers of all libraries share: which values are recorded, of which trials, and where a run continues."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from saccade._version import __version__
from saccade.events import (
    DataReady,
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    RunFinished,
    RunPlanned,
    RunStarted,
    TrialCreated,
    TrialRestarted,
)
from saccade.study.event_log import EventLog, to_json_value
from saccade.study.run_folder import EVENTS, write_json_atomically
from saccade.study.trackers import TRACKED, Tracker, require_library
from saccade.study.trial import Status, Trial

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


_ids_lock = threading.Lock()  # the trackers of a run write their ids to one file, each in its thread


class LibraryTracker(Tracker):
    """Records a run in another library; its methods run in a thread, except for `open`.

    A resumed run continues the library's run, whose id is in the run folder. `trials` has the trials so far, by number,
    with those of earlier sessions; `best` is the best report among them.
    """

    in_background = True

    def __init__(self, close_timeout_s: float = 60.0) -> None:
        require_library(self)
        self.close_timeout_s = close_timeout_s

    @abstractmethod
    def start(self, name: str, earlier: str | None) -> str | None:
        """Start a run, or continue the `earlier` one if the library still has it; return its id, None without one."""

    @abstractmethod
    def configure(self, values: Mapping[str, Any]) -> None:
        """Record what is known of the whole run: text and numbers by name."""

    def start_trial(self, trial: Trial) -> None:
        """Record a new trial."""

    @abstractmethod
    def log_epoch(self, trial: Trial, report: EpochDone, values: Mapping[str, float], *, is_best: bool) -> None:
        """Record an epoch; `is_best` if no report of the run had a higher score."""

    def end_job(self, trial: Trial) -> None:
        """Record the status of a trial that has paused or ended, and its best score."""

    @abstractmethod
    def finish(self, summary: Mapping[str, Any]) -> None:
        """Record the result of a run; `summary` has text and numbers by name."""

    def log_predictor(self, folder: Path) -> None:
        """Record the predictor in a folder, at the end of a fit."""

    @abstractmethod
    def end(self, *, is_finished: bool) -> None:
        """End the library's run, unless it is the user's own; without a result it has failed or was interrupted."""

    def open(self, folder: Path | None) -> None:
        """Forget an earlier run of this object."""
        super().open(folder)
        self.trials: dict[int, Trial] = {}
        self.best: EpochDone | None = None
        self._metric = "score"
        self._has_started = self._is_finished = False

    def on_event(self, event: Event) -> None:
        """Pass an event to the method for it."""
        match event:
            case RunStarted():
                self._start(event)
            case RunPlanned():
                names = ("problem", "metric", "device", "executor")
                values = {name: getattr(event, name) for name in names}
                self.configure({**values, "networks": ", ".join(event.networks)})
            case DataReady():
                names = ("num_train", "num_val", "num_classes", "num_unreadable")
                self.configure({name: getattr(event, name) for name in names})
            case TrialCreated():
                self._apply(event)
                self.start_trial(self.trials[event.trial])
            case EpochDone() if event.trial in self.trials:
                best = self._apply(event)
                value = event.metrics.get(self._metric, event.score)
                values = {self._metric: value, **event.metrics, "score": event.score, "seconds": event.seconds}
                self.log_epoch(self.trials[event.trial], event, values, is_best=best)
            case TrialRestarted():
                self._apply(event)
            case JobDone() | JobFailed() if event.trial in self.trials:
                self._apply(event)
                self.end_job(self.trials[event.trial])
            case RunFinished():
                self._is_finished = True
                result = {"best_trial": event.best_trial, "best_score": event.score, "result": event.result}
                numbers = {"num_trials": len(self.trials), "run_seconds": event.seconds}
                self.finish({name: value for name, value in {**result, **numbers}.items() if value not in (None, "")})
                if self.folder is not None and event.result:
                    from saccade.inference.saved import PREDICTOR_FOLDER  # lazily: `tune` does not import torch

                    self.log_predictor(self.folder / PREDICTOR_FOLDER)

    def close(self) -> None:
        """End the library's run."""
        if self._has_started:
            self.end(is_finished=self._is_finished)

    def _start(self, event: RunStarted) -> None:
        self._metric = event.metric
        if self.folder is not None:
            earlier = list(EventLog(self.folder / EVENTS, as_text=True))
            last = max((index for index, one in enumerate(earlier) if isinstance(one, RunStarted)), default=0)
            for one in earlier[:last]:  # what comes after it, comes to `on_event` as well
                self._apply(one)
        name = event.folder.replace("\\", "/").rstrip("/").rpartition("/")[2] or "tune"
        earlier_id = self._ids().get(self.library)
        new = self.start(name, earlier_id)
        self._has_started = True
        if self.folder is not None and new is not None and new != earlier_id:
            with _ids_lock:
                write_json_atomically(self.folder / TRACKED, {**self._ids(), self.library: new})
        limits = {"time_limit_s": event.time_limit_s, "num_trials_limit": event.num_trials}
        given = {"saccade_version": __version__, "run_folder": event.folder, "metric": event.metric, **limits}
        self.configure({name: value for name, value in given.items() if value not in (None, "")})

    def _ids(self) -> dict[str, str]:
        """Return the ids of the run in all libraries."""
        file = None if self.folder is None else self.folder / TRACKED
        ids: dict[str, str] = json.loads(file.read_bytes()) if file is not None and file.is_file() else {}
        return ids

    def _apply(self, event: Event) -> bool:
        """Apply an event to the trials; return whether it is the best report so far."""
        trial = self.trials.get(getattr(event, "trial", -1))
        match event:
            case TrialCreated():
                self.trials[event.trial] = Trial(event.trial, event.config)
            case EpochDone() if trial is not None:
                trial.add(event)
                trial.status = Status.RUNNING
                if self.best is None or event.score > self.best.score:
                    self.best = event
                    return True
            case TrialRestarted() if trial is not None:
                trial.drop_after(event.after_epoch)
            case JobDone() if trial is not None:
                trial.status, trial.note, trial.failure = Status(event.status), event.reason, None
            case JobFailed() if trial is not None:
                trial.status, trial.failure = Status.FAILED, event
        return False

    def leaderboard(self) -> pd.DataFrame:
        """Return a row for each trial, the best first: number, status, score, epochs, seconds and configuration."""
        import pandas as pd

        rows = [
            {
                "trial": trial.number,
                "status": trial.status.value,
                "score": best_score(trial),
                "epochs": trial.num_epochs,
                "seconds": round(trial.seconds, 3),
                **flat(trial.config),
            }
            for trial in self.trials.values()
        ]
        columns = None if rows else ["trial", "status", "score", "epochs", "seconds"]
        table: pd.DataFrame = pd.DataFrame(rows, columns=columns).sort_values("score", ascending=False)
        return table


def best_score(trial: Trial) -> float:
    """Return the best score of a trial; NaN without one."""
    return math.nan if trial.best_report is None else trial.best_report.score


def flat(config: Mapping[Any, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Return a configuration as text and numbers by name; nested names have a point between them."""
    values: dict[str, str | int | float | bool] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{name}.")
        else:
            plain = to_json_value(value)
            is_plain = isinstance(plain, (str, int)) or (isinstance(plain, float) and math.isfinite(plain))
            values[f"{prefix}{name}"] = plain if is_plain else str(value)
    return values


@contextlib.contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Let what a library prints go to standard error: standard output is the result of a command."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
