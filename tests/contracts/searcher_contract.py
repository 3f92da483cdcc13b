"""What every searcher must do.

To hold a searcher to it, inherit from `SearcherContract` in a test module::

    class TestMySearcher(SearcherContract):
        def make(self, space, seed):
            return MySearcher(space, seed=seed)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from contracts.space_strategies import FINITE_DICTS
from saccade.errors import ExhaustedSearchSpaceError, SaccadeError, SpaceError
from saccade.searcher import Searcher
from saccade.space import Bool, Categorical, Dict, Int, List, Real, canonical_key, grid

ENDLESS = Dict(
    {
        "model.name": Categorical("resnet18", {"name": "vit", "depth": Int(1, 12)}, [1, 2]),
        "lr": Real(1e-4, 1e-1, log=True),
        "sizes": List(Int(8, 64, log=True), 7),
        "flip": Bool(),
        "epochs": 5,
    }
)
FINITE = Dict(a=Categorical("x", "y", None), b=Bool(), n=Int(1, 2), c=[5])  # 12 configurations


class SearcherContract:
    """The tests; `make` is to be overridden."""

    def make(self, space: Dict | Mapping[Any, Any], seed: int) -> Searcher:
        """Return a new searcher for the space."""
        raise NotImplementedError

    def test_it_is_a_searcher(self) -> None:
        searcher = self.make(ENDLESS, 3)
        assert isinstance(searcher, Searcher)
        assert searcher.space == ENDLESS
        assert searcher.seed == 3

    def test_suggestions_are_configurations_of_the_space(self) -> None:
        searcher = self.make(ENDLESS, 0)
        for _ in range(20):
            config = searcher.suggest()
            assert type(config) is dict
            assert config in ENDLESS
            assert list(config) == list(ENDLESS)

    def test_numbers_are_plain(self) -> None:
        searcher = self.make(Dict(r=Real(0, 1), n=Int(1, 900), b=Bool()), 0)
        for _ in range(8):
            assert [type(value) for value in searcher.suggest().values()] == [float, int, bool]

    def test_nothing_is_suggested_twice(self) -> None:
        searcher = self.make(ENDLESS, 0)
        keys = [canonical_key(searcher.suggest()) for _ in range(40)]
        assert len(set(keys)) == 40

    def test_the_same_seed_gives_the_same_suggestions(self) -> None:
        one, other = self.make(ENDLESS, 7), self.make(ENDLESS, 7)
        for index in range(15):
            config = one.suggest()
            assert other.suggest() == config
            for searcher in (one, other):
                searcher.observe(config, 1, index / 15, 2.0)

    @settings(suppress_health_check=[HealthCheck.differing_executors])  # inherited by several classes
    @given(space=FINITE_DICTS, seed=st.integers(0, 2**32 - 1))
    def test_a_finite_space_is_suggested_completely_and_then_is_exhausted(self, space: Dict, seed: int) -> None:
        assume(space.num_configurations <= 60)
        keys = {canonical_key(config) for config in grid(space)}
        searcher = self.make(space, seed)
        assert {canonical_key(searcher.suggest()) for _ in keys} == keys
        with pytest.raises(ExhaustedSearchSpaceError, match=rf"\b{len(keys)} configuration"):
            searcher.suggest()

    def test_it_stays_exhausted(self) -> None:
        searcher = self.make(FINITE, 0)
        for _ in range(12):
            searcher.suggest()
        for _ in range(2):
            with pytest.raises(ExhaustedSearchSpaceError, match="12 configurations"):
                searcher.suggest()

    def test_a_space_of_constants_has_one_configuration(self) -> None:
        searcher = self.make({"epochs": 5, "size": [1, 2]}, 0)
        assert searcher.suggest() == {"epochs": 5, "size": [1, 2]}
        with pytest.raises(ExhaustedSearchSpaceError, match="1 configuration,"):
            searcher.suggest()

    def test_configurations_that_two_branches_share_come_once(self) -> None:
        searcher = self.make({"x": Categorical(1, Int(1, 3), Int(2, 4))}, 0)
        assert sorted(searcher.suggest()["x"] for _ in range(4)) == [1, 2, 3, 4]
        with pytest.raises(ExhaustedSearchSpaceError, match="4 configurations"):
            searcher.suggest()

    def test_what_was_observed_from_elsewhere_is_not_suggested(self) -> None:
        searcher = self.make(FINITE, 0)
        known = [FINITE.default, {"a": "y", "b": True, "n": 1, "c": [5]}]
        for config in known:
            searcher.observe(config, 3, 0.5, 12.5)
        configs = [searcher.suggest() for _ in range(10)]
        assert all(config not in configs for config in known)
        with pytest.raises(ExhaustedSearchSpaceError):
            searcher.suggest()

    def test_observing_is_possible_at_every_epoch_and_changes_nothing_given(self) -> None:
        searcher = self.make(ENDLESS, 0)
        for _ in range(3):
            config = searcher.suggest()
            before = copy.deepcopy(config)
            for epoch, score in enumerate([0.1, 0.9, 0.4], start=1):
                assert searcher.observe(config, epoch, score, 1.5 * epoch) is None
            assert config == before

    def test_a_suggestion_belongs_to_the_caller(self) -> None:
        searcher, untouched = self.make(FINITE, 0), self.make(FINITE, 0)
        for _ in range(12):
            config = searcher.suggest()
            assert config == untouched.suggest()
            config["c"].append(6)
            config["a"] = config["more"] = object()

    def test_a_mapping_of_spaces_and_constants_will_do_and_is_not_changed(self) -> None:
        space = {"lr": Real(0, 1), "epochs": 5, "aug": {"mixup": Real(0, 1)}}
        before = copy.deepcopy(space)
        searcher = self.make(space, 0)
        assert searcher.suggest() in Dict(space)
        assert space == before

    @pytest.mark.parametrize("space", [None, [("lr", 1)], Real(0, 1), "lr"])
    def test_anything_else_is_refused(self, space: Any) -> None:
        with pytest.raises(SpaceError) as caught:
            self.make(space, 0)
        assert isinstance(caught.value, SaccadeError)
