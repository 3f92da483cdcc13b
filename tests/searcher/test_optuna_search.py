from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.space_strategies import DICTS, FINITE_DICTS
from saccade.errors import ExhaustedSearchSpaceError, HyperparameterError
from saccade.searcher import CmaEsSearcher, GPSearcher, QMCSearcher, RandomSearcher, TPESearcher
from saccade.searcher.optuna_search import normal_scores
from saccade.space import Categorical, Int, Real, canonical_key
from saccade.testing.searcher_contract import ENDLESS

MODELS = [TPESearcher, GPSearcher, CmaEsSearcher]
EVENTS = st.tuples(st.integers(0, 3), st.floats(), st.sampled_from(["run", "pause", "complete", "fail"]))


@pytest.mark.parametrize("make", [QMCSearcher, TPESearcher, CmaEsSearcher])
@settings(suppress_health_check=list(HealthCheck), deadline=None)  # Optuna is imported in the first one
@given(space=DICTS | FINITE_DICTS, seed=st.integers(0, 2**64), events=st.lists(EVENTS, min_size=6, max_size=6))
def test_any_space_and_any_sequence_of_events(make, space, seed, events):
    options = {} if make is QMCSearcher else {"num_startup_trials": 2}
    searcher = make(space, seed=seed, **options)
    keys = set()
    for epoch, score, event in events:
        try:
            config = searcher.suggest()
        except ExhaustedSearchSpaceError:
            assert len(keys) <= space.num_configurations
            return
        assert config in space
        keys.add(canonical_key(config))
        searcher.observe(config, epoch, score, 1.0)
        if event != "run":
            searcher.on_end(config, has_failed=event == "fail", is_complete=event == "complete")
    assert len(keys) == len(events)


@pytest.mark.parametrize("make", MODELS)
def test_draws_are_random_until_there_are_enough_scores(make):
    model, drawn = make(ENDLESS, seed=4, num_startup_trials=5), RandomSearcher(ENDLESS, seed=4)
    for index in range(8):
        config = model.suggest()
        assert (config == drawn.suggest()) is (index < 5)
        model.observe(config, 1, -config["lr"], 1.0)


@pytest.mark.parametrize("make", MODELS)
def test_running_configurations_do_not_count_as_scores(make):
    model, drawn = make(ENDLESS, seed=4, num_startup_trials=5), RandomSearcher(ENDLESS, seed=4)
    assert [model.suggest() for _ in range(12)] == [drawn.suggest() for _ in range(12)]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("num", [0, -1, 2.5, True, "10", None])
def test_invalid_numbers_of_starting_trials(make, num):
    with pytest.raises(HyperparameterError, match="num_startup_trials was given"):
        make({"x": Real(0, 1)}, num_startup_trials=num)


@pytest.mark.parametrize("make", MODELS)
def test_a_sampler_sees_a_bounded_number_with_the_best_and_the_latest(make):
    searcher = make({"x": Real(0, 1)}, seed=0)
    xs = [index / 600 for index in range(600)]
    for x in xs:
        searcher.observe({"x": x}, 1, -abs(x - 0.25), 1.0)
    shown = [trial.params["x"] for trial in searcher._shown()]
    assert len(shown) <= 200
    assert xs[150] in shown
    assert xs[-1] in shown
    assert xs[300] not in shown
    assert shown == sorted(shown)


def test_no_sampler_is_used_for_ranges_near_the_limits_of_floats():
    for space in ({"x": Real(-1e308, 1e308)}, {"x": Real(1.0, math.nextafter(1.0, 2.0) + 1e-12)}, {"x": [1]}):
        searcher = TPESearcher(space, num_startup_trials=1)
        searcher.observe(searcher.suggest(), 1, 0.5, 1.0)
        assert not searcher._is_askable
        with contextlib.suppress(ExhaustedSearchSpaceError):
            assert searcher.suggest() in searcher.space


@pytest.mark.parametrize("make", MODELS)
def test_equal_values_of_two_branches(make):
    searcher = make({"x": Categorical(Int(1, 12), Int(8, 20), 5)}, seed=0, num_startup_trials=3)
    seen = []
    for _ in range(20):
        seen.append(searcher.suggest()["x"])
        searcher.observe({"x": seen[-1]}, 1, -abs(seen[-1] - 10), 1.0)
    assert sorted(seen) == list(range(1, 21))
    with pytest.raises(ExhaustedSearchSpaceError):
        searcher.suggest()


@pytest.mark.parametrize("make", [QMCSearcher, *MODELS])
def test_there_are_no_warnings_and_no_logs(make, capfd):
    searcher = make(ENDLESS, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index in range(14):
            searcher.observe(searcher.suggest(), 1, index, 1.0)
    assert capfd.readouterr() == ("", "")


def test_optuna_is_not_imported_until_a_sampler_is_used():
    code = (
        "import sys\n"
        "from saccade.searcher import make_searcher\n"
        "from saccade.space import Real\n"
        "searcher = make_searcher('tpe', {'x': Real(0, 1)})\n"
        "searcher.suggest()\n"
        "print(sorted({'optuna', 'scipy', 'torch'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@given(merits=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=12))
def test_normal_scores_keep_the_order_and_lie_around_zero(merits):
    merits.sort(reverse=True)
    scores = normal_scores(merits)
    assert sum(scores) / len(scores) == pytest.approx(0, abs=0.2)
    assert [merit == merits[0] for merit in merits] == [score == scores[0] for score in scores]
    assert scores == sorted(scores, reverse=True)
