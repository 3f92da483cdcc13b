from __future__ import annotations

import json

import pytest

from saccade.testing import TrackerContract
from saccade.trackers.trackio import TrackioTracker


@pytest.fixture(autouse=True)
def trackio():
    """Import the library when its folder is set, which it reads once."""
    return pytest.importorskip("trackio")


class TestTrackio(TrackerContract):
    def make(self, tmp_path):
        return TrackioTracker()


def test_epochs_and_the_result_are_in_the_project(search, tmp_path, monkeypatch, capsys, trackio):
    monkeypatch.setenv("TRACKIO_PROJECT", "project")
    search("trackio", path=tmp_path / "run")
    assert capsys.readouterr().out == ""
    name = json.loads((tmp_path / "run" / "trackers.json").read_text())["trackio"]
    (run,) = trackio.Api().runs("project")
    assert run.name == name
    assert name.startswith("run-")
    assert run.config["metric"] == "loss"
    logs = trackio.SQLiteStorage.get_logs("project", name)
    losses = [each["loss"] for each in logs if "loss" in each]
    assert losses == pytest.approx([1, 1 / 2, 1 / 3, 1, 1 / 2, 1 / 3, 3, 3 / 2, 1])
    assert [each["result/best_trial"] for each in logs if "leaderboard" in each] == [0]


def test_a_resumed_search_continues_its_run(search, tmp_path, monkeypatch, trackio):
    monkeypatch.setenv("TRACKIO_PROJECT", "resumed")
    search("trackio", path=tmp_path, num_trials=1)
    search("trackio", path=tmp_path, num_trials=2, resume=True)
    (run,) = trackio.Api().runs("resumed")
    logs = trackio.SQLiteStorage.get_logs("resumed", run.name)
    assert [each["loss"] for each in logs if "loss" in each] == pytest.approx([1, 1 / 2, 1 / 3, 1, 1 / 2, 1 / 3])
