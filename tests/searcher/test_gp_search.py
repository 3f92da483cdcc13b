from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers import GPSampler

from saccade.searcher import GPSearcher, RandomSearcher
from saccade.searcher.optuna_study import QuickGPSampler
from saccade.searcher.samplers import clipped_scores
from saccade.space import Bool, Int, Real
from saccade.testing.searcher_contract import QUADRATIC, LearningSearcherContract, best_of, quadratic


class TestGPSearcher(LearningSearcherContract):
    seeds = range(3)  # it takes long

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


def test_losses_that_explode_hide_nothing():
    searcher = GPSearcher(QUADRATIC, seed=0)
    assert best_of(searcher, lambda config: -math.exp(-10 * quadratic(config)), 30) > -1.5


def test_whole_numbers_in_a_wide_range():
    searcher = GPSearcher({"n": Int(1, 10**9, log=True), "x": Real(0, 1)}, seed=0)
    best = best_of(searcher, lambda config: -abs(math.log10(config["n"]) - 4), 20)
    assert type(searcher.suggest()["n"]) is int
    assert best > -0.3


def test_the_process_sees_a_bounded_number_of_configurations():
    """What a proposal costs does not grow with the search: the best, the latest and some running ones are seen."""
    searcher = GPSearcher({"x": Real(0, 1)}, seed=0)
    source = RandomSearcher(searcher.space, seed=1)
    for index in range(500):
        config = source.suggest()
        searcher._begin(config)
        if index < 400:
            searcher.observe(config, 1, 1.0 if index == 7 else config["x"] / 2, 1.0)
            searcher.on_end(config, has_failed=False, is_complete=True)
    shown = searcher._shown()
    assert len(shown) == 32 + 32 + 16
    assert {7, 399, 499} <= {trial.number for trial in shown}


@pytest.mark.parametrize("num_running", [0, 3])
def test_the_quick_search_finds_what_the_gradients_find(num_running):
    """Both maximise the same expected improvement; what is found may be a little lower, and never far from it."""
    values = {}
    for sampler_class in (GPSampler, QuickGPSampler):
        kept = []

        class Watched(sampler_class):
            def _optimize_acqf(self, acqf, best_params):
                point = super()._optimize_acqf(acqf, best_params)
                kept.append(float(acqf.eval_acqf_no_grad(point[None])[0]))  # noqa: B023 (one list for each class)
                return point

        searcher = GPSearcher({"x": Real(0, 1), "y": Real(0, 1), "n": Int(0, 9), "b": Bool()}, seed=0)
        searcher._make_sampler = lambda shown: Watched(seed=0, n_startup_trials=1)
        source = RandomSearcher(searcher.space, seed=1)
        for _ in range(30):
            config = source.suggest()
            score = -((config["x"] - 0.7) ** 2) - (config["y"] - config["n"] / 10) ** 2 - 0.1 * config["b"]
            searcher.observe(config, 1, score, 1.0)
            searcher.on_end(config, has_failed=False, is_complete=True)
        for _ in range(num_running + 1):
            searcher.suggest()
        values[sampler_class] = kept[0]
    assert values[QuickGPSampler] > values[GPSampler] - 0.5  # logarithms of expected improvements


def test_it_says_nothing_of_packages_that_are_not_there(caplog):
    searcher = GPSearcher({"x": Real(0, 1)}, num_startup_trials=2)
    best_of(searcher, lambda config: config["x"], 4)
    assert not caplog.records
