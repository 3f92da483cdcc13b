from __future__ import annotations

import math
import time
from typing import ClassVar

import numpy as np
import pytest

from saccade.errors import DivergedError
from saccade.events import EpochDone
from saccade.study.function import FunctionTrainable
from saccade.study.trial import Decision, Job, Trainable, Trial
from saccade.testing.trial_contracts import Reports, TrainableContract


class TestFunctionTrainable(TrainableContract):
    config: ClassVar = {"x": 2.0, "num_epochs": 4}
    num_epochs = 4
    broken_config: ClassVar = {"num_epochs": 4}

    def make(self, tmp_path):
        def train(config, report):
            for epoch in range(1, config["num_epochs"] + 1):
                report(epoch=epoch, score=config["x"] * epoch, loss=1 / epoch)

        return FunctionTrainable(train)


def train(function, score_name="score", **job):
    reports = Reports()
    reason = FunctionTrainable(function, score_name).train(Job(**{"trial": 0, "config": {}, **job}), reports)
    return reason, reports.reports


def test_reports_are_counted_unless_they_name_the_epoch():
    def counted(config, report):
        report(score=1)
        report(epoch=np.int64(5), score=2)
        report(score=3)

    _, reports = train(counted)
    assert [(report.epoch, report.score) for report in reports] == [(1, 1.0), (5, 2.0), (6, 3.0)]


def test_the_score_has_the_name_it_was_given_and_all_else_is_a_metric():
    def figures(config, report):
        report(reward=np.float32(0.5), loss=np.float64(0.25), num=np.int64(3), broken=math.nan)

    _, (report,) = train(figures, "reward")
    assert report.score == 0.5
    assert {name: type(figure) for name, figure in report.metrics.items()} == dict.fromkeys(
        ["loss", "num", "broken"], float
    )
    assert (report.metrics["loss"], report.metrics["num"]) == (0.25, 3.0)


@pytest.mark.parametrize(
    ("figures", "error", "message"),
    [
        ({"reward": 1.0}, TypeError, r"report\(\) was called with \['reward'\], without the score 'score'"),
        ({"score": "high"}, ValueError, "could not convert string to float: 'high'"),
        ({"score": None}, TypeError, "NoneType"),
        ({"score": math.nan}, DivergedError, "the score of epoch 1 is nan; a score is a finite number"),
        ({"score": -math.inf}, DivergedError, "the score of epoch 1 is -inf"),
        ({"score": 1.0, "epoch": 0}, ValueError, "epoch=0 but epochs are counted from 1"),
        ({"score": 1.0, "epoch": 1.5}, TypeError, "'float' object cannot be interpreted as an integer"),
    ],
)
def test_wrong_reports_are_refused(figures, error, message):
    with pytest.raises(error, match=message):
        train(lambda config, report: report(**figures))


def test_epochs_go_up():
    def backward(config, report):
        report(epoch=3, score=1.0)
        report(epoch=3, score=1.0)

    with pytest.raises(ValueError, match="epoch=3 after epoch 3, but epochs go up"):
        train(backward)


def test_stop_is_raised_by_report_and_finally_blocks_run():
    cleaned = []

    def endless(config, report):
        try:
            while True:
                try:
                    report(score=1.0)
                except Exception:
                    pytest.fail("the way out is no Exception")
        finally:
            cleaned.append(True)

    trainable, reports = FunctionTrainable(endless), Reports(Decision.STOP, at_epoch=3)
    assert trainable.train(Job(0, {}), reports) == "stopped by the scheduler"
    assert (len(reports.reports), cleaned) == (3, [True])


def test_time_limit_ends_a_function_that_would_continue():
    def endless(config, report):
        while True:
            time.sleep(0.01)
            report(score=1.0)

    reason, reports = train(endless, seconds_left=0.3)
    assert reason == "time limit"
    assert 1 <= len(reports) <= 30


def test_no_epoch_is_started_that_would_take_longer_than_the_remaining_time():
    def slow(config, report):
        for _ in range(9):
            time.sleep(0.2)
            report(score=1.0)

    assert [report.epoch for report in train(slow, seconds_left=0.3)[1]] == [1]


def test_the_seconds_of_an_epoch_leave_out_what_the_study_does_between():
    def quick(config, report):
        report(score=1.0)
        report(score=1.0)

    seconds = []

    def slow_report(event):
        time.sleep(0.4)
        seconds.append(event.seconds)
        return Decision.CONTINUE

    FunctionTrainable(quick).train(Job(0, {}), slow_report)
    assert max(seconds) < 0.3


def test_the_best_report_is_the_first_among_equals():
    trial = Trial(0, {})
    assert (trial.best_report, trial.num_epochs, trial.seconds) == (None, 0, 0)
    trial.reports += [EpochDone(0, epoch, score, 1.5) for epoch, score in [(1, 0.3), (2, 0.7), (4, 0.7), (5, 0.1)]]
    assert trial.best_report.epoch == 2
    assert (trial.num_epochs, trial.seconds) == (5, 6.0)


def test_decisions_and_trainables():
    assert [decision.value for decision in Decision] == ["continue", "pause", "stop"]
    with pytest.raises(TypeError, match="train"):
        Trainable()


class TestReportsOfATrial:
    def trial(self, *epochs):
        trial = Trial(0, {})
        for epoch, score in epochs:
            assert trial.add(EpochDone(0, epoch, score, 1.0))
        return trial

    def test_the_first_may_be_of_epoch_0(self):
        trial = self.trial((0, 0.5))
        assert (trial.num_epochs, trial.best_report.epoch, trial.seconds) == (0, 0, 1.0)

    def test_repeated_epochs_add_seconds_but_are_not_new(self):
        trial = self.trial((0, 0.1), (1, 0.2), (2, 0.3))
        assert [trial.add(EpochDone(0, epoch, 0.9, 1.0)) for epoch in (0, 1, 2, 3)] == [False, False, False, True]
        assert [report.score for report in trial.reports] == [0.1, 0.2, 0.3, 0.9]
        assert trial.seconds == 7.0

    def test_dropped_reports_that_come_again_are_not_new(self):
        trial = self.trial((1, 0.2), (2, 0.9), (3, 0.3))
        trial.drop_after(1)
        assert (trial.num_epochs, trial.best_report.score, trial.seconds) == (1, 0.2, 3.0)
        assert [trial.add(EpochDone(0, epoch, 0.4, 1.0)) for epoch in (2, 3, 4)] == [False, False, True]
        assert [report.score for report in trial.reports] == [0.2, 0.4, 0.4, 0.4]
        assert (trial.best_report.epoch, trial.seconds) == (2, 6.0)

    def test_all_can_be_dropped(self):
        trial = self.trial((0, 0.2), (1, 0.9))
        trial.drop_after(-1)
        assert (trial.reports, trial.best_report, trial.num_epochs, trial.seconds) == ([], None, 0, 2.0)
