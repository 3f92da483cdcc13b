from __future__ import annotations

import copy
import json
import math
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.space_strategies import SPACES
from saccade.errors import SpaceError
from saccade.space import Bool, Categorical, Dict, Int, List, Real, Space, canonical_key, from_json

NAMES = {"Bool": Bool, "Categorical": Categorical, "Dict": Dict, "Int": Int, "List": List, "Real": Real}


def has_only_plain_values(value: object) -> bool:
    if isinstance(value, dict):
        return all(has_only_plain_values(part) for part in value.values())
    if isinstance(value, (list, tuple)):
        return all(has_only_plain_values(part) for part in value)
    return value is None or type(value) in (bool, int, float, str)


@given(SPACES, st.integers(0, 2**32))
def test_samples_and_defaults_are_contained_and_plain(space, seed):
    for value in (space.sample(seed), space.default):
        assert value in space
        assert has_only_plain_values(value)


@given(SPACES, st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_sample(space, seed):
    assert canonical_key(space.sample(seed)) == canonical_key(space.sample(seed))


@given(SPACES)
def test_repr_makes_the_space_again(space):
    again = eval(repr(space), NAMES)
    assert again == space
    assert hash(again) == hash(space)
    assert repr(again) == repr(space)


@given(SPACES)
def test_copies_are_equal(space):
    for again in (copy.copy(space), copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert type(again) is type(space)
        assert again == space


@given(SPACES, SPACES)
def test_spaces_that_print_differently_are_different(one, other):
    # 1 and 1.0 are alike, and so are two orders of the same keys: compare the letters only.
    if sorted(repr(one).replace(".0", "")) != sorted(repr(other).replace(".0", "")):
        assert one != other


def test_repr():
    space = Dict({"model.name": Categorical("a", None, [1, 2]), 1: List(Int(1, 2), 0.5)})
    assert repr(space) == "Dict({'model.name': Categorical('a', None, [1, 2]), 1: List(Int(1, 2), 0.5)})"
    assert repr(Dict(lr=Real(1e-4, 0.1, log=True))) == "Dict(lr=Real(0.0001, 0.1, log=True))"
    assert repr(Dict({"class": 1})) == "Dict({'class': 1})"
    assert repr(Dict()) == "Dict()"


def test_equality_depends_on_types_and_orders():
    assert Categorical(0, 1) != Categorical(False, True)
    assert Categorical("a", "b") != Categorical("b", "a")  # the first is the default
    assert List(Int(1, 2)) != List(Real(1, 2))
    assert Dict(a=1, b=Bool()) == Dict(b=Bool(), a=1)
    assert Dict(a=1) != {"a": 1}
    assert len({Int(1, 2), Int(1, 2, default=1), Int(1, 2, default=2)}) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Categorical(), "no values"),
        (lambda: Categorical(["a", "b"]), "Write Categorical(*values)"),
        (lambda: Categorical(("a", "b")), "a single tuple"),
        (lambda: Categorical(range(3)), "a single range"),
        (lambda: Categorical("a", "b", "a"), "holds 'a' twice"),
        (lambda: Categorical(1, 1.0), "holds 1.0 twice"),
        (lambda: Categorical([1, 2], (1, 2)), "holds (1, 2) twice"),
        (lambda: Categorical(math.nan, math.nan), "holds nan twice"),
        (lambda: Categorical(Int(1, 2), Int(1, 2)), "holds Int(1, 2) twice"),
        (lambda: Categorical(values=["a"]), "Write for instance Categorical("),
        (lambda: Categorical("a", Bool), "Write for instance Bool("),
        (lambda: List(Real), "Write for instance Real("),
        (lambda: List([Real]), "Write for instance Real("),
        (lambda: Dict(a={Int(1, 2)}), "a list instead of the set"),
        (lambda: Dict([("a", 1)]), "not a mapping"),
        (lambda: Dict(None), "not a mapping"),
        (lambda: Dict({"a": 1}, a=2), "is both in the mapping and a keyword"),
    ],
)
def test_invalid_arguments_are_refused_with_the_reason(make, message):
    with pytest.raises(SpaceError) as caught:
        make()
    assert message in str(caught.value)


def test_choices_that_are_equal_only_for_python_may_be_combined():
    assert list(Categorical(1, True, "1", None, 0, False)) == [1, True, "1", None, 0, False]


def test_categorical_is_a_sequence_of_its_choices():
    space = Categorical("a", Int(1, 2), [1])
    assert space.data == tuple(space) == ("a", Int(1, 2), [1])
    assert len(space) == 3
    assert space[1] == Int(1, 2)
    assert space.default == "a"
    assert Categorical(Int(3, 9), "a").default == 3


def test_dict_gives_its_items_like_a_mapping():
    space = Dict({"a": Int(1, 2), 2: "x"}, b=Bool())
    assert list(space) == list(space.keys()) == ["a", 2, "b"]
    assert dict(space) == dict(space.items()) == space.data == {"a": Int(1, 2), 2: "x", "b": Bool()}
    assert list(space.values()) == [Int(1, 2), "x", Bool()]
    assert (len(space), space["b"]) == (3, Bool())
    assert Dict(space) == space
    assert Dict(self=1, spaces=2).default == {"self": 1, "spaces": 2}
    with pytest.raises(KeyError):
        space["c"]


