"""Tests that every tracker must pass.

To test a tracker, inherit from `TrackerContract` in a test module::

    class TestMyTracker(TrackerContract):
        def make(self, tmp_path):
            return MyTracker(tmp_path / "log")
"""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path

import pytest

from saccade.errors import SearchFailedError
from saccade.events import EpochDone, Event, JobDone, JobFailed, Progressed, TrialCreated, Warned, WorkerLost
from saccade.space import Categorical
from saccade.study.trackers import Tracker
from saccade.tuning import tune


class TrackerContract:
    """The tests; override `make`."""

    def make(self, tmp_path: Path) -> Tracker:
        """Return a new tracker, which may write into the folder."""
        raise NotImplementedError

    def test_a_search_causes_no_warning(self, tmp_path: Path) -> None:
        space = {"x": Categorical(1, 3, 2)}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = tune(lambda config: config["x"], space, callbacks=[self.make(tmp_path)], verbosity=0)
        assert result.best_config == {"x": 3}

    def test_a_failed_search_causes_no_warning(self, tmp_path: Path) -> None:
        with warnings.catch_warnings(), pytest.raises(SearchFailedError):
            warnings.simplefilter("error")
            tune(lambda config: config["y"], {"x": 1}, callbacks=[self.make(tmp_path)], verbosity=0)

    def test_it_accepts_unusual_events_and_does_not_change_them(self, tmp_path: Path) -> None:
        class Unknown(Event):
            """Of a later version."""

        events = [
            Warned("ä\n✓"),
            TrialCreated(3, {"nested": {"list": [1, None]}, "object": object}),
            EpochDone(3, 1, 1e300, metrics={"loss": math.nan}),
            JobFailed(3, "reason", "Traceback", is_worker_lost=True),
            JobDone(0, "paused"),
            Progressed("decoding", 1, 2),
            WorkerLost(0),
            Unknown(),
        ]
        before = copy.deepcopy(events)
        tracker = self.make(tmp_path)
        assert isinstance(tracker, Tracker)
        for event in events:
            tracker.on_event(event)
        tracker.close()
        assert repr(events) == repr(before)  # NaN is not equal to itself
