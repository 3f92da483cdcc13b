"""Locking and writing in run folders."""

from __future__ import annotations

import json

import pytest

from saccade.errors import DataError, JournalError, RunInUseError
from saccade.study.run_folder import STARTING, is_vacant, locked, other_entries, write_json_atomically


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
