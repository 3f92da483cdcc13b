"""Tests that every trainable must pass.

To test a trainable, inherit from `TrainableContract` in a test module::

    class TestMyTrainable(TrainableContract):
        config = {"lr": 0.1, "epochs": 4}
        num_epochs = 4
        broken_config = {"lr": "much"}

        def make(self, tmp_path):
            return MyTrainable(...)
"""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle
import pytest

from saccade.events import EpochDone
from saccade.study.trial import Decision, Job, Trainable
from saccade.study.trial_files import LocalTrialFiles


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
