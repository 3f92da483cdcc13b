from __future__ import annotations

from saccade_mutation import MutationSearcher

from saccade import Real, tune
from saccade.searcher import make_searcher
from saccade.testing import SearcherContract


class TestMutationSearcher(SearcherContract):
    def make(self, space, seed):
        return MutationSearcher(space, seed=seed)


def test_the_entry_point_registers_it_with_its_options():
    searcher = make_searcher("mutation", {"x": Real(0, 1)}, seed=1, rate=0.5)
    assert isinstance(searcher, MutationSearcher)
    assert searcher.rate == 0.5


def test_values_of_the_best_configuration_are_kept():
    space = {name: Real(0, 1) for name in "abcdefgh"}
    result = tune(lambda config: sum(config.values()), space, searcher="mutation", num_trials=60, verbosity=0)
    drawn = tune(lambda config: sum(config.values()), space, searcher="random", num_trials=60, verbosity=0)
    assert result.best_score > drawn.best_score
