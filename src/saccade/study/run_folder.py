"""The folder of a run of `fit` or `tune`: its lock, atomic JSON files, and which trials keep their files."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from saccade._version import __version__
from saccade.errors import DataError, RunInUseError, SaccadeError
from saccade.events import Event, JobDone, JobFailed
from saccade.study.event_log import LostObjectError
from saccade.study.trial import Status, Trial
from saccade.study.trial_files import replace_durably

LOCK, STARTING = ".lock", ".starting"
"""The file that a running process locks, and the folder in which the first files of a run are prepared."""

EVENTS, NEW = "events.jsonl", ".new"
"""The event log, and the subfolder in which a run is made that will replace the one in the folder."""

LOCK_WAIT_S = 0.1  # in which `lock_owner` of a process that watches has certainly ended


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a run folder and lock it; take the lock before anything in the folder is read.

    The operating system releases the lock of a killed process. A RunInUseError is raised if another run has the folder.
    """
    import filelock  # slow to import

    lock = filelock.FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_WAIT_S)
    except filelock.Timeout:
        raise RunInUseError(
            f"Another run is using the folder {folder}, in another process or in this one. Stop it, or choose another "
            "path."
        ) from None
    except OSError as error:
        raise DataError(
            f"{folder / LOCK} cannot be locked ({error.strerror}). A run needs a folder that can be written, in which "
            f"{LOCK} is a file; pass another path"
        ) from None
    try:
        yield
    finally:
        lock.release()


def lock_owner(folder: Path) -> int | None:
    """Return the process that works on the run in a folder; 0 if only its number is not known, None without one.

    Nothing in the folder is changed. On Linux, the lock is taken for an instant only if no process is found.
    """
    try:
        file = (folder / LOCK).open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # on Windows, a locked file
        return 0
    with file:
        inode = os.fstat(file.fileno()).st_ino
        with contextlib.suppress(OSError):
            for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
                fields = line.split()
                if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
                    return max(0, int(fields[4]))  # 0 in another container
        try:
            import fcntl
        except ImportError:
            return _try_lock(folder)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return 0
    return None


def _try_lock(folder: Path) -> int | None:
    import filelock

    try:
        with filelock.FileLock(folder / LOCK).acquire(timeout=0):
            return None
    except (filelock.Timeout, OSError):
        return 0


@functools.cache
def environment(*packages: str) -> dict[str, str]:
    """Return the versions of Saccade, Python and installed packages, and the machine, for a report."""
    versions = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    machine = {"platform": platform.platform(), "processor": platform.processor() or platform.machine()}
    cores = {"cores": str(os.cpu_count() or "unknown")}
    return {"Saccade": __version__, "Python": platform.python_version(), **versions, **machine, **cores}


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of a block that reads a damaged file of a run into a DataError that names the file.

    A folder, a pipe or a device in its place is such an error as well, before the block is entered.
    """
    damage = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError)
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a regular file")
        yield
    except (SaccadeError, LostObjectError):
        raise
    except damage as error:
        reason = str(error).split("\n")[0][:200]
        raise DataError(
            f"{path} is damaged ({type(error).__name__}: {reason}). Restore a copy, or start a new run"
        ) from None


def other_entries(folder: Path) -> list[Path]:
    """Return what a folder holds besides the lock and a run that was killed while it started; [] without a folder."""
    ours = (LOCK, STARTING, "lost+found")  # the last one is in the root of a file system, if the folder is one
    return [entry for entry in folder.iterdir() if entry.name not in ours] if folder.is_dir() else []


def is_vacant(folder: Path) -> bool:
    """Return whether a run can be started in a folder without a run: it does not exist yet, or is empty."""
    return not folder.exists() or (folder.is_dir() and not other_entries(folder))


def write_json_atomically(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file in one step, beside the old one: after a kill there is the old file or the new one.

    Objects without a JSON form are written as their `repr`.
    """
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=2, default=repr)
        file.write("\n")
    replace_durably(part, path)


class CheckpointKeeper(ABC):
    """A listener of a study that removes the files of trials as soon as they are not needed.

    A running or paused trial keeps the files from which it can continue, and those of its best epoch. Trials that have
    completed or stopped form groups: the best trial of each of the best `num_groups` groups keeps the files of its best
    epoch, all others nothing. A running trial with a higher score does not change that, because it may fail.
    """

    def __init__(self, trials: Sequence[Trial], num_groups: float) -> None:
        self._trials, self._num_groups = trials, num_groups
        self._best: dict[Hashable, Trial] = {}  # the best trial of each group
        for trial in trials:
            if trial.status not in (Status.RUNNING, Status.PAUSED):
                self._settle(trial)

    @abstractmethod
    def group(self, trial: Trial) -> Hashable:
        """Return the group in which the trial is compared with others."""

    @abstractmethod
    def prune(self, trial: Trial, keep: Literal["all", "best", "nothing"]) -> None:
        """Remove files of a trial; ``all`` keeps what it continues from and its best epoch, ``best`` the latter."""

    def __call__(self, event: Event) -> None:
        """Remove what is not needed after a job."""
        if isinstance(event, JobDone) or (isinstance(event, JobFailed) and not event.is_disk_full):
            self._settle(self._trials[event.trial])

    def _settle(self, trial: Trial) -> None:
        if trial.status is Status.PAUSED:
            self.prune(trial, "all")
        elif trial.status is Status.FAILED:
            self.prune(trial, "nothing")
        else:
            group = self.group(trial)
            before = self._best.get(group, trial)
            self._best[group] = max(before, trial, key=_rank)
            losers = [] if before is trial else [min(before, trial, key=_rank)]
            if len(self._best) > self._num_groups:
                losers.append(self._best.pop(min(self._best, key=lambda name: _rank(self._best[name]))))
            if not any(loser is trial for loser in losers):
                self.prune(trial, "best")
            for loser in losers:
                self.prune(loser, "nothing")


def _rank(trial: Trial) -> tuple[float, int]:
    """Return the sort key that is largest for the best trial, the earliest among equals."""
    return (-float("inf") if trial.best_report is None else trial.best_report.score, -trial.number)
