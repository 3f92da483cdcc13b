"""Files that are replaced in one step, and errors of the file system in plain words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from saccade.errors import DataError, DiskFullError, SaccadeError, is_disk_full


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk and survive a power failure."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durably(part: Path, path: Path) -> None:
    """Rename a file that was written beside another one; after a power failure there is the old file or the new one."""
    sync(part)
    part.replace(path)
    sync(path.parent)


@contextlib.contextmanager
def explained_file_errors(path: Path, error_class: type[SaccadeError] = DataError, advice: str = "") -> Iterator[None]:
    """Raise errors of the file system as `error_class`, or a DiskFullError, with the path and what to do.

    Examples
    --------
    >>> with explained_file_errors(Path("run"), advice="Pass another path."):
    ...     raise PermissionError(13, "Permission denied", "run/run.json")
    Traceback (most recent call last):
    saccade.errors.DataError: run/run.json: Permission denied. Pass another path.
    """
    try:
        yield
    except SaccadeError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullError(f"The disk of {path} is full. Make room, and try again. {advice}".strip()) from error
        if not isinstance(error, OSError):
            raise
        where, why = error.filename or path, error.strerror or str(error) or type(error).__name__
        raise error_class(f"{where}: {why}. {advice}".strip()) from error
