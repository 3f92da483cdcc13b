from __future__ import annotations

import threading
from pathlib import Path

import pytest

from saccade.training.trial.drafts import Drafts


def test_a_file_is_written_while_something_else_goes_on(tmp_path: Path) -> None:
    is_computed = threading.Event()

    def write(path: Path) -> None:
        assert is_computed.wait(10)
        path.write_text("whole")

    with Drafts(tmp_path) as drafts:
        draft = drafts.begin("last", write)
        is_computed.set()  # would never come to pass if `begin` waited for the file
        draft.keep(tmp_path / "last-0001")
    assert [path.name for path in tmp_path.iterdir()] == ["last-0001"]
    assert drafts.seconds > 0
    assert (tmp_path / "last-0001").read_text() == "whole"


def test_what_is_not_kept_goes_also_when_something_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with Drafts(tmp_path) as drafts:
            drafts.begin("a", lambda path: path.write_text("a")).keep(tmp_path / "kept")
            drafts.begin("b", lambda path: path.write_text("b"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]


def test_a_file_that_cannot_be_written_is_told_when_it_is_wanted_and_leaves_the_old_one(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    old = tmp_path / "state"
    old.write_text("old")
    with Drafts(tmp_path) as drafts:
        drafts.begin("other", write)  # nobody wants it, so nobody hears of it
    with pytest.raises(OSError, match="No space"), Drafts(tmp_path) as drafts:
        drafts.begin("last", write).keep(old)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("state", "old")]
