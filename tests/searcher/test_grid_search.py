from __future__ import annotations

import pytest

from saccade.errors import ExhaustedSearchSpaceError, HyperparameterError, UnknownNameError
from saccade.searcher import GridSearcher
from saccade.space import Bool, Categorical, Int, Real
from saccade.testing.searcher_contract import SearcherContract


class TestGridSearcher(SearcherContract):
    def make(self, space, seed):
        return GridSearcher(space, seed=seed)


def drain(searcher):
    configs = []
    while True:
        try:
            configs.append(searcher.suggest())
        except ExhaustedSearchSpaceError:
            return configs


def test_the_whole_grid_in_order():
    searcher = GridSearcher({"lr": Real(0.01, 1, log=True), "k": 7, "flip": Bool()}, num_points=3)
    assert [tuple(config.values()) for config in drain(searcher)] == [
        (0.01, 7, False),
        (0.01, 7, True),
        (0.1, 7, False),
        (0.1, 7, True),
        (1.0, 7, False),
        (1.0, 7, True),
    ]


def test_four_points_by_default():
    assert len(drain(GridSearcher({"lr": Real(0, 1), "n": Int(1, 100), "few": Int(1, 3)}))) == 4 * 4 * 3
    by_name = GridSearcher({"lr": Real(0, 1), "n": Int(1, 100)}, num_points=2, num_points_by_name={"n": 5})
    assert len(drain(by_name)) == 2 * 5


def test_the_seed_changes_nothing():
    space = {"lr": Real(0, 1), "m": Categorical("a", {"w": Int(1, 9)})}
    assert drain(GridSearcher(space, seed=1)) == drain(GridSearcher(space, seed=2))


def test_exhaustion_counts_the_grid_not_the_space():
    searcher = GridSearcher({"lr": Real(0, 1)}, num_points=3)
    searcher.observe({"lr": 0.5}, 1, 0.9, 1.0)
    searcher.observe({"lr": 0.3}, 1, 0.9, 1.0)
    assert [searcher.suggest()["lr"] for _ in range(2)] == [0.0, 1.0]
    with pytest.raises(ExhaustedSearchSpaceError, match="grid has 3 configurations"):
        searcher.suggest()


def test_wrong_options_are_refused_when_made():
    space = {"learning_rate": Real(0, 1)}
    with pytest.raises(UnknownNameError, match="Did you mean 'learning_rate'"):
        GridSearcher(space, num_points_by_name={"learning_rat": 3})
    with pytest.raises(HyperparameterError, match="num_points was given 0"):
        GridSearcher(space, num_points=0)
    with pytest.raises(HyperparameterError, match="must be a dict"):
        GridSearcher(space, num_points_by_name=[3])
