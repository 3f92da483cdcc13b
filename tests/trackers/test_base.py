"""What the trackers of libraries share, without a library."""

from __future__ import annotations

import json
import math
import threading

import pytest

from saccade.events import EpochDone, JobDone, JobFailed, RunFinished, RunStarted, TrialCreated, TrialRestarted
from saccade.space import Dict
from saccade.study.event_log import EventLog
from saccade.testing import TrackerContract
from saccade.trackers.base import LibraryTracker, flat


class Recording(LibraryTracker):
    """Records the calls; all objects of a test wait for each other before they have started."""

    barrier: threading.Barrier | None = None

    def __init__(self, library="json"):
        self.library = library  # type: ignore[misc]
        super().__init__()
        self.calls = []

    def start(self, name, earlier):
        if self.barrier is not None:
            self.barrier.wait(30)
        self.calls.append(("start", name, earlier))
        return earlier or f"id of {self.library}"

    def configure(self, values):
        self.calls.append(("configure", dict(values)))

    def start_trial(self, trial):
        self.calls.append(("start_trial", trial.number))

    def log_epoch(self, trial, report, values, *, is_best):
        self.calls.append(("log_epoch", trial.number, report.epoch, dict(values), is_best))

    def end_job(self, trial):
        self.calls.append(("end_job", trial.number, trial.status.value))

    def finish(self, summary):
        self.calls.append(("finish", dict(summary)))

    def end(self, *, is_finished):
        self.calls.append(("end", is_finished))


class TestRecording(TrackerContract):
    def make(self, tmp_path):
        return Recording()


def follow(tracker, folder, events):
    tracker.open(folder)
    for event in events:
        tracker.on_event(event)
    tracker.close()


def test_events_become_calls(tmp_path):
    tracker = Recording()
    events = [
        RunStarted("/runs/mine", 3, None, metric="loss"),
        TrialCreated(0, {"x": 1}),
        EpochDone(0, 1, -0.5, 2.0, {"loss": 0.5, "f1": 0.25}),
        EpochDone(0, 2, -0.75, 2.0, {"loss": 0.75}),
        JobDone(0, "paused"),
        RunFinished(0, -0.5, 5.0),
    ]
    follow(tracker, tmp_path, events)
    assert [call[0] for call in tracker.calls[:2]] == ["start", "configure"]
    assert tracker.calls[0] == ("start", "mine", None)
    assert tracker.calls[1][1]["num_trials_limit"] == 3
    assert tracker.calls[2:] == [
        ("start_trial", 0),
        ("log_epoch", 0, 1, {"loss": 0.5, "f1": 0.25, "score": -0.5, "seconds": 2.0}, True),
        ("log_epoch", 0, 2, {"loss": 0.75, "score": -0.75, "seconds": 2.0}, False),
        ("end_job", 0, "paused"),
        ("finish", {"best_trial": 0, "best_score": -0.5, "num_trials": 1, "run_seconds": 5.0}),
        ("end", True),
    ]


def test_a_resumed_run_has_the_trials_of_earlier_sessions_and_its_id(tmp_path):
    earlier = [
        TrialCreated(0, {"x": 1}),
        EpochDone(0, 1, 0.9),
        JobDone(0),
        TrialCreated(1, {"x": 2}),
        EpochDone(1, 1, 0.5),
    ]
    later = [TrialRestarted(1, -1), EpochDone(1, 1, 0.7), JobDone(1), RunFinished(0, 0.9, 1.0)]
    calls = []
    for events in (earlier, later):
        tracker = Recording()
        with EventLog(tmp_path / "events.jsonl", Dict({})) as log:
            for event in (RunStarted("/runs/mine", None, None), *events):
                log(event)
        follow(tracker, tmp_path, [RunStarted("/runs/mine", None, None), *events])
        calls.append(tracker.calls)
    assert calls[0][-1] == ("end", False)
    assert calls[1][0] == ("start", "mine", "id of json")
    assert [call[-1] for call in calls[1] if call[0] == "log_epoch"] == [False]  # 0.9 was better
    table = tracker.leaderboard()
    assert table[["trial", "score", "x"]].to_numpy().tolist() == [[0, 0.9, 1], [1, 0.7, 2]]


def test_trackers_that_start_at_once_keep_all_ids(search, tmp_path, monkeypatch):
    names = ["json", "csv", "math", "queue"]
    monkeypatch.setattr(Recording, "barrier", threading.Barrier(len(names)))
    search(*[Recording(name) for name in names], path=tmp_path, num_trials=1)
    assert json.loads((tmp_path / "trackers.json").read_text()) == {name: f"id of {name}" for name in names}


def test_failed_trials_are_last_in_the_leaderboard(tmp_path):
    tracker = Recording()
    events = [TrialCreated(0, {}), JobFailed(0, "why"), TrialCreated(1, {}), EpochDone(1, 0, -3.0), JobDone(1)]
    follow(tracker, None, [RunStarted("", None, None), *events])
    assert tracker.leaderboard()[["trial", "status"]].to_numpy().tolist() == [[1, "completed"], [0, "failed"]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1), ("a", "a"), (True, True), (math.inf, "inf"), (None, "None"), ([1, 2], "[1, 2]"), ({}, "{}")],
)
def test_configurations_are_text_and_numbers(value, expected):
    assert flat({"a": {"b": value}, 3: 1}) == {"a.b": expected, "3": 1}
