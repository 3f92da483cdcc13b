from __future__ import annotations

import pytest

from saccade.errors import SpaceError
from saccade.searcher import Searcher
from saccade.searcher.base import exhausted
from saccade.space import Dict, Int


class AlwaysDefault(Searcher):
    def suggest(self):
        return self.space.default


def test_a_searcher_needs_no_more_than_suggest():
    searcher = AlwaysDefault({"depth": Int(2, 4), "epochs": 5})
    assert (searcher.space, searcher.seed) == (Dict(depth=Int(2, 4), epochs=5), 0)
    assert searcher.suggest() == {"depth": 2, "epochs": 5}
    assert searcher.observe({"depth": 2, "epochs": 5}, epoch=1, score=0.5, cost=3.0) is None


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="suggest"):
        Searcher({})


def test_the_message_for_a_wrong_space_says_what_to_write():
    with pytest.raises(SpaceError, match=r"was given Int\(1, 2\) \(Int\). Write for instance Dict\("):
        AlwaysDefault(Int(1, 2))


def test_the_exhausted_message_counts():
    assert "grid has 1 configuration, and" in str(exhausted(1, "grid"))
    assert "space has 12 configurations, and" in str(exhausted(12))
