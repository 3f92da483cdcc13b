from __future__ import annotations

import pytest

from saccade.errors import SpaceError
from saccade.searcher.base import Searcher, exhausted
from saccade.space import Dict, Int, Real


class AlwaysDefault(Searcher):
    def suggest(self):
        return self.space.default


def test_a_searcher_needs_no_more_than_suggest():
    searcher = AlwaysDefault({"depth": Int(2, 4), "epochs": 5})
    assert (searcher.space, searcher.seed) == (Dict(depth=Int(2, 4), epochs=5), 0)
    assert searcher.suggest() == {"depth": 2, "epochs": 5}
    assert searcher.observe({"depth": 2, "epochs": 5}, epoch=1, score=0.5, cost=3.0) is None


def test_a_custom_searcher_may_take_starting_configurations():
    class Halving(Searcher):
        def suggest(self):
            return self.next_start() or {"x": 0.5}

    searcher = Halving({"x": Real(0, 1)}, starting_configs=[{"x": 1}, {"x": 1.0}, {}])
    assert [searcher.suggest()["x"] for _ in range(3)] == [1.0, 0.0, 0.5]


def test_a_starting_configuration_that_was_tried_is_skipped():
    searcher = AlwaysDefault({"depth": Int(2, 4)}, starting_configs=[{"depth": 4}, {"depth": 3}])
    assert searcher.on_end({"depth": 4}, has_failed=False) is None
    assert searcher.next_start() == {"depth": 3}
    assert searcher.next_start() is None


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="suggest"):
        Searcher({})


def test_the_message_for_a_wrong_space_has_an_example():
    with pytest.raises(SpaceError, match=r"Int\(1, 2\) \(Int\) is not a mapping. Write for instance Dict\("):
        AlwaysDefault(Int(1, 2))


def test_the_exhausted_message_counts():
    assert "grid has 1 configuration, and" in str(exhausted(1, "grid"))
    assert "space has 12 configurations, and" in str(exhausted(12))
