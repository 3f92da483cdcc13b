from __future__ import annotations

from collections import Counter

import pytest

from saccade.searcher import QMCSearcher
from saccade.space import Bool, Categorical, Real
from saccade.testing.searcher_contract import CONDITIONAL, SearcherContract


class TestQMCSearcher(SearcherContract):
    def make(self, space, seed):
        return QMCSearcher(space, seed=seed)


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_points_fill_every_cell(seed):
    searcher = QMCSearcher({"x": Real(0, 1), "y": Real(1, 1000, log=True)}, seed=seed, first_is_default=False)
    configs = [searcher.suggest() for _ in range(64)]
    assert set(Counter(int(64 * config["x"]) for config in configs).values()) == {1}
    cells = Counter((int(8 * config["x"]), config["y"] > 1000**0.5) for config in configs)
    assert set(cells.values()) == {4}


def test_choices_come_equally_often():
    searcher = QMCSearcher({"a": Categorical(*"abcd"), "b": Bool(), "x": Real(0, 1)}, first_is_default=False)
    configs = [searcher.suggest() for _ in range(64)]
    assert set(Counter((config["a"], config["b"]) for config in configs).values()) == {8}


def test_results_change_nothing():
    one, other = QMCSearcher(CONDITIONAL, seed=3), QMCSearcher(CONDITIONAL, seed=3)
    for score in range(10):
        config = one.suggest()
        assert other.suggest() == config
        one.observe(config, 1, score, 1.0)


def test_a_resumed_search_continues_the_sequence():
    space = {"x": Real(0, 1)}
    whole = QMCSearcher(space, seed=1)
    configs = [whole.suggest() for _ in range(60)]
    resumed = QMCSearcher(space, seed=1)
    for config in configs[:40]:
        resumed.observe(config, 1, 0.5, 1.0)
    assert [resumed.suggest() for _ in range(20)] == configs[40:]
