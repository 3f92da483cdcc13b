from __future__ import annotations

import math

import optuna
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from saccade.errors import SpaceError, UnknownNameError
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
    parameters,
    suggest,
    to_optuna,
)
from saccade.testing.space_strategies import DICTS, SPACES

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
    distributions = to_optuna(space)
    assert params.keys() <= distributions.keys()
    for name, value in params.items():
        assert distributions[name]._contains(distributions[name].to_internal_repr(value))
    again = from_optuna(space, params)
    assert canonical_key(again) == canonical_key(config)
    assert canonical_key(suggest(space, FixedTrial(params))) == canonical_key(config)


@given(DICTS, st.integers(0, 2**32 - 1))
def test_whatever_optuna_samples_is_in_the_space(space, seed):
    # Optuna cannot draw from a range that is wider than the largest float.
    assume(all(math.isfinite(p.upper - p.lower) for p in parameters(space).values() if isinstance(p, Real)))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask(fixed_distributions=to_optuna(space))
    config = from_optuna(space, trial.params)
    assert config in space
    assert list(config) == list(space)
    assert canonical_key(from_optuna(space, encode(space, config))) == canonical_key(config)


@pytest.fixture(autouse=True)
def _quiet_optuna():
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(verbosity)


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


def test_suggest_asks_for_the_chosen_branch_only_and_a_study_learns_from_it():
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=3))
    for _ in range(8):
        trial = study.ask()
        config = suggest(CONDITIONAL, trial)
        assert config in CONDITIONAL
        branch = {"sgd": "opt/0/momentum", "adamw": "opt/1/betas/0"}[config["opt"]["name"]]
        assert trial.params.keys() == {"opt", branch, "lr", "flip"}
        study.tell(trial, config["lr"])


def test_choices_that_python_confuses_keep_apart():
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
def test_encode_names_the_place_that_is_not_in_the_space(change, message):
    space = Dict({**CONDITIONAL.data, "size": List(1, 2)})
    with pytest.raises(SpaceError, match=message):
        encode(space, {**space.default, **change})
