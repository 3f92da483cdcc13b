"""Locking and writing in run folders."""

from __future__ import annotations

import json
import os

import pytest

from saccade.errors import DataError, HyperparameterError, JournalError, RunInUseError
from saccade.study.event_log import EventLog
from saccade.study.run_folder import LOCK, STARTING, is_vacant, locked, other_entries, reading, write_json_atomically
from saccade.study.trial_files import LocalTrialFiles
from saccade.tuning.folder import ABOUT, read_about


def test_a_folder_is_made_and_used_by_one_run_at_a_time(tmp_path):
    folder = tmp_path / "a" / "run"
    with locked(folder):
        with pytest.raises(RunInUseError, match="Another run is using the folder"), locked(folder):
            pass
        assert is_vacant(folder)
    with locked(folder):
        (folder / STARTING).mkdir()
        assert other_entries(folder) == []
    assert issubclass(RunInUseError, DataError)
    assert issubclass(RunInUseError, JournalError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_pipes_in_the_place_of_files_are_never_read(tmp_path):
    (tmp_path / "0000").mkdir()
    for name in ("run.json", "events.jsonl", ABOUT, "0000/best.npy"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=r"run\.json is damaged .*not a regular file"), reading(tmp_path / "run.json"):
        (tmp_path / "run.json").read_bytes()
    with pytest.raises(JournalError, match=r"events\.jsonl is not a regular file"):
        list(EventLog(tmp_path / "events.jsonl"))
    with pytest.raises(HyperparameterError, match=r"tune\.json is missing or damaged .*not a regular file"):
        read_about(tmp_path)
    assert LocalTrialFiles(tmp_path).get(0, "best.npy") is None


def test_a_lock_that_is_a_folder_is_named(tmp_path):
    (tmp_path / LOCK).mkdir()
    with pytest.raises(DataError, match=r"\.lock cannot be locked"), locked(tmp_path):
        pass


def test_other_files_are_not_touched(tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert not is_vacant(tmp_path)
    assert not is_vacant(tmp_path / "thesis.tex")
    assert is_vacant(tmp_path / "new")
    assert other_entries(tmp_path / "new") == []


def test_a_record_is_replaced_in_its_own_folder(tmp_path):
    path = tmp_path / "run.json"
    for value in (1, 2):
        write_json_atomically(path, {"value": value, "object": object})
        assert json.loads(path.read_text()) == {"value": value, "object": repr(object)}
    with pytest.raises(TypeError):
        write_json_atomically(path, {(1, 2): 3})  # fails in the middle
    assert json.loads(path.read_text())["value"] == 2