def test_contains_checks_configurations():
    space = Dict(lr=Real(0, 1), size=List(Int(1, 3), 7), epochs=5)
    config = {"lr": 0.5, "size": [2, 7], "epochs": 5}
    assert config in space
    assert {**config, "size": (2, 7)} in space
    for changed in ({"lr": 2}, {"size": [2]}, {"size": [2, 8]}, {"size": "27"}, {"epochs": 6}, {"more": 1}):
        assert {**config, **changed} not in space
    assert {"lr": 0.5} not in space
    assert "lr" not in space


def test_lists_and_dicts_that_contain_spaces_become_spaces():
    space = Dict(aug={"mixup": Real(0, 1), "name": "x"}, size=[Int(1, 2), 3], plain={"a": [1]}, both=(Bool(), 1))
    assert (space["aug"], space["size"]) == (Dict(mixup=Real(0, 1), name="x"), List(Int(1, 2), 3))
    assert (space["plain"], space["both"]) == ({"a": [1]}, List(Bool(), 1))


def test_a_conditional_space_has_the_parameters_of_the_chosen_branch_only():
    space = Dict(opt=Categorical(Dict(name="sgd", momentum=Real(0.5, 0.9)), Dict(name="adamw", beta=Real(0.9, 1))))
    generator = np.random.default_rng(0)
    keys = {config["opt"]["name"]: set(config["opt"]) for config in (space.sample(generator) for _ in range(50))}
    assert keys == {"sgd": {"name", "momentum"}, "adamw": {"name", "beta"}}
    assert {"opt": {"name": "sgd", "beta": 0.95}} not in space


def test_changing_a_sample_or_the_given_objects_does_not_change_the_space():
    given_list, given_dict = [1, 2], OrderedDict(a=[1])
    space = Dict(x=Categorical(given_list, "b"), y=given_dict)
    given_list.append(3)
    given_dict["a"].append(2)
    for config in (space.default, space.sample(0), space.data):
        config["y"]["a"].append(9)
        config["x"] = None
    space["x"][0].append(5)
    assert space == Dict(x=Categorical([1, 2], "b"), y={"a": [1]})


def test_a_space_cannot_be_changed():
    for space in (Int(1, 2), Categorical("a"), Dict(a=1)):
        with pytest.raises(AttributeError, match="cannot be changed"):
            space.default = 7


def test_numpy_scalars_become_plain_and_other_objects_are_kept():
    network = object()
    space = Categorical(np.int64(3), np.float32(0.5), np.str_("a"), network, [np.bool_(True)])
    assert [type(value) for value in space] == [int, float, str, object, list]
    assert space[3] is network
    assert type(space[4][0]) is bool
    assert network in space
    assert object() not in space


def test_objects_that_cannot_be_hashed_are_compared_by_identity():
    one, other = np.zeros(3), np.zeros(3)
    assert one in Categorical(one, other)
    assert np.zeros(3) not in Categorical(one, other)


def test_number_of_configurations():
    space = Dict(a=Categorical("x", Int(1, 3), [Bool(), Bool()]), b=Bool(), c=5)
    assert space.num_configurations == (1 + 3 + 4) * 2
    assert Dict().num_configurations == List().num_configurations == 1
    assert Categorical("a", Real(0, 1)).num_configurations == math.inf
    huge = [Int(1, 2**53)] * 30  # more than a float can hold
    assert List(*huge).num_configurations == 2 ** (53 * 30)
    assert List(*huge, Real(0, 1)).num_configurations == math.inf
    assert Categorical(List(*huge), Real(0, 1)).num_configurations == math.inf


def test_labels_replace_choices_that_are_not_simple():
    assert Categorical("a", 1, None, 0.5).labels == ("a", 1, None, 0.5)
    for values in (("a", [1]), ("a", Bool()), (1, True), (math.nan, "a"), ({}, "a")):
        assert Categorical(*values).labels == (0, 1)


def test_a_list_has_no_single_distribution():
    with pytest.raises(SpaceError, match="Use saccade"):
        List(Bool()).to_optuna()


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError):
        Space()


@given(SPACES)
def test_round_trip_through_text(space):
    again = from_json(json.loads(json.dumps(space.to_json(), allow_nan=False)))
    assert again == space
    assert repr(again) == repr(space)


def test_the_json_form_is_stable():
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


def test_a_tuple_becomes_an_equal_list():
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
        (Dict(a={1: 2}), "key 1 is not a string"),
        (Dict({(1, 2): 3}), r"key \(1, 2\) \(tuple\) of a Dict has no JSON form"),
        (Dict({math.inf: 3}), "inf has no JSON form"),
        (Dict(a={1, 2}), "has no JSON form"),
    ],
)
def test_values_without_a_json_form_are_refused(space, message):
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
def test_invalid_json_is_refused(obj, message):
    with pytest.raises(SpaceError, match=message):
        from_json(obj)
