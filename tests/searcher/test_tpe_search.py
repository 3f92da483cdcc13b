from __future__ import annotations

import itertools

import pytest

from saccade.searcher import TPESearcher
from saccade.space import Categorical, Real
from saccade.testing.searcher_contract import (
    CONDITIONAL,
    QUADRATIC,
    LearningSearcherContract,
    best_of,
    conditional,
    quadratic,
)


class TestTPESearcher(LearningSearcherContract):
    def make(self, space, seed):
        return TPESearcher(space, seed=seed)


def nearest(xs):
    """Return the mean distance of each number to the one that is nearest."""
    xs = sorted(xs)
    gaps = [high - low for low, high in itertools.pairwise(xs)]
    return sum(min(pair) for pair in zip([1, *gaps], [*gaps, 1], strict=True)) / len(xs)


def test_running_trials_push_others_away():
    space = {"x": Real(0, 1)}

    def spread(are_running, seed):
        searcher = TPESearcher(space, seed=seed)
        best_of(searcher, lambda config: -abs(config["x"] - 0.3), 20)
        xs = []
        for _ in range(12):
            xs.append(searcher.suggest()["x"])
            if not are_running:
                searcher.on_end({"x": xs[-1]}, has_failed=False)
        return nearest(xs)

    assert sum(spread(True, seed) for seed in range(8)) > 1.2 * sum(spread(False, seed) for seed in range(8))


def test_a_branch_that_was_never_tried_can_be_suggested():
    searcher = TPESearcher(CONDITIONAL, seed=0, num_startup_trials=1, first_is_default=False)
    for lr in (0.001, 0.01, 0.1):
        searcher.observe({"lr": lr, "opt": "adam"}, 1, lr, 1.0)
    opts = [searcher.suggest()["opt"] for _ in range(20)]
    assert any(opt != "adam" for opt in opts)


@pytest.mark.parametrize(("space", "score_of"), [(QUADRATIC, quadratic), (CONDITIONAL, conditional)])
def test_the_best_of_several_choices_is_found(space, score_of):
    searcher = TPESearcher({"which": Categorical(*range(6)), "rest": space}, seed=1)
    which = []

    def score(config):
        which.append(config["which"])
        return score_of(config["rest"]) - 3 * (config["which"] != 4)

    best_of(searcher, score, 60)
    assert which[20:].count(4) > 20  # of 40; 7 by chance
