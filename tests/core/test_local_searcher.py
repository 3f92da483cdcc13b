from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.core.searcher.local_searcher import LocalGridSearcher, LocalRandomSearcher, LocalSearcher
from saccade.errors import ExhaustedSearchSpaceError, HyperparameterError, SpaceError
from saccade.space import Bool, Categorical, Int, Real
from saccade.testing.searcher_contract import SearcherContract

SPACE = {"x": Real(0, 1), "opt": Categorical("sgd", "adamw"), 7: 42}


def config(x=0.5, opt="sgd", static=42):
    return {"x": x, "opt": opt, 7: static}


class TestLocalRandomSearcher(SearcherContract):
    def make(self, space, seed):
        return LocalRandomSearcher(space, random_seed=seed)


def test_without_results_there_is_no_best():
    searcher = LocalSearcher(SPACE)
    assert searcher.get_best_reward() == -math.inf
    assert searcher.get_best_config() == {}
    assert searcher.get_results() == []
    assert searcher.get_reward(config()) == -math.inf


def test_the_last_reward_of_a_configuration_counts():
    searcher = LocalSearcher(SPACE)
    searcher.update(config(0.1), reward=0.8)
    searcher.update(config(0.2), reward=0.3)
    assert (searcher.get_best_config(), searcher.get_best_reward()) == (config(0.1), 0.8)
    searcher.update(config(0.1), reward=0.2)
    assert (searcher.get_best_config(), searcher.get_best_reward()) == (config(0.2), 0.3)
    assert searcher.get_reward(config(0.1)) == 0.2
    assert len(searcher._results) == 2


def test_results_come_best_first_or_earliest_first():
    searcher = LocalSearcher(SPACE)
    rewards = {0.1: 0.5, 0.2: -3, 0.3: 0.9}
    for x, reward in rewards.items():
        searcher.update(config(x), reward=reward)
    assert searcher.get_results() == [(config(0.3), 0.9), (config(0.1), 0.5), (config(0.2), -3)]
    assert searcher.get_results(sort=False) == [(config(x), reward) for x, reward in rewards.items()]


def test_the_reward_is_named_or_the_only_metric():
    searcher = LocalSearcher(SPACE, reward_attr="accuracy")
    searcher.update(config(0.1), epoch=3, accuracy=0.4)
    searcher.update(config(0.2), reward=0.6)
    assert [reward for _, reward in searcher.get_results()] == [0.6, 0.4]
    for figures in ({}, {"epoch": 3, "loss": 0.1}):
        with pytest.raises(SpaceError, match="'accuracy' is not among"):
            searcher.update(config(), **figures)


@pytest.mark.parametrize("reward", ["0.5", None, [0.5], math.nan, 1j])
def test_a_reward_is_a_number(reward):
    with pytest.raises(AssertionError, match="must be a number"):
        LocalSearcher(SPACE).update(config(), reward=reward)


def test_a_reward_may_be_a_numpy_scalar():
    searcher = LocalSearcher(SPACE)
    searcher.update(config(), reward=np.float64(0.25))
    assert type(searcher.get_best_reward()) is float


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        ["x", "opt", 7],
        {},
        {"x": 0.5, "opt": "sgd"},
        {"x": 0.5, 7: 42},
        {**config(), "more": 1},
        config(x=1.5),
        config(x="0.5"),
        config(opt="lion"),
    ],
)
def test_invalid_configurations_are_refused_by_all_methods(wrong):
    searcher = LocalSearcher(SPACE)
    for use in (
        lambda: searcher.update(wrong, reward=1),
        lambda: searcher.get_reward(wrong),
        lambda: searcher.register_pending(wrong),
        lambda: searcher.evaluation_failed(wrong),
    ):
        with pytest.raises(AssertionError, match="configuration"):
            use()


def test_constants_do_not_distinguish_configurations():
    searcher = LocalSearcher(SPACE)
    searcher.update(config(static="other"), reward=0.7)
    assert searcher.get_reward(config()) == 0.7
    assert searcher.get_best_config() == config()


