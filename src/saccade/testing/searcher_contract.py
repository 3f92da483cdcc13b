"""Tests that every searcher must pass.

To test a searcher, inherit from `SearcherContract` in a test module::

    class TestMySearcher(SearcherContract):
        def make(self, space, seed):
            return MySearcher(space, seed=seed)

For a searcher that uses scores, inherit from `LearningSearcherContract`.
"""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from saccade.errors import ExhaustedSearchSpaceError, SaccadeError, SpaceError
from saccade.searcher import RandomSearcher
from saccade.searcher.base import Searcher
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
_LEAVES = st.one_of(
    st.sampled_from([5, "x", None]),
    st.builds(Bool),
    st.integers(-9, 9).map(lambda lower: Int(lower, lower + 2)),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True).map(lambda values: Categorical(*values)),
)
_NESTED = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2).map(lambda values: List(*values)),
        st.lists(inner, min_size=2, max_size=3, unique_by=canonical_key).map(lambda values: Categorical(*values)),
    ),
    max_leaves=4,
)
FINITE_DICTS = st.dictionaries(st.sampled_from(["a", "b/c", 1]), _NESTED, max_size=3).map(Dict)
FINITE = Dict(a=Categorical("x", "y", None), b=Bool(), n=Int(1, 2), c=[5])  # 12 configurations


class SearcherContract:
    """The tests; override `make`."""

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
        searcher = self.make(Dict(r=Real(0, 1), n=Int(1, 900), b=Bool()), 0)
        for _ in range(8):  # plain numbers, not NumPy's
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
    @example(space=Dict(epochs=5, size=[1, 2]), seed=0)
    @example(space=Dict(x=Categorical(1, Int(1, 3), Int(2, 4))), seed=0)  # two branches have the same values
    def test_a_finite_space_is_suggested_completely_and_then_is_exhausted(self, space: Dict, seed: int) -> None:
        assume(space.num_configurations <= 60)
        keys = {canonical_key(config) for config in grid(space)}
        searcher = self.make(space, seed)
        assert {canonical_key(searcher.suggest()) for _ in keys} == keys
        with pytest.raises(ExhaustedSearchSpaceError, match=rf"\b{len(keys)} configuration"):
            searcher.suggest()

    @pytest.mark.parametrize("what", ["started", "observed", "ended"])
    def test_configurations_that_were_started_elsewhere_are_not_suggested(self, what: str) -> None:
        searcher = self.make(FINITE, 0)
        known = [FINITE.default, {"a": "y", "b": True, "n": 1, "c": [5]}]
        for index, config in enumerate(known):
            if what == "started":
                searcher.on_begin(config)
                searcher.on_begin(config)  # a paused trial continues
            elif what == "ended":
                searcher.on_end(config, has_failed=index == 0)
            else:
                searcher.observe(config, 3, 0.5, 12.5)
        configs = [searcher.suggest() for _ in range(10)]
        assert all(config not in configs for config in known)
        for _ in range(2):
            with pytest.raises(ExhaustedSearchSpaceError, match="12 configurations"):
                searcher.suggest()

    def test_a_finite_space_is_exhausted_while_results_come_in_and_trials_fail(self) -> None:
        searcher = self.make(FINITE, 1)
        running = []
        keys = set()
        for index in range(12):
            running.append(searcher.suggest())
            keys.add(canonical_key(running[-1]))
            if len(running) == 3:
                config = running.pop(0)
                for epoch in range(index % 3):
                    searcher.observe(config, epoch, index + epoch, 1.0)
                searcher.on_end(config, has_failed=index % 3 == 0, is_complete=index % 3 == 1)
        assert len(keys) == 12
        with pytest.raises(ExhaustedSearchSpaceError, match="12 configurations"):
            searcher.suggest()

    def test_what_belongs_to_the_caller_is_not_changed_and_may_be_changed(self) -> None:
        space = {"lr": Real(0, 1), "epochs": 5, "aug": {"mixup": Real(0, 1)}}
        before = copy.deepcopy(space)
        searcher = self.make(space, 0)
        for _ in range(3):
            config = searcher.suggest()
            assert config in Dict(space)
            suggested = copy.deepcopy(config)
            for epoch, score in enumerate([0.1, 0.9, 0.4], start=1):
                searcher.observe(config, epoch, score, 1.5 * epoch)
            assert config == suggested
        assert space == before
        searcher, untouched = self.make(FINITE, 0), self.make(FINITE, 0)
        for _ in range(12):
            config = searcher.suggest()
            assert config == untouched.suggest()
            config["c"].append(6)
            config["a"] = config["more"] = object()

    @pytest.mark.parametrize("space", [None, [("lr", 1)], Real(0, 1), "lr"])
    def test_other_spaces_are_refused(self, space: Any) -> None:
        with pytest.raises(SpaceError) as caught:
            self.make(space, 0)
        assert isinstance(caught.value, SaccadeError)


QUADRATIC = Dict(x=Real(0, 1), lr=Real(1e-5, 1, log=True))
CONDITIONAL = Dict(lr=Real(1e-5, 1, log=True), opt=Categorical("adam", {"name": "sgd", "momentum": Real(0, 1)}))


