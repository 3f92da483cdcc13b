from __future__ import annotations

import statistics

from saccade.searcher import CmaEsSearcher
from saccade.space import Bool, Categorical, Dict, Real
from saccade.testing.searcher_contract import LearningSearcherContract, best_of


class TestCmaEsSearcher(LearningSearcherContract):
    def make(self, space, seed):
        return CmaEsSearcher(space, seed=seed)


SPHERE = Dict({f"x{index}": Real(0, 1) for index in range(4)})


def sphere(config):
    return -sum((value - 0.3) ** 2 for value in config.values())


def test_it_converges():
    early = statistics.median(best_of(CmaEsSearcher(SPHERE, seed=seed), sphere, 40) for seed in range(9))
    late = statistics.median(best_of(CmaEsSearcher(SPHERE, seed=seed), sphere, 160) for seed in range(9))
    assert late > early / 20


def test_it_starts_where_the_first_results_were_best():
    for seed in range(5):
        searcher = CmaEsSearcher(SPHERE, seed=seed, first_is_default=False)
        for index in range(20):
            config = dict.fromkeys(SPHERE, index / 20)
            searcher.observe(config, 1, -abs(index - 16), 1.0)  # best at 0.8
        suggested = [searcher.suggest() for _ in range(6)]
        assert statistics.fmean(value for config in suggested for value in config.values()) > 0.65


def test_the_best_choices_are_found():
    searcher = CmaEsSearcher({"which": Categorical(*"abcd"), "flag": Bool(), "x": Real(0, 1)}, seed=0)
    best_of(searcher, lambda config: (config["which"] == "c") + config["flag"] - abs(config["x"] - 0.5), 60)
    suggested = [searcher.suggest() for _ in range(10)]
    assert sum(config["which"] == "c" for config in suggested) >= 5
    assert sum(config["flag"] for config in suggested) >= 6


def test_few_startup_trials_suffice():
    searcher = CmaEsSearcher(SPHERE, seed=0, num_startup_trials=2)
    assert best_of(searcher, sphere, 60) > -0.05
