"""Tests that every class of trial files must pass.

To test one, inherit from `TrialFilesContract` in a test module::

    class TestMyFiles(TrialFilesContract):
        def make(self, tmp_path):
            return MyFiles(tmp_path)
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from saccade.study.trial_files import TrialFiles, parse_name


class TrialFilesContract:
    """The tests; override `make`."""

    def make(self, tmp_path: Path) -> TrialFiles:
        """Return new trial files without any file."""
        raise NotImplementedError

    def test_files_are_found_by_trial_kind_and_epoch(self, tmp_path: Path) -> None:
        files = self.make(tmp_path)
        places = list(itertools.product((0, 12), ("a.txt", "a.b.txt", "c"), (None, 0, 3)))
        names = [files.put(*place, write(repr(place))) for place in places]
        assert [parse_name(name) for name in names] == [place[1:] for place in places]
        for place in places:
            assert read(files.get(*place)) == repr(place)
        for trial in (0, 12):
            assert set(files.list(trial)) == {place[1:] for place in places if place[0] == trial}
            assert files.epochs(trial, "a.txt") == [0, 3]

    def test_what_is_missing_is_none(self, tmp_path: Path) -> None:
        files = self.make(tmp_path)
        assert files.list(5) == []
        files.put(5, "a.txt", 3, write("x"))
        for trial, kind, epoch in ((4, "a.txt", 3), (5, "a.txt", 2), (5, "a.txt", None), (5, "b", 3)):
            assert files.get(trial, kind, epoch) is None

    def test_a_file_is_replaced_by_file_or_folder(self, tmp_path: Path) -> None:
        files = self.make(tmp_path)
        for contents in ("old", {"x": "1", "y": "2"}, {"z": "3"}, {}, "new"):
            files.put(0, "a", 1, write(contents))
            assert read(files.get(0, "a", 1)) == contents
            assert files.list(0) == [("a", 1)]

    def test_a_write_that_fails_changes_nothing(self, tmp_path: Path) -> None:
        def fail(path: Path) -> None:
            path.write_text("half")
            raise ZeroDivisionError

        files = self.make(tmp_path)
        files.put(0, "a.txt", 1, write("whole"))
        for epoch in (1, 2):
            with pytest.raises(ZeroDivisionError):
                files.put(0, "a.txt", epoch, fail)
        assert files.list(0) == [("a.txt", 1)]
        assert read(files.get(0, "a.txt", 1)) == "whole"
        files.put(0, "a.txt", 2, write("again"))
        assert read(files.get(0, "a.txt", 2)) == "again"

    def test_files_are_deleted_once_or_more_often(self, tmp_path: Path) -> None:
        files = self.make(tmp_path)
        for contents in ("x", {"y": "z"}):
            files.put(0, "a", 1, write(contents))
            for _ in range(2):
                files.delete(0, "a", 1)
                assert files.list(0) == []

    def test_earlier_epochs_are_dropped(self, tmp_path: Path) -> None:
        files = self.make(tmp_path)
        for kind in ("a.txt", "b.txt", "c.txt"):
            for epoch in (None, 1, 2, 10_000):
                files.put(3, kind, epoch, write("x"))
        files.drop(3, "a.txt", before_epoch=2)
        files.drop(3, "b.txt")
        left = {kind: [epoch for name, epoch in files.list(3) if name == kind] for kind in ("a.txt", "b.txt", "c.txt")}
        assert {kind: len(epochs) for kind, epochs in left.items()} == {"a.txt": 3, "b.txt": 1, "c.txt": 4}
        assert files.epochs(3, "a.txt") == [2, 10_000]

    def test_another_process_sees_the_same_files(self, tmp_path: Path) -> None:
        files = self.make(tmp_path)
        pickle.loads(pickle.dumps(files)).put(0, "a.txt", 1, write("x"))
        assert read(files.get(0, "a.txt", 1)) == "x"


def write(contents: str | dict[str, str]) -> Callable[[Path], object]:
    """Return a function that writes a file with this text, or a folder with files of these texts."""

    def to(path: Path) -> None:
        if isinstance(contents, str):
            path.write_text(contents)
            return
        path.mkdir()
        for name, text in contents.items():
            (path / name).write_text(text)

    return to


def read(path: Path | None) -> str | dict[str, str]:
    """Return what `write` has written."""
    assert path is not None
    return {file.name: file.read_text() for file in path.iterdir()} if path.is_dir() else path.read_text()
