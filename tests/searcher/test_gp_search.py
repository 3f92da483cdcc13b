from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.searcher import GPSearcher, RandomSearcher
from saccade.searcher.optuna_search import clipped_scores
from saccade.space import Int, Real
from saccade.testing.searcher_contract import QUADRATIC, LearningSearcherContract, best_of, quadratic


class TestGPSearcher(LearningSearcherContract):
    seeds = (0,)  # proposals are slow

    def make(self, space, seed):
        return GPSearcher(space, seed=seed)


@given(scores=st.lists(st.floats(allow_nan=False, max_value=1e308), min_size=1, max_size=20))
def test_scores_are_clipped_in_order_and_finite(scores):
    clipped = clipped_scores(scores)
    assert all(-1 <= value <= 1 for value in clipped)
    for one, value in zip(scores, clipped, strict=True):
        for other, other_value in zip(scores, clipped, strict=True):
            assert (one >= other) <= (value >= other_value)


def test_good_scores_keep_their_distances():
    assert clipped_scores([0.8, 0.6, 0.5, -math.inf]) == pytest.approx([1.0, 0.75, 0.625, 0.625])
    assert clipped_scores([1.0, 1.0, 1.0, 0.5]) == [1.0, 1.0, 1.0, 0.5]
    assert clipped_scores([-math.inf, -math.inf]) == [0.0, 0.0]


def test_exploding_losses():
    searcher = GPSearcher(QUADRATIC, seed=0)
    assert best_of(searcher, lambda config: -math.exp(-10 * quadratic(config)), 30) > -1.5


def test_whole_numbers_in_a_wide_range():
    searcher = GPSearcher({"n": Int(1, 10**9, log=True), "x": Real(0, 1)}, seed=0)
    best = best_of(searcher, lambda config: -abs(math.log10(config["n"]) - 4), 20)
    assert type(searcher.suggest()["n"]) is int
    assert best > -0.3


def test_the_model_sees_a_bounded_number_of_configurations():
    searcher = GPSearcher({"x": Real(0, 1)}, seed=0)
    source = RandomSearcher(searcher.space, seed=1)
    for index in range(500):
        config = source.suggest()
        searcher.on_begin(config)
        if index < 400:
            searcher.observe(config, 1, 1.0 if index == 7 else config["x"] / 2, 1.0)
            searcher.on_end(config, has_failed=False, is_complete=True)
    shown = searcher._shown()
    assert len(shown) == 32 + 32 + 16
    assert {7, 399, 499} <= {trial.number for trial in shown}


def test_optuna_does_not_log_its_optional_packages(caplog):
    searcher = GPSearcher({"x": Real(0, 1)}, num_startup_trials=2)
    best_of(searcher, lambda config: config["x"], 4)
    assert not caplog.records
