"""The folder of a run of `fit` or `tune`: its lock, and JSON files that are written atomically."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saccade.errors import RunInUseError

LOCK, STARTING = ".lock", ".starting"
"""The file that a running process locks, and the folder in which the first files of a run are prepared."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a run folder and lock it against other runs; take the lock before anything in the folder is read.

    The operating system releases the lock if the process is killed.

    Raises
    ------
    RunInUseError
        If another run uses the folder, in another process or in this one.
    """
    import filelock  # slow to import

    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunInUseError(
            f"Another run is using the folder {folder}, in another process or in this one. Stop it, or choose another "
            "path."
        ) from None
    try:
        yield
    finally:
        lock.release()


def other_entries(folder: Path) -> list[Path]:
    """Return what a folder holds besides the lock and a run that was killed while it started; [] without a folder."""
    return [entry for entry in folder.iterdir() if entry.name not in (LOCK, STARTING)] if folder.is_dir() else []


def is_vacant(folder: Path) -> bool:
    """Return whether a run can be started in a folder without a run: it does not exist yet, or is empty."""
    return not folder.exists() or (folder.is_dir() and not other_entries(folder))


def write_json_atomically(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file in one step: after a kill, or a power failure, there is the old file or the new one.

    The new file is written beside the old one, so that the folder may be a mount point. Objects without a JSON form
    are written as their `repr`.
    """
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=2, default=repr)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
