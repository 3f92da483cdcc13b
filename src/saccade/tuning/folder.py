"""The folder of a search of `tune`: what the search is for, and which checkpoints are kept."""

from __future__ import annotations

import json
import operator
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from saccade._version import __version__
from saccade.errors import HyperparameterError, SpaceError
from saccade.events import EpochDone, Event, JobDone, JobFailed, JobStarted
from saccade.space import Dict
from saccade.study.function import CHECKPOINT
from saccade.study.run_folder import EVENTS as EVENTS
from saccade.study.run_folder import CheckpointKeeper, other_entries, write_json_atomically
from saccade.study.trial import Trial
from saccade.study.trial_files import file_name

ABOUT, JOURNAL, TRIALS = "tune.json", "journal.log", "trials"
"""Files and folders in it."""

NUM_BEST = 3
"""How many of the trials that have ended keep the checkpoint of their best epoch."""


def start_or_resume(folder: Path, space: Dict, metric: str, mode: str, *, resume: bool) -> bool:
    """Record what a locked folder is used for, or check that it was used for the same; return whether to resume."""
    try:
        space_json = json.loads(json.dumps(space.to_json()))
    except SpaceError:  # it has no JSON form
        space_json = None
    about = {"metric": metric, "mode": mode, "space": space_json}
    if not (folder / ABOUT).is_file():
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        versions = {"saccade": __version__, "python": platform.python_version()}
        write_json_atomically(folder / ABOUT, {**about, "started": started, "versions": versions})
        return False
    if not resume:
        raise HyperparameterError(
            f"path={str(folder)!r} contains a search. Pass resume=True to continue it, or choose another path for a "
            "new one"
        )
    before = read_about(folder)
    for name, now in about.items():
        # Spaces with objects that have no JSON form cannot be compared.
        if before[name] != now and None not in (before[name], now):
            raise HyperparameterError(
                f"path={str(folder)!r} contains a search with {name}={_text(before[name])}, but {name} is "
                f"{_text(now)}. Pass the arguments of that search, or choose another path"
            )
    return True


def check_path(folder: Path) -> None:
    """Raise a HyperparameterError unless a folder contains a search, or is new or empty."""
    # A kill between the lock and the first file leaves nothing but ABOUT.part behind.
    is_used = any(entry.name != f"{ABOUT}.part" for entry in other_entries(folder))
    if not (folder / ABOUT).is_file() and (is_used or (folder.exists() and not folder.is_dir())):
        raise HyperparameterError(
            f"path={str(folder)!r} exists and contains no search (no file {ABOUT}); choose an empty or new folder"
        )


def read_about(folder: Path) -> dict[str, Any]:
    """Return ``metric``, ``mode`` and ``space`` of the search in a folder; without it, raise a HyperparameterError."""
    try:
        if (folder / ABOUT).exists() and not (folder / ABOUT).is_file():
            raise OSError("it is not a regular file")
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        _ = about["metric"], about["mode"], about["space"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HyperparameterError(
            f"{str(folder)!r} contains no search of saccade.tune: {ABOUT} is missing or damaged "
            f"({type(error).__name__}: {str(error)[:100]}). Restore a copy, or choose another path"
        ) from error
    found: dict[str, Any] = about
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class FunctionCheckpointKeeper(CheckpointKeeper):
    """Removes the checkpoints of a function that are not needed, after each epoch.

    A running or paused trial keeps those of its best and its last epoch, and the one from which its job continued. The
    best `NUM_BEST` trials that have ended keep that of their best epoch.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._in_use: dict[int, list[str | None]] = {}  # of a running job: its first checkpoint, and its latest
        super().__init__(trials, NUM_BEST)

    def group(self, trial: Trial) -> int:
        """Return the number of the trial: each is compared with all others."""
        return trial.number

    def __call__(self, event: Event) -> None:
        """Remove what is not needed after an event."""
        match event:
            case JobStarted():
                reports = self._trials[event.trial].reports
                self._in_use[event.trial] = [reports[-1].checkpoint if reports else None]
            case EpochDone(checkpoint=str()):
                self._in_use[event.trial] = [*self._in_use.get(event.trial, [None])[:1], event.checkpoint]
                self.prune(self._trials[event.trial], "all")
            case JobDone() | JobFailed():
                self._in_use.pop(event.trial, None)
        super().__call__(event)

    def prune(self, trial: Trial, keep: Literal["all", "best", "nothing"]) -> None:
        """Remove checkpoints; one that cannot be removed now is removed the next time."""
        if trial.files is None:
            return
        needed = [] if keep == "nothing" else [best_checkpoint(trial)]
        if keep == "all":
            last = next((report.checkpoint for report in reversed(trial.reports) if report.checkpoint), None)
            needed += [last, *self._in_use.get(trial.number, [])]
        for epoch in trial.files.epochs(trial.number, CHECKPOINT):
            if file_name(CHECKPOINT, epoch) not in needed:
                trial.files.delete(trial.number, CHECKPOINT, epoch)


def best_checkpoint(trial: Trial) -> str | None:
    """Return the checkpoint of the trial's best epoch, or of the best one that has one; None if none has."""
    saved = [report for report in trial.reports if report.checkpoint is not None]
    best = max(saved, key=operator.attrgetter("score"), default=None)
    return None if best is None else best.checkpoint
