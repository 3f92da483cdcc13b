"""Tests that every trainable, every class of trial files, and every tracker must pass.

Inherit from one of them in a test module, which pytest collects::

    class TestMyTrainable(TrainableContract):
        config = {"lr": 0.1, "epochs": 4}
        num_epochs = 4
        broken_config = {"lr": "much"}

        def make(self, tmp_path):
            return MyTrainable(...)

    class TestMyTracker(TrackerContract):
        def make(self, tmp_path):
            return MyTracker(tmp_path / "log")
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import pickle
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle
import pytest

from saccade.errors import SearchFailedError
from saccade.events import (
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    Progressed,
    RunStarted,
    TrialCreated,
    Warned,
    WorkerLost,
)
from saccade.executor.ray_files import Bundle, dumps, loads
from saccade.space import Categorical
from saccade.study.trackers import Tracker
from saccade.study.trial import Decision, Job, Trainable
from saccade.study.trial_files import LocalTrialFiles, TrialFiles, parse_name
from saccade.tuning import tune


class TrainableContract:
    """The tests; override `make`, `config`, `num_epochs` and `broken_config`."""

    config: ClassVar[dict[str, Any]]
    """A configuration that trains for `num_epochs`, at least 3, with the same scores each time."""
    num_epochs: ClassVar[int]
    broken_config: ClassVar[dict[str, Any]]
    """A configuration that raises."""

    def make(self, tmp_path: Path) -> Trainable:
        """Return a new trainable."""
        raise NotImplementedError

    def job(self, tmp_path: Path, **changes: Any) -> Job:
        """Return a job for trial 5 with files of its own."""
        folder = tmp_path / f"trials_{len(list(tmp_path.glob('trials_*')))}"
        folder.mkdir()
        return Job(**{"trial": 5, "config": dict(self.config), "files": LocalTrialFiles(folder), **changes})

    def test_it_reports_every_epoch_and_ends_without_a_reason(self, tmp_path: Path) -> None:
        reporter = Reports()
        assert self.make(tmp_path).train(self.job(tmp_path), reporter) == ""
        assert self.num_epochs >= 3
        assert [report.epoch for report in reporter.reports] == list(range(1, self.num_epochs + 1))
        for report in reporter.reports:
            assert report.trial == 5
            assert type(report.score) is float
            assert math.isfinite(report.score)
            assert report.seconds >= 0
            assert all(type(value) in (float, int) for value in report.metrics.values())
        assert pickle.loads(pickle.dumps(reporter.reports)) == reporter.reports

    @pytest.mark.parametrize("decision", [Decision.STOP, Decision.PAUSE])
    def test_decisions_end_it(self, tmp_path: Path, decision: Decision) -> None:
        reporter = Reports(decision, at_epoch=2)
        assert self.make(tmp_path).train(self.job(tmp_path), reporter) != ""
        assert [report.epoch for report in reporter.reports] == [1, 2]

    @pytest.mark.parametrize("until_epoch", [2, 999])
    def test_it_ends_at_the_jobs_or_the_configurations_last_epoch(self, tmp_path: Path, until_epoch: int) -> None:
        reporter = Reports()
        assert self.make(tmp_path).train(self.job(tmp_path, until_epoch=until_epoch), reporter) == ""
        assert len(reporter.reports) == min(until_epoch, self.num_epochs)

    @pytest.mark.parametrize("seconds_left", [0.0, -5.0])
    def test_without_time_it_reports_once_and_returns_the_reason(self, tmp_path: Path, seconds_left: float) -> None:
        reporter = Reports()
        reason = self.make(tmp_path).train(self.job(tmp_path, seconds_left=seconds_left), reporter)
        assert reason == "time limit"
        assert len(reporter.reports) == 1

    def test_an_exception_of_a_report_ends_it(self, tmp_path: Path) -> None:
        def broken_report(event: EpochDone) -> Decision:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            self.make(tmp_path).train(self.job(tmp_path), broken_report)

    def test_jobs_do_not_depend_on_those_before(self, tmp_path: Path) -> None:
        trainable = self.make(tmp_path)
        first, stopped, again = Reports(), Reports(Decision.STOP, at_epoch=1), Reports()
        trainable.train(self.job(tmp_path), first)
        trainable.train(self.job(tmp_path), stopped)
        with pytest.raises(Exception, match=r"."):
            trainable.train(self.job(tmp_path, config=dict(self.broken_config)), Reports())
        trainable.train(self.job(tmp_path), again)
        assert again.scores == first.scores

    def test_it_can_be_sent_to_a_worker(self, tmp_path: Path) -> None:
        trainable = self.make(tmp_path)
        here, there = Reports(), Reports()
        sent = pickle.loads(cloudpickle.dumps(trainable))
        sent.train(self.job(tmp_path, until_epoch=1), there)
        trainable.train(self.job(tmp_path, until_epoch=1), here)
        assert there.scores == here.scores

    def test_it_runs_where_only_copies_of_its_files_are(self, tmp_path: Path) -> None:
        trainable, here, there = self.make(tmp_path), Reports(), Reports()
        trainable.train(self.job(tmp_path, until_epoch=1), here)
        job, files = trainable.portable(self.job(tmp_path, until_epoch=1))
        pickled, paths = dumps((trainable, job)), dict[str, str]()
        with contextlib.ExitStack() as undo:
            for bundle in map(Bundle.of, files):
                copy = tmp_path / "node" / bundle.key
                for file in bundle.files:
                    (copy / file.name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(file.path, copy / file.name)
                    undo.callback(shutil.move, copy / file.name, file.path)
                paths |= {path: str(copy / name) for path, _, name in bundle.places}
            sent, sent_job = loads(pickled, paths)
            sent.train(sent_job, there)
        assert there.scores == here.scores

    def test_it_continues_from_its_checkpoint_as_if_it_had_never_stopped(self, tmp_path: Path) -> None:
        whole, first, rest = Reports(), Reports(Decision.PAUSE, at_epoch=1), Reports()
        self.make(tmp_path).train(self.job(tmp_path), whole)
        job = self.job(tmp_path)
        self.make(tmp_path).train(job, first)
        checkpoint = first.reports[-1].checkpoint
        if checkpoint is None:
            pytest.skip("it has no checkpoints")
        self.make(tmp_path).train(replace(job, checkpoint=checkpoint), rest)
        assert [report.epoch for report in rest.reports] == list(range(2, self.num_epochs + 1))
        assert first.scores + rest.scores == whole.scores


class Reports:
    """Keeps reports; returns the decision at the given epoch."""

    def __init__(self, decision: Decision = Decision.CONTINUE, at_epoch: int = 0) -> None:
        self._decision, self._at_epoch = decision, at_epoch
        self.reports: list[EpochDone] = []

    def __call__(self, event: EpochDone) -> Decision:
        self.reports.append(event)
        return self._decision if event.epoch == self._at_epoch else Decision.CONTINUE

    @property
    def scores(self) -> list[float]:
        return [report.score for report in self.reports]


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


class TrackerContract:
    """The tests; override `make`."""

    def make(self, tmp_path: Path) -> Tracker:
        """Return a new tracker, which may write into the folder."""
        raise NotImplementedError

    def test_a_search_causes_no_warning(self, tmp_path: Path) -> None:
        space = {"x": Categorical(1, 3, 2)}
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            result = tune(lambda config: config["x"], space, callbacks=[self.make(tmp_path)], verbosity=0)
        assert result.best_config == {"x": 3}

    def test_a_failed_search_causes_no_warning(self, tmp_path: Path) -> None:
        with warnings.catch_warnings(), pytest.raises(SearchFailedError):
            warnings.simplefilter("error", UserWarning)
            tune(lambda config: config["y"], {"x": 1}, callbacks=[self.make(tmp_path)], verbosity=0)

    def test_it_accepts_unusual_events_and_does_not_change_them(self, tmp_path: Path) -> None:
        class Unknown(Event):
            """Of a later version."""

        events = [
            RunStarted("", None, None),
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
        tracker.open(None)
        for event in events:
            tracker.on_event(event)
        tracker.close()
        assert repr(events) == repr(before)  # NaN is not equal to itself
