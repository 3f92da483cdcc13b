"""The files of trials on machines that do not see the folder of the study: its process stores them, chunk by chunk."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.executor.worker import ask
from saccade.study.trial_files import LocalTrialFiles, TrialFiles, file_name

CHUNK = 16 * 2**20
"""Bytes of a file in one message."""

INCOMING = ".incoming_"
"""Prefix of folders beside that of the trials, for files that have not arrived completely."""

_UNUSED_S = 3600.0  # age from which a temporary folder is removed whose process is gone


@dataclass(frozen=True)
class FileCall:
    """A call of a method of `FileServer`, sent from a worker to the study."""

    method: str
    arguments: tuple[Any, ...]


class FilesOfStudy(TrialFiles):
    """What a job gets in place of the study's `files`: they themselves where a worker sees their folder, else messages.

    A worker sees the folder if `token`, a file in it, is there. Files that a job gets are copies, as long as it lasts.
    """

    def __init__(self, files: TrialFiles, token: Path | None) -> None:
        self._files, self._token = files, token
        self._copies: Path | None = None

    @property
    def _direct(self) -> TrialFiles | None:
        return self._files if self._token is not None and self._token.is_file() else None

    def folder(self, trial: int) -> Path | None:
        """Return the study's folder of a trial, where it is seen."""
        return None if (direct := self._direct) is None else direct.folder(trial)

    def put(self, trial: int, kind: str, epoch: int | None, write: Callable[[Path], object]) -> str:
        """Write here and send it; the study's process stores it in one step when all of it has arrived."""
        if (direct := self._direct) is not None:
            return direct.put(trial, kind, epoch, write)
        with tempfile.TemporaryDirectory(prefix=_temporary_prefix()) as folder:
            root, key = Path(folder) / file_name(kind, epoch), uuid.uuid4().hex
            write(root)
            for path in [root, *(sorted(root.rglob("*")) if root.is_dir() else ())]:
                name = path.relative_to(root).as_posix()
                if path.is_dir():
                    ask(FileCall("receive", (key, name, None)))
                    continue
                with path.open("rb") as file:
                    chunk = file.read(CHUNK)
                    while True:  # an empty file is one chunk
                        ask(FileCall("receive", (key, name, chunk)))
                        if not (chunk := file.read(CHUNK)):
                            break
        stored: str = ask(FileCall("put", (key, trial, kind, epoch)))
        return stored

    def get(self, trial: int, kind: str, epoch: int | None = None) -> Path | None:
        """Return the file, or a copy of it that has been fetched."""
        if (direct := self._direct) is not None:
            return direct.get(trial, kind, epoch)
        entries: list[tuple[str, bool]] | None = ask(FileCall("entries", (trial, kind, epoch)))
        if entries is None:
            return None
        if self._copies is None:
            self._copies = Path(tempfile.mkdtemp(prefix=_temporary_prefix()))
            weakref.finalize(self, shutil.rmtree, self._copies, ignore_errors=True)
        root = Path(tempfile.mkdtemp(dir=self._copies)) / file_name(kind, epoch)
        for name, is_folder in entries:
            if is_folder:
                (root / name).mkdir(parents=True)
                continue
            with (root / name).open("wb") as file:
                while chunk := ask(FileCall("read", (trial, kind, epoch, name, file.tell()))):
                    file.write(chunk)
        return root

    def list(self, trial: int) -> list[tuple[str, int | None]]:
        """Return what the study has."""
        direct = self._direct
        found: list[tuple[str, int | None]] = ask(FileCall("list", (trial,))) if direct is None else direct.list(trial)
        return found

    def delete(self, trial: int, kind: str, epoch: int | None = None) -> None:
        """Let the study remove it."""
        if (direct := self._direct) is None:
            ask(FileCall("delete", (trial, kind, epoch)))
        else:
            direct.delete(trial, kind, epoch)


def _temporary_prefix() -> str:
    """Return the prefix of this process's temporary folders; remove those that killed processes have left."""
    for folder in Path(tempfile.gettempdir()).glob("saccade_job_*"):
        is_gone = Path("/proc/self").exists() and not Path("/proc", folder.name.split("_")[2]).exists()
        with contextlib.suppress(OSError):
            if is_gone and time.time() - folder.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(folder, ignore_errors=True)
    return f"saccade_job_{os.getpid()}_"


class FileServer:
    """Answers the calls of workers from the study's files; files that arrive are collected in a temporary folder.

    The folder is beside the study's, if that is local, so that it is renamed into its place and not copied.
    """

    def __init__(self) -> None:
        self._incoming: dict[str, Path] = {}  # by key

    def answer(self, files: TrialFiles, call: FileCall) -> Any:
        """Return the answer; an error is an answer, too, and is raised in the worker."""
        try:
            return getattr(self, f"_{call.method}")(files, *call.arguments)
        except Exception as error:
            return error

    def discard(self) -> None:
        """Remove what has arrived in part."""
        for folder in self._incoming.values():
            shutil.rmtree(folder, ignore_errors=True)
        self._incoming.clear()

    def _receive(self, files: TrialFiles, key: str, name: str, chunk: bytes | None) -> None:
        if key not in self._incoming:
            parent = files.root.parent if isinstance(files, LocalTrialFiles) else None
            if parent is not None:
                parent.mkdir(parents=True, exist_ok=True)
            self._incoming[key] = Path(tempfile.mkdtemp(prefix=INCOMING, dir=parent))
        path = self._incoming[key] / "file" / name
        if chunk is None:
            path.mkdir(parents=True)
            return
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            file.write(chunk)

    def _put(self, files: TrialFiles, key: str, trial: int, kind: str, epoch: int | None) -> str:
        folder = self._incoming.pop(key)
        try:
            return files.put(trial, kind, epoch, lambda path: shutil.move(folder / "file", path))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _entries(self, files: TrialFiles, trial: int, kind: str, epoch: int | None) -> list[tuple[str, bool]] | None:
        root = files.get(trial, kind, epoch)
        if root is None:
            return None
        paths = [root, *(sorted(root.rglob("*")) if root.is_dir() else ())]
        return [(path.relative_to(root).as_posix(), path.is_dir()) for path in paths]

    def _read(self, files: TrialFiles, trial: int, kind: str, epoch: int | None, name: str, start: int) -> bytes:
        root = files.get(trial, kind, epoch)
        if root is None:
            raise FileNotFoundError(f"{file_name(kind, epoch)} of trial {trial} was removed while it was read")
        with (root / name).open("rb") as file:
            file.seek(start)
            return file.read(CHUNK)

    def _list(self, files: TrialFiles, trial: int) -> list[tuple[str, int | None]]:
        return files.list(trial)

    def _delete(self, files: TrialFiles, trial: int, kind: str, epoch: int | None) -> None:
        files.delete(trial, kind, epoch)
