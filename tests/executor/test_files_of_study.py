"""Files of trials through messages, without a cluster: the worker's side and the study's side in one process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saccade.executor import files_of_study
from saccade.executor.files_of_study import FileCall, FileServer, FilesOfStudy
from saccade.study.trial_files import LocalTrialFiles, TrialFiles
from saccade.testing import TrialFilesContract


class Connection:
    """Answers as the process of the study does, with chunks of 3 bytes."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.files, self.server, self.calls = LocalTrialFiles(root), FileServer(), list[FileCall]()
        patch.setattr(files_of_study, "ask", self.ask)
        patch.setattr(files_of_study, "CHUNK", 3)

    def ask(self, call: FileCall) -> Any:
        self.calls.append(call)
        answer = self.server.answer(self.files, call)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    made = Connection(tmp_path / "run" / "trials", monkeypatch)
    yield made
    made.server.discard()
    assert {path.name for path in (tmp_path / "run").glob("*")} <= {"trials"}  # nothing that arrived in part is left


class TestFilesOfStudy(TrialFilesContract):
    @pytest.fixture(autouse=True)
    def _connect(self, connection: Connection) -> None:
        self.connection = connection

    def make(self, tmp_path: Path) -> TrialFiles:
        return FilesOfStudy(self.connection.files, None)


def test_files_are_sent_in_chunks_and_a_folder_as_it_is(connection: Connection) -> None:
    files = FilesOfStudy(connection.files, None)

    def write(folder: Path) -> None:
        (folder / "deep" / "empty").mkdir(parents=True)
        (folder / "deep" / "nothing").touch()
        (folder / "large").write_bytes(b"0123456789")

    assert files.put(3, "checkpoint", 2, write) == "checkpoint-0002"
    assert max(len(call.arguments[2] or b"") for call in connection.calls if call.method == "receive") == 3
    copy = files.get(3, "checkpoint", 2)
    assert copy is not None
    assert not copy.is_relative_to(connection.files.root)
    assert (copy / "large").read_bytes() == b"0123456789"
    assert (copy / "deep" / "nothing").read_bytes() == b""
    assert (copy / "deep" / "empty").is_dir()
    del files
    assert not copy.exists()


def test_an_error_of_the_study_is_raised_in_the_worker(connection: Connection) -> None:
    files = FilesOfStudy(connection.files, None)
    connection.files.root.parent.mkdir()
    connection.files.root.write_text("a file where the folder should be")
    with pytest.raises(NotADirectoryError):
        files.put(0, "a", 1, lambda path: path.write_text("x"))


def test_a_worker_that_sees_the_folder_uses_it(connection: Connection, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    files = FilesOfStudy(connection.files, token)
    assert files.put(0, "a", 1, lambda path: path.write_text("x")) == "a-0001"
    assert files.get(0, "a", 1) == connection.files.get(0, "a", 1)
    assert files.folder(0) == connection.files.folder(0)
    assert connection.calls == []


def test_copies_that_killed_processes_have_left_are_removed(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("whether a process runs is read from /proc")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    folders = {
        name: tmp_path / "tmp" / f"saccade_job_{pid}_x" for name, pid in (("gone", 2**30), ("ours", os.getpid()))
    }
    for folder in (*folders.values(), recent := tmp_path / "tmp" / f"saccade_job_{2**30}_y"):
        folder.mkdir(parents=True)
        os.utime(folder, None if folder == recent else (0, 0))
    FilesOfStudy(connection.files, None).put(0, "a", 1, lambda path: path.write_text("x"))
    assert {path.name for path in (tmp_path / "tmp").iterdir()} == {folders["ours"].name, recent.name}