def test_zero_and_one_are_accepted_for_a_bool():
    searcher = LocalSearcher({"flip": Bool()})
    searcher.update({"flip": 1}, reward=0.7)
    assert searcher.get_reward({"flip": True}) == 0.7
    assert searcher.get_reward({"flip": False}) == -math.inf


@given(x=st.floats(0, 1), opt=st.sampled_from(["sgd", "adamw"]), other=st.floats(0, 1))
def test_a_key_stands_for_one_configuration_whatever_the_order(x, opt, other):
    searcher = LocalSearcher(SPACE)
    key = searcher._pickle_config(config(x, opt))
    assert key == searcher._pickle_config(dict(reversed(config(x, opt).items())))
    assert (key == searcher._pickle_config(config(other, opt))) is (x == other)
    assert searcher._unpickle_config(key) == config(x, opt)


def test_results_belong_to_the_caller():
    searcher = LocalSearcher({"size": Categorical([1, 2], [3, 4])})
    searcher.update({"size": [1, 2]}, reward=1)
    searcher.get_best_config()["size"].append(3)
    assert searcher.get_best_config() == {"size": [1, 2]}


def test_the_base_class_requires_get_config():
    with pytest.raises(NotImplementedError, match="get_config"):
        LocalSearcher(SPACE).get_config()


def test_observations_of_a_study_keep_the_best_epoch():
    searcher = LocalGridSearcher(SPACE)
    for epoch, score in enumerate([0.2, 0.9, 0.4], start=1):
        searcher.observe(config(0), epoch, score, 1.0)
    assert searcher.get_results() == [(config(0), 0.9)]


def test_random_search_begins_with_the_defaults_and_repeats_nothing():
    searcher = LocalRandomSearcher({"a": Int(1, 3, default=2), "b": Bool(default=True)})
    configs = [searcher.get_config() for _ in range(6)]
    assert configs[0] == {"a": 2, "b": True}
    assert len({tuple(config.values()) for config in configs}) == 6
    with pytest.raises(ExhaustedSearchSpaceError):
        searcher.get_config()


def test_random_search_follows_its_seed():
    draws = {seed: LocalRandomSearcher({"x": Real(0, 1)}, False, seed).get_config()["x"] for seed in (1, 2)}
    assert draws[1] != draws[2]
    assert LocalRandomSearcher({"x": Real(0, 1)}, False, 1).get_config() == {"x": draws[1]}


def test_random_search_records_its_proposals():
    searcher = LocalRandomSearcher(SPACE)
    configs = [searcher.get_config() for _ in range(5)]
    assert len(searcher._results) == 5
    assert {searcher.get_reward(config) for config in configs} == {searcher.get_best_reward()} == {-math.inf}
    assert searcher.get_best_config() == {}
    searcher.update(configs[3], reward=0.2)
    searcher.register_pending(configs[3])
    assert (searcher.get_best_config(), searcher.get_best_reward()) == (configs[3], 0.2)
    searcher.evaluation_failed(configs[3])
    assert searcher.get_best_reward() == -math.inf


@pytest.mark.parametrize("make", [LocalRandomSearcher, LocalGridSearcher])
def test_recorded_and_pending_configurations_are_not_proposed(make):
    searcher = make({"a": Categorical(1, 2, 3, 4), "epochs": 5})
    searcher.update({"a": 1, "epochs": 9}, reward=0.1)
    searcher.register_pending({"a": 3, "epochs": 5})
    assert sorted(searcher.get_config()["a"] for _ in range(2)) == [2, 4]
    with pytest.raises(ExhaustedSearchSpaceError):
        searcher.get_config()


