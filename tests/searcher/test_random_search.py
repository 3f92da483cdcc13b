from __future__ import annotations

import math

import pytest

from saccade.errors import ExhaustedSearchSpaceError
from saccade.searcher import RandomSearcher
from saccade.space import Categorical, Dict, Int, Real, canonical_key
from saccade.testing.searcher_contract import ENDLESS, FINITE, SearcherContract


class TestRandomSearcher(SearcherContract):
    def make(self, space, seed):
        return RandomSearcher(space, seed=seed)


class TestRandomSearcherWithoutDefault(SearcherContract):
    def make(self, space, seed):
        return RandomSearcher(space, seed=seed, first_is_default=False)


def test_the_defaults_come_first_unless_they_were_observed():
    assert RandomSearcher(ENDLESS).suggest() == ENDLESS.default
    assert RandomSearcher(ENDLESS, first_is_default=False).suggest() != ENDLESS.default
    searcher = RandomSearcher(FINITE)
    searcher.observe(FINITE.default, 1, 0.5, 1.0)
    assert searcher.suggest() != FINITE.default


def test_seeds_differ():
    suggestions = {
        canonical_key(RandomSearcher(ENDLESS, seed=seed, first_is_default=False).suggest()) for seed in range(10)
    }
    assert len(suggestions) == 10


def test_an_observed_configuration_that_came_through_json_is_recognised():
    searcher = RandomSearcher({"size": Categorical((1, 2), (3, 4))})
    searcher.observe({"size": [1, 2]}, 1, 0.5, 1.0)
    assert searcher.suggest() == {"size": (3, 4)}


def test_foreign_observations_do_not_count_as_configurations_of_the_space():
    searcher = RandomSearcher({"n": Int(1, 2)})
    searcher.observe({"n": 3}, 1, 0.5, 1.0)
    searcher.observe({"m": 1}, 1, 0.5, 1.0)
    assert sorted(searcher.suggest()["n"] for _ in range(2)) == [1, 2]
    with pytest.raises(ExhaustedSearchSpaceError, match="2 configurations"):
        searcher.suggest()


def test_an_unlikely_rest_is_found_in_random_order():
    # Branches are drawn evenly, so that each number of the last one has a chance of 1 in 25,000.
    space = {"x": Categorical(*"abcdefghijklmnopqrstuvwxyz"[:24], Int(1, 1000))}
    searcher = RandomSearcher(space, seed=0)
    suggested = [searcher.suggest()["x"] for _ in range(1024)]
    assert len(set(suggested)) == 1024
    numbers = [value for value in suggested if isinstance(value, int)]
    assert numbers[-500:] != sorted(numbers[-500:])
    with pytest.raises(ExhaustedSearchSpaceError, match="1024 configurations"):
        searcher.suggest()


def test_a_rest_too_large_to_list_is_enumerated_in_order():
    space = {"x": Categorical(*range(-500, 0), Int(1, 2**53))}
    searcher = RandomSearcher(space, seed=0)
    for number in range(-500, 0):
        searcher.observe({"x": number}, 1, 0.5, 1.0)
    suggested = [searcher.suggest()["x"] for _ in range(200)]
    assert len(set(suggested)) == 200
    assert min(suggested) >= 1


def test_an_infinite_space_with_few_floats_does_not_hang():
    tiny = Real(1.0, math.nextafter(1.0, 2.0))
    searcher = RandomSearcher(Dict(x=tiny))
    assert sorted(searcher.suggest()["x"] for _ in range(2)) == [tiny.lower, tiny.upper]
    with pytest.raises(ExhaustedSearchSpaceError, match="draws gave no new configuration after 2"):
        searcher.suggest()


def test_draws_spread_over_the_space():
    searcher = RandomSearcher(ENDLESS, seed=1)
    configs = [searcher.suggest() for _ in range(300)]
    assert {str(type(config["model.name"])) for config in configs} == {str(kind) for kind in (str, dict, list)}
    small = sum(config["lr"] < 10**-2.5 for config in configs)
    assert 110 < small < 190


def test_a_search_of_many_trials_can_be_resumed():
    first, resumed = (RandomSearcher({"x": Real(0, 1)}, seed=3) for _ in range(2))
    for _ in range(10_050):
        resumed.observe(first.suggest(), 1, 0.5, 1.0)
    assert resumed.suggest() == first.suggest()
