"""Faults of the old API that concern tuning any function, mended; their numbers are those of docs and issue."""

from __future__ import annotations

import pytest

import saccade.core as ag
from saccade.errors import SearchFailedError, UnknownNameError


def report_x(args, reporter):
    reporter(epoch=1, reward=args["x"])


def test_fault_03_grid_is_a_grid_and_unknown_searchers_are_errors():
    space = {"x": ag.space.Int(1, 3), "flip": ag.space.Bool()}
    scheduler = ag.scheduler.LocalSequentialScheduler(report_x, space, searcher="Grid", num_trials=6)
    scheduler.run()
    tried = [tuple(config.values()) for config in scheduler.config_history.values()]
    assert tried == [(x, flip) for x in (1, 2, 3) for flip in (False, True)]
    with pytest.raises(UnknownNameError, match="Unknown searcher 'bayesian-ish'"):
        ag.scheduler.LocalSequentialScheduler(report_x, space, searcher="bayesian-ish", num_trials=1)


def test_fault_06_a_trials_exception_is_shown(caplog):
    def train_fn(args, reporter):
        if args["x"] == 2:
            raise RuntimeError("no memory for two")
        reporter(epoch=1, reward=args["x"])

    space = {"x": ag.space.Int(1, 3)}
    scheduler = ag.scheduler.LocalSequentialScheduler(train_fn, space, searcher="grid", num_trials=3)
    scheduler.run()
    assert "RuntimeError: no memory for two" in scheduler.training_history[1][-1]["traceback"]
    assert "RuntimeError: no memory for two" in caplog.text
    assert "in train_fn" in caplog.text


def test_fault_06_a_search_in_which_all_trials_fail_raises():
    def train_fn(args, reporter):
        raise RuntimeError("nothing works")

    scheduler = ag.scheduler.LocalSequentialScheduler(train_fn, {"x": ag.space.Int(1, 3)}, num_trials=2)
    with pytest.raises(SearchFailedError, match="nothing works"):
        scheduler.run()
