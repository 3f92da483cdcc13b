from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.space_strategies import DICTS
from saccade.errors import SpaceError, UnknownNameError
from saccade.searcher import SEARCHERS, make_searcher
from saccade.searcher.base import completed_configs
from saccade.space import Bool, Categorical, Dict, Int, List, Real, canonical_key

SPACE = Dict(
    {
        "model": Categorical("resnet18", {"name": "vit", "depth": Int(1, 12, default=6)}, [Int(1, 3), Bool()]),
        "lr": Real(1e-4, 1e-1, default=0.01, log=True),
        "aug": {"mixup": Real(0, 1), "flip": Bool(default=True)},
        "sizes": List(Int(8, 64), 7),
        "epochs": 5,
    }
)
# Those that need to be told of the data are tested where they are.
NAMES = sorted(name for name in SEARCHERS if "describe" not in inspect.signature(SEARCHERS[name]).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_every_searcher_suggests_them_first_in_order_without_repeats(name):
    starts = [{"lr": 0.05}, {"aug": {"mixup": 1}}, {"lr": 0.05, "epochs": 5}, {"model": {"name": "vit"}}]
    searcher = make_searcher(name, SPACE, starting_configs=starts)
    suggested = [searcher.suggest() for _ in range(6)]
    assert suggested[0] == {**SPACE.default, "lr": 0.05}
    assert suggested[1] == {**SPACE.default, "aug": {"mixup": 1.0, "flip": True}}
    assert suggested[2] == {**SPACE.default, "model": {"name": "vit", "depth": 6}}
    assert len({canonical_key(config) for config in suggested}) == 6
    assert all(config in SPACE for config in suggested)


@pytest.mark.parametrize("name", NAMES)
def test_those_that_were_observed_are_left_out(name):
    space = {"a": Int(1, 6)}
    options = {"num_points": 9} if name == "grid" else {}
    searcher = make_searcher(name, space, starting_configs=[{"a": 5}, {"a": 3}, {"a": 4}], **options)
    searcher.observe({"a": 5}, 1, 0.5, 1.0)
    searcher.on_end({"a": 3}, has_failed=True)
    assert searcher.suggest() == {"a": 4}
    assert sorted(searcher.suggest()["a"] for _ in range(3)) == [1, 2, 6]


def test_a_grid_may_start_off_its_points():
    searcher = make_searcher("grid", {"x": Real(0, 1)}, num_points=3, starting_configs=[{"x": 0.3}, {"x": 0.5}])
    assert [searcher.suggest()["x"] for _ in range(4)] == [0.3, 0.5, 0.0, 1.0]


def test_none_and_no_configurations():
    assert completed_configs(SPACE, None) == completed_configs(SPACE, []) == []
    assert completed_configs(SPACE, [{}]) == [SPACE.default]


def test_values_are_those_of_the_space():
    (config,) = completed_configs(SPACE, ({"aug": {"mixup": 0}, "sizes": (9.0, 7), "model": (2, True)},))
    assert config["aug"] == {"mixup": 0.0, "flip": True}
    assert (config["sizes"], config["model"]) == ([9, 7], [2, True])
    assert [type(value) for value in (config["aug"]["mixup"], config["sizes"][0])] == [float, int]


@given(space=DICTS, seed=st.integers(0, 99), data=st.data())
def test_any_part_of_a_configuration_is_completed_to_one_that_agrees(space, seed, data):
    whole = space.sample(seed)
    part = {key: value for key, value in whole.items() if data.draw(st.booleans())}
    (config,) = completed_configs(space, [part])
    assert config in space
    for key in space:
        expected = whole[key] if key in part else space.default[key]
        assert canonical_key(config[key]) == canonical_key(expected)


def test_the_branch_is_that_whose_constants_agree():
    sgd, adam = {"name": "sgd", "lr": Real(0.1, 1)}, {"name": "adam", "lr": Real(0.001, 0.1)}
    space = Dict(opt=Categorical(sgd, adam, {"name": "none"}, Categorical({"deep": Int(1, 9)}, 7)))
    assert completed_configs(space, [{"opt": {"name": "adam"}}]) == [{"opt": {"name": "adam", "lr": 0.001}}]
    assert completed_configs(space, [{"opt": {"lr": 0.01}}]) == [{"opt": {"name": "adam", "lr": 0.01}}]
    assert completed_configs(space, [{"opt": {"deep": 3}}, {"opt": 7}]) == [{"opt": {"deep": 3}}, {"opt": 7}]


def test_given_configurations_are_copied():
    given = [{"sizes": [9, 7], "aug": {"mixup": 0.5}}]
    searcher = make_searcher("random", SPACE, starting_configs=given)
    given[0]["sizes"].append(8)
    config = searcher.suggest()
    assert config["sizes"] == [9, 7]
    assert given == [{"sizes": [9, 7, 8], "aug": {"mixup": 0.5}}]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lrr": 1}, r"Unknown hyperparameter 'lrr'. Did you mean 'lr'\? It stands in starting_configs\[1\]"),
        ({"aug": {"mixip": 1}}, r"'mixip'. Did you mean 'mixup'\? It stands in starting_configs\[1\]\['aug'\]"),
        ({"model": {"name": "vit", "dept": 1}}, r"Unknown hyperparameter 'dept'. Did you mean 'depth'"),
    ],
)
def test_misspelt_names(config, message):
    with pytest.raises(UnknownNameError, match=message):
        completed_configs(SPACE, [{}, config])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lr": 1}, r"starting_configs\[0\]\['lr'\] is 1, which is not in Real\(0.0001, 0.1"),
        ({"lr": "0.1"}, r"\['lr'\] is '0.1', which is not in Real"),
        ({"epochs": 6}, r"\['epochs'\] is 6, but the space fixes it at 5"),
        ({"model": "resnet8"}, r"'resnet8', which is not in Categorical\(.*Did you mean 'resnet18'\?"),
        ({"model": {"name": "vit", "depth": 99}}, "99, which is not in Int"),
        ({"aug": 0.5}, r"\['aug'\] is 0.5 \(float\); it must be a dict"),
        ({"sizes": [9]}, r"\['sizes'\] is \[9\], which is not in List"),
        ({"sizes": [9, 8]}, r"\['sizes'\]\[1\] is 8, but the space fixes it at 7"),
        ([("lr", 0.1)], r"starting_configs\[0\] is .*; it must be a dict"),
    ],
)
def test_values_that_are_not_in_the_space(config, message):
    with pytest.raises(SpaceError, match=message):
        completed_configs(SPACE, [config])


@pytest.mark.parametrize("configs", [{"lr": 0.1}, "lr", 5, iter([])])
def test_it_is_a_list(configs):
    with pytest.raises(SpaceError, match="it must be a list of configurations"):
        completed_configs(SPACE, configs)