def quadratic(config: Mapping[str, Any]) -> float:
    """Return minus the squared distance from x = 0.7, lr = 0.01."""
    return float(-((config["x"] - 0.7) ** 2) - (math.log10(config["lr"]) + 2) ** 2)


def conditional(config: Mapping[str, Any]) -> float:
    """Return a score that is best for SGD with a momentum of 0.8."""
    opt = config["opt"]
    loss = 1 if opt == "adam" else 4 * (opt["momentum"] - 0.8) ** 2
    return -loss - (math.log10(config["lr"]) + 2) ** 2


def best_of(searcher: Searcher, score_of: Callable[[dict[str, Any]], float], num: int) -> float:
    """Return the best score among that many suggestions."""
    best = -math.inf
    for _ in range(num):
        config = searcher.suggest()
        score = score_of(config)
        best = max(best, score)
        searcher.observe(config, 1, score, 1.0)
        searcher.on_end(config, has_failed=False, is_complete=True)
    return best


def num_near(configs: list[dict[str, Any]]) -> int:
    """Return how many configurations in `QUADRATIC` differ from an earlier one by less than 1 % of the ranges."""
    points = [(config["x"], math.log10(config["lr"]) / 5) for config in configs]
    return sum(any(math.dist(point, each) < 0.01 for each in points[:index]) for index, point in enumerate(points))


class LearningSearcherContract(SearcherContract):
    """Tests for searchers that use scores; `seeds` are the seeds of the searches that must beat random search."""

    seeds: Iterable[int] = range(15)

    @pytest.mark.parametrize(("space", "score_of"), [(QUADRATIC, quadratic), (CONDITIONAL, conditional)])
    def test_it_beats_random_draws(self, space: Dict, score_of: Callable[[dict[str, Any]], float]) -> None:
        drawn = [best_of(RandomSearcher(space, seed=seed), score_of, 30) for seed in range(40)]
        found = [best_of(self.make(space, seed), score_of, 30) for seed in self.seeds]
        assert statistics.median(found) > statistics.median(drawn) / 2  # the scores are negative

    def test_a_high_score_at_a_low_epoch_does_not_mislead(self) -> None:
        # Configurations that ended after one epoch have higher scores than all later ones.
        searcher = self.make({"x": Real(0, 1)}, 0)
        for index in range(12):
            x = 0.3 * index / 12
            searcher.observe({"x": x}, 1, 5 + x, 1.0)
            searcher.on_end({"x": x}, has_failed=False)
            x = 0.4 + 0.6 * index / 12
            for epoch in (1, 2, 3):
                searcher.observe({"x": x}, epoch, epoch - abs(x - 0.7), 1.0)
            searcher.on_end({"x": x}, has_failed=False, is_complete=True)
        searcher.suggest()  # the defaults
        suggested = []
        for _ in range(9):
            suggested.append(searcher.suggest()["x"])
            searcher.on_end({"x": suggested[-1]}, has_failed=False)
        assert abs(statistics.median(suggested) - 0.7) < 0.2

    def test_failures_are_avoided(self) -> None:
        searcher = self.make({"x": Real(0, 1)}, 0)
        suggested = []
        for _ in range(30):
            suggested.append(searcher.suggest()["x"])
            if suggested[-1] > 0.5:
                searcher.on_end({"x": suggested[-1]}, has_failed=True)
            else:
                searcher.observe({"x": suggested[-1]}, 1, -abs(suggested[-1] - 0.3), 1.0)
                searcher.on_end({"x": suggested[-1]}, has_failed=False, is_complete=True)
        assert sum(x > 0.5 for x in suggested[10:]) < 7  # of 20; 10 by chance

    def test_the_same_results_in_a_resumed_search_give_the_same_suggestions(self) -> None:
        one, other = self.make(CONDITIONAL, 5), self.make(CONDITIONAL, 5)
        source = RandomSearcher(CONDITIONAL, seed=1)
        for _ in range(25):
            config = source.suggest()
            for searcher in (one, other):
                searcher.observe(config, 1, conditional(config), 1.0)
        suggested = [one.suggest() for _ in range(4)]
        assert [other.suggest() for _ in range(4)] == suggested

    def test_extreme_scores_are_accepted(self) -> None:
        searcher = self.make(QUADRATIC, 0)
        scores = [math.nan, -math.inf, math.inf, 1e308, -1e308, 0.0, 5e-324, 1e308]
        for index in range(24):
            config = searcher.suggest()
            assert config in QUADRATIC
            searcher.observe(config, 1, scores[index % len(scores)], 1.0)

    def test_pending_trials_are_taken_into_account(self) -> None:
        """Of 16 simultaneous proposals few are nearly equal, also if a resumed search made the first of them."""
        one, other = self.make(QUADRATIC, 2), self.make(QUADRATIC, 2)
        source = RandomSearcher(QUADRATIC, seed=1)
        for searcher, config in itertools.product((one, other), [source.suggest() for _ in range(20)]):
            searcher.on_begin(config)
            searcher.observe(config, 1, quadratic(config), 1.0)
            searcher.on_end(config, has_failed=False, is_complete=True)
        pending = [one.suggest() for _ in range(16)]
        for config in pending[:12]:
            other.on_begin(config)
        for configs in (pending, pending[:12] + [other.suggest() for _ in range(4)]):
            assert num_near(configs) <= 4