def test_grid_search_records_rewarded_configurations_only():
    searcher = LocalGridSearcher({"a": Int(1, 3), "b": Bool()})
    configs = [searcher.get_config() for _ in range(6)]
    for reward, tried in enumerate(configs[:2]):
        searcher.update(tried, accuracy=reward)
    assert len(searcher._results) == 2
    assert searcher.get_reward(configs[5]) == -math.inf
    searcher.evaluation_failed(configs[1])
    assert searcher.get_results() == [(configs[0], 0)]


def values_of(searcher, name="p"):
    values = []
    with contextlib.suppress(ExhaustedSearchSpaceError):
        while True:
            values.append(searcher.get_config()[name])
    return values


@pytest.mark.parametrize(
    ("domain", "num", "points"),
    [
        (Categorical("a", 7, ["hello", 2]), 2, ["a", 7, ["hello", 2]]),
        (Bool(), 4, [0, 1]),
        (Int(12, 15), 4, [12, 13, 14, 15]),
        (Int(12, 15), 9, [12, 13, 14, 15]),
        (Int(12, 15), 3, [12, 13, 15]),
        (Int(12, 15), 2, [12, 15]),
        (Int(12, 15, default=14), 1, [14]),
        (Int(-5, 5), 4, [-5, -1, 1, 5]),
        (Int(1, 1000, log=True), 4, [1, 10, 100, 1000]),
        (Real(12, 16), 4, [12.0, 13.333333333333334, 14.666666666666666, 16.0]),
        (Real(12, 16, log=True), 4, [12.0, 13.207708995578509, 14.536964742657117, 16.0]),
        (Real(-1e308, 1e308), 3, [-1e308, 0.0, 1e308]),
    ],
)
def test_points_of_a_grid(domain, num, points):
    assert values_of(LocalGridSearcher({"p": domain}, num)) == points
    assert values_of(LocalGridSearcher({"p": domain}, grid_numeric_spaces_points_number=num)) == points


@given(low=st.integers(-50, 50), step=st.integers(1, 20), num=st.integers(2, 12))
def test_whole_points_are_not_truncated(low, step, num):
    points = [low + step * index for index in range(num)]
    assert values_of(LocalGridSearcher({"p": Int(low, points[-1])}, num)) == points


def test_the_last_parameter_of_a_grid_varies_fastest():
    searcher = LocalGridSearcher({"a": Categorical("x", "y"), "static": [1], "b": Int(12, 15)}, 2)
    assert [searcher.get_config() for _ in range(4)] == [
        {"a": a, "static": [1], "b": b} for a in ("x", "y") for b in (12, 15)
    ]


def test_numbers_of_points_by_name(caplog):
    space = {"b": Int(12, 15), 3: Real(0, 1), "model": Categorical("small", {"width": Int(1, 100)})}
    searcher = LocalGridSearcher(space, 2, {"b": 3, 3: 1, "model/1/width": 4})
    assert values_of(searcher, "b") == [12] * 5 + [13] * 5 + [15] * 5
    ignored = LocalGridSearcher({"a": Categorical(1, 2), "lr": Real(0, 1)}, 2, {"a": 3, "lrr": 3})
    assert values_of(ignored, "lr") == [0, 1, 0, 1]
    assert ["'a'" in text or "'lrr', which is ignored. Did you mean 'lr'?" in text for text in caplog.messages] == [
        True,
        True,
    ]


@pytest.mark.parametrize("num", [0, -1, 2.5, True, "4", None, math.inf])
def test_invalid_numbers_of_points(num):
    with pytest.raises(HyperparameterError, match="grid_numeric_spaces_points_number was given"):
        LocalGridSearcher({"x": Real(0, 1)}, num)
    with pytest.raises(HyperparameterError, match=r"grid_num_sample_settings\['x'\] was given"):
        LocalGridSearcher({"x": Real(0, 1)}, 4, {"x": num})


def test_a_subclass_only_overrides_get_config():
    class Halving(LocalSearcher):
        def get_config(self):
            return config(self.get_best_config().get("x", 1) / 2)

    searcher = Halving(SPACE)
    searcher.update(searcher.suggest(), reward=1)
    assert searcher.suggest() == config(0.25)
