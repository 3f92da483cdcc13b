"""The files of trials: named by trial, kind and epoch, so that those who use them need not know where they are."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from saccade.errors import RemoteError
from saccade.remote.urls import UrlFile

CONFIG = "config.json"
"""The kind of the file with a trial's configuration."""

_PART, _FOLDER = ".part", ".folder.tar"  # the latter is the suffix of a folder at a URL
_NAME = re.compile(r"(?P<stem>[^.]+)-(?P<epoch>\d{4,})(?P<suffix>(\..*)?)")


def file_name(kind: str, epoch: int | None = None) -> str:
    """Return the name of a file; a checkpoint has this name in reports and jobs.

    Examples
    --------
    >>> file_name("best.safetensors", 3), file_name("probe.npz")
    ('best-0003.safetensors', 'probe.npz')
    """
    stem, dot, suffix = kind.partition(".")
    return kind if epoch is None else f"{stem}-{epoch:04d}{dot}{suffix}"


def parse_name(name: str) -> tuple[str, int | None]:
    """Return the kind and the epoch of a file's name.

    Examples
    --------
    >>> parse_name("best-0003.safetensors"), parse_name("probe.npz")
    (('best.safetensors', 3), ('probe.npz', None))
    """
    found = _NAME.fullmatch(name)
    return (name, None) if found is None else (found["stem"] + found["suffix"], int(found["epoch"]))


def without_part(name: str) -> str:
    """Return the name that a file gets when it is complete.

    Examples
    --------
    >>> without_part("best-0003.safetensors.0f1e2d3c.part"), without_part("probe.npz")
    ('best-0003.safetensors', 'probe.npz')
    """
    return re.sub(rf"(\.[0-9a-f]{{8}})?{re.escape(_PART)}$", "", name)


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


class TrialFiles(ABC):
    """Where trials keep their checkpoints, weights and other files.

    A file, or a folder of files, is identified by the number of its trial, its kind (such as ``"last.safetensors"``)
    and its epoch; None stands for no particular epoch. Instances are sent to workers, so they can be pickled. Test a
    new class with `saccade.testing.TrialFilesContract`.

    Processes may be killed at any instant, so a file is deleted only when the event log has a later epoch.
    """

    is_shared: ClassVar[bool] = False
    """Whether a copy of this object on any machine has the same files; else other machines ask the study's process."""

    @abstractmethod
    def put(self, trial: int, kind: str, epoch: int | None, write: Callable[[Path], object]) -> str:
        """Store a file in one step: after a kill, it is complete or absent. An earlier one is replaced.

        `write` is called with the path at which it writes a file or a folder. The return value is that of `file_name`.
        """

    @abstractmethod
    def get(self, trial: int, kind: str, epoch: int | None = None) -> Path | None:
        """Return a local path of a file, which must not be changed; None if it does not exist."""

    @abstractmethod
    def list(self, trial: int) -> list[tuple[str, int | None]]:
        """Return the kinds and epochs of a trial's complete files, in any order."""

    @abstractmethod
    def delete(self, trial: int, kind: str, epoch: int | None = None) -> None:
        """Remove a file, if there is one; one that is in use may stay."""

    def clean(self, trial: int) -> None:  # noqa: B027  (not every class leaves anything)
        """Remove what killed processes had not finished; the study calls this before each job of the trial."""

    def folder(self, trial: int) -> Path | None:  # noqa: ARG002
        """Return a local folder for further files of a trial, as in `LocalTrialFiles`; None if there is none."""
        return None

    def epochs(self, trial: int, kind: str) -> Sequence[int]:
        """Return the epochs of a trial's files of a kind, in ascending order."""
        return sorted(epoch for name, epoch in self.list(trial) if name == kind and epoch is not None)

    def drop(self, trial: int, *kinds: str, before_epoch: float = float("inf")) -> None:
        """Remove a trial's files of these kinds and earlier epochs."""
        for kind, epoch in self.list(trial):
            if kind in kinds and epoch is not None and epoch < before_epoch:
                self.delete(trial, kind, epoch)


