from __future__ import annotations

import itertools
import math

import optuna
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from contracts.space_strategies import DICTS, FINITE_DICTS, SPACES
from saccade.errors import HyperparameterError, SpaceError, UnknownNameError
from saccade.space import (
    Bool,
    Categorical,
    Dict,
    Int,
    List,
    Real,
    canonical_key,
    encode,
    from_optuna,
    grid,
    parameters,
    suggest,
    to_optuna,
)


def test_names_are_paths_and_constants_have_none():
    space = Dict(
        {
            "model.name": Categorical("a", {"depth": Int(1, 2)}),
            "opt": {"lr": Int(1, 9), "name": "sgd"},
            3: List(Bool(), 7, Bool()),
            "epochs": 5,
        }
    )
    assert list(parameters(space)) == ["model.name", "model.name/1/depth", "opt/lr", "3/0", "3/2"]


def test_keys_with_slashes_do_not_run_into_paths():
    space = Dict({"a/b": Bool(), "a": {"b": Bool()}, "a~1b": Bool()})
    assert list(parameters(space)) == ["a~1b", "a/b", "a~01b"]


def test_two_parameters_of_one_name_are_refused():
    with pytest.raises(SpaceError, match="called '1'"):
        parameters(Dict({1: Bool(), "1": Bool()}))


def test_a_single_domain_is_one_parameter():
    assert parameters(Bool()) == {"": Bool()}


CONDITIONAL = Dict(
    opt=Categorical(Dict(name="sgd", momentum=Real(0.5, 0.9)), Dict(name="adamw", betas=List(Real(0.8, 1), 0.99))),
    lr=Real(1e-4, 1e-1, log=True),
    flip=Bool(),
    epochs=5,
)


@given(SPACES, st.integers(0, 2**32))
def test_encode_and_back(space, seed):
    config = space.sample(seed)
    params = encode(space, config)
    assert params.keys() <= to_optuna(space).keys()
    again = from_optuna(space, params)
    assert canonical_key(again) == canonical_key(config)
    assert canonical_key(suggest(space, FixedTrial(params))) == canonical_key(config)


@given(DICTS, st.integers(0, 2**32 - 1))
def test_samples_of_optuna_are_in_the_space(space, seed):
    # Optuna cannot draw from a range that is wider than the largest float.
    assume(all(math.isfinite(p.upper - p.lower) for p in parameters(space).values() if isinstance(p, Real)))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask(fixed_distributions=to_optuna(space))
    config = from_optuna(space, trial.params)
    assert config in space
    assert list(config) == list(space)
    assert canonical_key(from_optuna(space, encode(space, config))) == canonical_key(config)


def test_the_distributions_of_all_branches_are_there():
    assert to_optuna(CONDITIONAL) == {
        "opt": CategoricalDistribution((0, 1)),
        "opt/0/momentum": FloatDistribution(0.5, 0.9),
        "opt/1/betas/0": FloatDistribution(0.8, 1.0),
        "lr": FloatDistribution(1e-4, 1e-1, log=True),
        "flip": CategoricalDistribution((False, True)),
    }
    assert to_optuna(Dict(a=Categorical("x", None), n=Int(1, 8, log=True))) == {
        "a": CategoricalDistribution(("x", None)),
        "n": IntDistribution(1, 8, log=True),
    }


def test_parameters_of_other_branches_are_ignored_and_may_be_missing():
    params = {"opt": 1, "opt/1/betas/0": 0.9, "lr": 0.01, "flip": True}
    expected = {"opt": {"name": "adamw", "betas": [0.9, 0.99]}, "lr": 0.01, "flip": True, "epochs": 5}
    assert from_optuna(CONDITIONAL, params) == expected
    assert from_optuna(CONDITIONAL, {**params, "opt/0/momentum": 0.7}) == expected
    assert encode(CONDITIONAL, expected) == params


