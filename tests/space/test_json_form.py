from __future__ import annotations

import json
import math

import pytest
from hypothesis import given

from saccade.errors import SpaceError
from saccade.space import Bool, Categorical, Dict, Int, List, Real, from_json
from saccade.testing.space_strategies import SPACES


@given(SPACES)
def test_round_trip_through_text(space):
    again = from_json(json.loads(json.dumps(space.to_json(), allow_nan=False)))
    assert again == space
    assert repr(again) == repr(space)


def test_the_form_stays_as_it_is():
    # Written in run folders: a change breaks resuming old runs.
    space = Dict(
        {
            "lr": Real(1e-4, 0.1, log=True),
            2: Categorical("a", None, [1, 2], {"x": 1}, List(Bool(), Int(1, 3, default=2))),
            "epochs": 5,
        }
    )
    real = {"type": "Real", "lower": 0.0001, "upper": 0.1, "default": 0.0001, "log": True}
    whole = {"type": "Int", "lower": 1, "upper": 3, "default": 2, "log": False}
    row = {"type": "List", "items": [{"type": "Bool", "default": False}, whole]}
    choice = {"type": "Categorical", "values": ["a", None, [1, 2], {"constant": {"x": 1}}, row]}
    assert space.to_json() == {"type": "Dict", "items": [["lr", real], [2, choice], ["epochs", 5]]}


def test_types_of_keys_and_their_order_are_kept():
    space = Dict({"b": 1, 1: 2, "1": 3, 0.5: 4, None: 5, False: 6, "model.name": 7})
    text = json.dumps(space.to_json(), sort_keys=True)
    again = from_json(json.loads(text))
    assert list(again) == ["b", 1, "1", 0.5, None, False, "model.name"]
    assert [type(key) for key in again] == [type(key) for key in space]


def test_constants_that_look_like_spaces_stay_constants():
    space = Dict(a={"type": "Int", "lower": 1, "upper": 2}, b=[{"type": "Bool"}], c={"constant": 1})
    assert from_json(space.to_json()) == space
    assert from_json(space.to_json()).default == space.default


def test_a_tuple_comes_back_as_a_list_that_is_alike():
    space = Categorical((0.1, 1.0), (0.5, 1.0))
    again = from_json(space.to_json())
    assert again == space
    assert again.default == [0.1, 1.0]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Categorical("a", object), r"<class 'object'> \(type\) has no JSON form"),
        (Categorical(1.0, math.inf), "inf has no JSON form"),
        (List(math.nan), "nan has no JSON form"),
        (Dict(a={1: 2}), "key 1 is no string"),
        (Dict({(1, 2): 3}), r"key \(1, 2\) \(tuple\) of a Dict has no JSON form"),
        (Dict({math.inf: 3}), "inf has no JSON form"),
        (Dict(a={1, 2}), "has no JSON form"),
    ],
)
def test_what_has_no_json_form_is_refused(space, message):
    with pytest.raises(SpaceError, match=message):
        space.to_json()


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (5, "object with a 'type'"),
        ({"lower": 1}, "object with a 'type'"),
        ({"type": "Reel", "lower": 1, "upper": 2}, "Did you mean Real"),
        ({"type": ["Real"]}, "Unknown type of space"),
        ({"type": "Real", "lower": 1}, "missing a required argument: 'upper'"),
        ({"type": "Real", "lower": 2, "upper": 1}, "above upper"),
        ({"type": "Categorical", "values": []}, "no values"),
        ({"type": "Categorical", "choices": ["a"]}, "not the JSON form of a Categorical"),
        ({"type": "List", "items": 5}, "not the JSON form of a List"),
        ({"type": "Dict", "items": [["a"]]}, "not a pair"),
        ({"type": "Dict", "items": [[["a"], 1]]}, "not the JSON form of a Dict"),
        ({"type": "Dict", "items": [["a", {"b": 1}]]}, "object with a 'type'"),
    ],
)
def test_what_describes_no_space_is_refused(obj, message):
    with pytest.raises(SpaceError, match=message):
        from_json(obj)
