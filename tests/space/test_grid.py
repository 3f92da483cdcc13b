from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given

from saccade.errors import HyperparameterError, SpaceError, UnknownNameError
from saccade.space import Bool, Categorical, Dict, Int, List, Real, canonical_key, grid
from saccade.testing.space_strategies import FINITE_DICTS


@given(FINITE_DICTS)
def test_a_finite_space_is_gone_through_completely(space):
    assume(space.num_configurations <= 500)
    configs = list(grid(space))
    assert len(configs) == space.num_configurations
    assert all(config in space for config in configs)
    keys = {canonical_key(config) for config in configs}
    assert all(canonical_key(space.sample(seed)) in keys for seed in range(5))


def test_order_is_that_of_the_space_with_the_last_fastest():
    space = Dict(a=Categorical("x", "y"), b=7, c=List(Bool(), Int(1, 2)))
    expected = [
        {"a": a, "b": 7, "c": [flag, whole]} for a, flag, whole in itertools.product(["x", "y"], [False, True], [1, 2])
    ]
    assert list(grid(space, 4)) == expected


def test_each_branch_has_its_own_parameters():
    space = Dict(opt=Categorical({"name": "sgd", "momentum": Real(0, 1)}, "adamw", Int(1, 2)))
    assert [config["opt"] for config in grid(space, 3)] == [
        {"name": "sgd", "momentum": 0.0},
        {"name": "sgd", "momentum": 0.5},
        {"name": "sgd", "momentum": 1.0},
        "adamw",
        1,
        2,
    ]


def test_points_by_name_reach_into_nested_spaces():
    space = Dict(lr=Real(0, 1), m=Categorical("a", {"w": Real(0, 1)}))
    assert len(list(grid(space, 2, {"lr": 5, "m/1/w": 3}))) == 5 * (1 + 3)


def test_a_huge_grid_is_made_as_it_is_asked_for():
    space = Dict({f"x{index}": Int(1, 2**53) for index in range(200)})
    first, second = itertools.islice(grid(space), 2)
    assert set(first.values()) == {1}
    assert second == {**first, "x199": 2}


def test_configurations_share_no_lists():
    first, second = grid(Dict(a=List(5), b=Bool()))
    first["a"].append(6)
    assert second["a"] == [5]


@pytest.mark.parametrize("count", [0, -1, 2.5, True, "4", None, math.nan])
def test_impossible_numbers_of_points(count):
    space = Dict(lr=Real(0, 1))
    with pytest.raises(HyperparameterError, match="num_points is"):
        grid(space, count)
    with pytest.raises(HyperparameterError, match=r"num_points_by_name\['lr'\]"):
        grid(space, 4, {"lr": count})


def test_unknown_names_are_refused_with_a_suggestion():
    space = Dict(learning_rate=Real(0, 1), model=Categorical("a", "b"))
    with pytest.raises(UnknownNameError, match="Did you mean 'learning_rate'"):
        grid(space, 4, {"learning_rat": 3})
    with pytest.raises(UnknownNameError, match="Only Real and Int"):
        grid(space, 4, {"model": 3})


def test_a_real_cannot_be_gone_through_completely():
    with pytest.raises(SpaceError, match="has no end"):
        grid(Dict(lr=Real(0, 1)))
