from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import HyperparameterError
from saccade.events import EpochDone
from saccade.scheduler import MedianScheduler
from saccade.study.trial import Decision, Status
from saccade.testing.scheduler_contract import NUM_EPOCHS, SchedulerContract


class TestMedian(SchedulerContract):
    def make(self):
        return MedianScheduler()

    def test_only_good_trials_are_trained_to_the_end(self):
        study, _ = self.run(1, num_trials=100)
        done = [trial.config["x"] for trial in study.trials[20:] if trial.status is Status.COMPLETED]
        stopped = [trial.config["x"] for trial in study.trials[20:] if trial.status is Status.STOPPED]
        assert statistics.mean(done) > 0.3 + statistics.mean(stopped)
        assert len(stopped) > 20
        assert all(trial.num_epochs < NUM_EPOCHS for trial in study.trials if trial.status is Status.STOPPED)


class TestMedianWithPatience(SchedulerContract):
    def make(self):
        return MedianScheduler(grace_epochs=4, min_trials=1)

    def test_no_trial_is_stopped_before_the_grace_is_over(self):
        study, _ = self.run(3, num_trials=40)
        stopped = {trial.num_epochs for trial in study.trials if trial.status is Status.STOPPED}
        assert min(stopped) == 4


@given(
    curves=st.lists(st.lists(st.integers(-5, 5), min_size=1, max_size=6), min_size=1, max_size=15),
    grace_epochs=st.integers(1, 4),
    min_trials=st.integers(1, 6),
    is_interleaved=st.booleans(),
)
def test_the_rule_is_that_of_the_paper(curves, grace_epochs, min_trials, is_interleaved):
    scheduler = MedianScheduler(grace_epochs, min_trials)
    order = [(trial, epoch) for trial, curve in enumerate(curves) for epoch in range(1, len(curve) + 1)]
    if is_interleaved:
        order.sort(key=lambda step: step[1])
    seen, stopped = {}, set()
    for trial, epoch in order:
        if trial in stopped:
            continue
        curve = curves[trial][:epoch]
        averages = [average for (_, other_epoch), average in seen.items() if other_epoch == epoch]
        is_bad = len(averages) >= min_trials and max(curve) < statistics.median(averages) - 1e-9
        decision = scheduler.on_report(EpochDone(trial, epoch, float(curve[-1])))
        near = bool(averages) and abs(max(curve) - statistics.median(averages)) < 1e-9
        if not near:
            assert decision is (Decision.STOP if is_bad and epoch >= grace_epochs else Decision.CONTINUE)
        if decision is Decision.STOP:
            stopped.add(trial)
        seen[trial, epoch] = statistics.mean(curve)


def answers(scheduler, *reports):
    return [scheduler.on_report(EpochDone(*report)).value for report in reports]


def test_a_trial_as_good_as_the_median_continues():
    assert answers(MedianScheduler(min_trials=1), (0, 1, 0.5), (1, 1, 0.5), (2, 1, 0.4)) == ["continue"] * 2 + ["stop"]


def test_its_best_epoch_counts():
    others = [(trial, epoch, 0.5) for trial in range(3) for epoch in (1, 2)]
    assert answers(MedianScheduler(min_trials=3), *others, (3, 1, 0.6), (3, 2, 0.0))[-1] == "continue"


def test_a_report_before_the_first_epoch_does_not_count():
    scheduler = MedianScheduler(min_trials=1)
    assert answers(scheduler, (0, 0, 0.9), (0, 1, 0.2), (1, 0, 0.1), (1, 1, 0.3), (2, 0, 0.9), (2, 1, 0.1)) == [
        *["continue"] * 5,
        "stop",
    ]


def test_the_last_epoch_counts_for_others_but_stops_no_trial():
    scheduler = MedianScheduler(min_trials=1)
    scheduler.on_report(EpochDone(0, 1, 0.5))
    assert scheduler.on_report(EpochDone(1, 1, 0.1, is_last=True)) is Decision.CONTINUE
    assert scheduler.on_report(EpochDone(2, 1, 0.29)) is Decision.STOP  # the median of 0.5 and 0.1 is 0.3
    assert scheduler.on_report(EpochDone(3, 1, 0.31)) is Decision.CONTINUE


def test_epochs_that_are_reported_again_are_not_compared():
    scheduler = MedianScheduler(min_trials=1)
    reports = [(0, 1, 0.5), (0, 2, 0.5), (0, 1, 0.1), (0, 2, 0.1), (1, 1, 0.4)]
    assert answers(scheduler, *reports) == ["continue"] * 4 + ["stop"]


def test_the_largest_of_numbers_are_compared():
    top = 1.7e308
    reports = [(trial, epoch, top) for trial in range(2) for epoch in range(1, 4)]
    assert answers(MedianScheduler(min_trials=2), *reports, (2, 1, top), (3, 1, -top))[-2:] == ["continue", "stop"]


@pytest.mark.parametrize("name", ["grace_epochs", "min_trials"])
@pytest.mark.parametrize("value", [0, 1.0, "1", None, True])
def test_invalid_numbers(name, value):
    with pytest.raises(HyperparameterError, match=f"{name} was given {value!r}; expected a whole number, 1 or more"):
        MedianScheduler(**{name: value})
