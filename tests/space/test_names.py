from __future__ import annotations

import pytest

from saccade.errors import SpaceError
from saccade.space import Bool, Categorical, Dict, Int, List, parameters


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