class LocalTrialFiles(TrialFiles):
    """Files in a local folder, with a subfolder for each trial: ``0007/best-0003.safetensors``.

    The folder `root` need not exist.

    Examples
    --------
    >>> import tempfile
    >>> files = LocalTrialFiles(Path(tempfile.mkdtemp()))
    >>> files.put(7, "best.txt", 3, lambda path: path.write_text("weights"))
    'best-0003.txt'
    >>> files.list(7), files.get(7, "best.txt", 3).read_text(), files.get(7, "best.txt", 4)
    ([('best.txt', 3)], 'weights', None)
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, trial: int) -> Path:
        """Return the folder of a trial, whether or not it exists."""
        return self.root / f"{trial:04d}"

    def clean(self, trial: int) -> None:
        """Remove files beside the places of others."""
        for part in self.folder(trial).glob(f"*{_PART}"):
            _remove(part)

    def put(self, trial: int, kind: str, epoch: int | None, write: Callable[[Path], object]) -> str:
        """Write beside the place, then rename."""
        folder, name = self.folder(trial), file_name(kind, epoch)
        folder.mkdir(parents=True, exist_ok=True)
        # A worker that was given up may still write the same file.
        part = folder / f"{name}.{uuid.uuid4().hex[:8]}{_PART}"
        write(part)
        if part.is_dir() or (folder / name).is_dir():  # a rename replaces files by files only
            _remove(folder / name)
        if kind == CONFIG:  # the event log has the configuration as well, so a trial need not wait for the disk
            part.replace(folder / name)
        else:
            replace_durably(part, folder / name)
        return name

    def get(self, trial: int, kind: str, epoch: int | None = None) -> Path | None:
        """Return its path in the folder; pipes and devices count as missing, since reading them may never end."""
        path = self.folder(trial) / file_name(kind, epoch)
        return path if path.is_file() or path.is_dir() else None

    def list(self, trial: int) -> list[tuple[str, int | None]]:
        """Return what is in the trial's folder."""
        folder = self.folder(trial)
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return [parse_name(name) for name in names if not name.endswith(_PART)]

    def delete(self, trial: int, kind: str, epoch: int | None = None) -> None:
        """Remove it from the folder."""
        _remove(self.folder(trial) / file_name(kind, epoch))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class UrlTrialFiles(TrialFiles):
    """Files in a folder at a URL, such as ``s3://bucket/run/trials``, which workers on all machines share.

    A file is one object, and so is a folder, as a tar file: each appears when it is complete. `get` returns copies in a
    temporary folder of the process.

    Examples
    --------
    >>> files = UrlTrialFiles("memory://example/trials")
    >>> files.put(7, "best.txt", 3, lambda path: path.write_text("weights"))
    'best-0003.txt'
    >>> files.list(7), files.get(7, "best.txt", 3).read_text(), files.get(7, "best.txt", 4)
    ([('best.txt', 3)], 'weights', None)
    """

    is_shared = True

    def __init__(self, url: str) -> None:
        self.url = url

    def _file(self, trial: int, name: str = "") -> UrlFile:
        return UrlFile(f"{self.url.rstrip('/')}/{trial:04d}{'/' * bool(name)}{name}")

    def put(self, trial: int, kind: str, epoch: int | None, write: Callable[[Path], object]) -> str:
        """Write a local file, then upload it."""
        name = file_name(kind, epoch)
        with tempfile.TemporaryDirectory(prefix="saccade_") as temporary:
            path = Path(temporary, name)
            write(path)
            other = name if path.is_dir() else name + _FOLDER
            if path.is_dir():
                with tarfile.open(Path(temporary, "folder.tar"), "w") as tar:
                    tar.add(path, arcname=".")
                self._file(trial, name + _FOLDER).upload(Path(temporary, "folder.tar"))
            else:
                self._file(trial, name).upload(path)
        self._file(trial, other).delete()
        return name

    def get(self, trial: int, kind: str, epoch: int | None = None) -> Path | None:
        """Download it, unless this process has the same version."""
        name = file_name(kind, epoch)
        for each in (name, name + _FOLDER):
            file = self._file(trial, each)
            try:
                _, version = file.facts()
            except RemoteError as error:
                if error.kind != "missing":
                    raise
                continue
            folder = _downloads() / hashlib.sha256(f"{file.url} {version}".encode()).hexdigest()[:24]
            if not (folder / name).exists():
                folder.mkdir(exist_ok=True)
                file.download(folder / each)
                if each != name:
                    with tarfile.open(folder / each) as tar:
                        tar.extractall(folder / f"{name}{_PART}", filter="data")
                    (folder / f"{name}{_PART}").rename(folder / name)
            return folder / name
        return None

    def list(self, trial: int) -> list[tuple[str, int | None]]:
        """Return what is at the trial's URL."""
        names = {name.removesuffix(_FOLDER) for name in self._file(trial).names()}
        return [parse_name(name) for name in sorted(names) if not name.endswith(_PART)]

    def delete(self, trial: int, kind: str, epoch: int | None = None) -> None:
        """Remove it at the URL."""
        for name in (file_name(kind, epoch), file_name(kind, epoch) + _FOLDER):
            self._file(trial, name).delete()


@functools.cache
def _downloads() -> Path:
    """Return a temporary folder of this process, which is removed when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="saccade_files_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