def test_suggest_asks_for_the_chosen_branch_only_of_a_study():
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=3))
    for _ in range(8):
        trial = study.ask()
        config = suggest(CONDITIONAL, trial)
        assert config in CONDITIONAL
        branch = {"sgd": "opt/0/momentum", "adamw": "opt/1/betas/0"}[config["opt"]["name"]]
        assert trial.params.keys() == {"opt", branch, "lr", "flip"}
        study.tell(trial, config["lr"])


def test_choices_that_are_equal_for_python_have_different_labels():
    space = Dict(x=Categorical(1, True, 0, False))
    assert [encode(space, {"x": value})["x"] for value in (1, True, 0, False)] == [0, 1, 2, 3]
    assert from_optuna(space, {"x": 1})["x"] is True


def test_whole_floats_become_ints():
    config = from_optuna(Dict(n=Int(1, 9)), {"n": 3.0})
    assert type(config["n"]) is int


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 1.0}, "'lr' is 1.0, which is not in Real"),
        ({"lr": math.nan}, "not in Real"),
        ({"opt": 2}, r"'opt' is 2; it must be one of \(0, 1\)"),
        ({"opt": True}, "must be one of"),
        ({"opt": 1}, "'opt/1/betas/0' is missing"),
        ({"flip": 1}, "not in Bool"),
    ],
)
def test_values_outside_the_space_are_refused(change, message):
    params = {"opt": 0, "opt/0/momentum": 0.7, "lr": 0.01, "flip": True}
    with pytest.raises(SpaceError, match=message):
        from_optuna(CONDITIONAL, {**params, **change})


def test_unknown_parameters_are_refused_with_a_suggestion():
    with pytest.raises(UnknownNameError, match="Did you mean 'flip'"):
        from_optuna(CONDITIONAL, {"opt": 0, "opt/0/momentum": 0.7, "lr": 0.01, "flipp": True})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": "x"}, "'lr' is 'x'"),
        ({"epochs": 6}, "'epochs' is 6, which is not in 5"),
        ({"opt": {"name": "lion"}}, "'opt' is"),
        ({"more": 1}, "must have the keys"),
        ({"size": [1]}, "must be a list of length 2"),
    ],
)
def test_encode_reports_the_place_of_an_invalid_value(change, message):
    space = Dict({**CONDITIONAL.data, "size": List(1, 2)})
    with pytest.raises(SpaceError, match=message):
        encode(space, {**space.default, **change})


@given(FINITE_DICTS)
def test_a_finite_space_is_enumerated(space):
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


def test_a_huge_grid_is_generated_lazily():
    space = Dict({f"x{index}": Int(1, 2**53) for index in range(200)})
    first, second = itertools.islice(grid(space), 2)
    assert set(first.values()) == {1}
    assert second == {**first, "x199": 2}


def test_configurations_share_no_lists():
    first, second = grid(Dict(a=List(5), b=Bool()))
    first["a"].append(6)
    assert second["a"] == [5]


@pytest.mark.parametrize("count", [0, -1, 2.5, True, "4", None, math.nan])
def test_invalid_numbers_of_points(count):
    space = Dict(lr=Real(0, 1))
    with pytest.raises(HyperparameterError, match="num_points was given"):
        grid(space, count)
    with pytest.raises(HyperparameterError, match=r"num_points_by_name\['lr'\]"):
        grid(space, 4, {"lr": count})


def test_unknown_names_in_a_grid_are_refused_with_a_suggestion():
    space = Dict(learning_rate=Real(0, 1), model=Categorical("a", "b"))
    with pytest.raises(UnknownNameError, match="Did you mean 'learning_rate'"):
        grid(space, 4, {"learning_rat": 3})
    with pytest.raises(UnknownNameError, match="Only Real and Int"):
        grid(space, 4, {"model": 3})


def test_a_real_cannot_be_enumerated():
    with pytest.raises(SpaceError, match="has no end"):
        grid(Dict(lr=Real(0, 1)))
