"""Durations, constants and spaces as texts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.cli.values import parse_hyperparameters, parse_space, parse_time_limit
from saccade.errors import HyperparameterError, SpaceError
from saccade.space import Categorical, Int, Real


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("600", 600.0),
        ("0.5", 0.5),
        ("90s", 90.0),
        ("10m", 600.0),
        ("10min", 600.0),
        ("1.5h", 5400.0),
        ("1h30m", 5400.0),
        ("1h 30m 5s", 5405.0),
        (" 10M ", 600.0),
        ("auto", "auto"),
        ("none", None),
    ],
)
def test_a_time_limit_is_read_in_all_its_forms(text, limit):
    assert parse_time_limit(text) == limit


@pytest.mark.parametrize("text", ["", " ", "soon", "10x", "m", "1m1h", "1..5h", ".h", "-5m", "1h30"])
def test_what_is_no_duration_is_refused_with_examples(text):
    with pytest.raises(HyperparameterError, match="1h30m"):
        parse_time_limit(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_a_duration_is_the_sum_of_its_parts(hours, minutes, seconds):
    assert parse_time_limit(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("resnet18", "resnet18"),
        ("vit_tiny_patch16_224.augreg_in21k", "vit_tiny_patch16_224.augreg_in21k"),
        ("hf-hub:timm/resnet18", "hf-hub:timm/resnet18"),
        ("it's", "it's"),
        ("8", 8),
        ("-1", -1),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("True", True),
        ("false", False),
        ("None", None),
        ("'None'", "None"),
        ('"a,b"', "a,b"),
        ("''", ""),
        ("(0.7,1)", (0.7, 1)),
        ("[0.7, 1]", (0.7, 1)),
        ("()", ()),
    ],
)
def test_a_constant_has_the_type_it_looks_like(text, value):
    parsed = parse_space(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("sgd,adamw", Categorical("sgd", "adamw")),
        ("16, 32", Categorical(16, 32)),
        ("None,rand", Categorical(None, "rand")),
        ("(0.5,1),(0.7,1)", Categorical((0.5, 1), (0.7, 1))),
        ("1e-4:1e-1", Real(1e-4, 1e-1)),
        ("1e-4:1e-1:log", Real(1e-4, 1e-1, log=True)),
        ("8:64", Int(8, 64)),
        ("8 : 64 : log", Int(8, 64, log=True)),
        ("1:2.5", Real(1, 2.5)),
    ],
)
def test_choices_and_ranges_become_spaces(text, space):
    assert parse_space(text) == space


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives_being_written(number):
    assert parse_space(repr(number)) == number
    assert math.copysign(1, parse_space(repr(number))) == math.copysign(1, number)


@pytest.mark.parametrize("text", ["", "a,", ",a", "a,,b", "1:x", "1:2:lin", "1:2:log:3", "1:", "(1,2", "'a", "(1,)"])
def test_what_is_no_value_is_refused(text):
    with pytest.raises(HyperparameterError):
        parse_space(text)


def test_a_range_upside_down_is_refused_with_the_right_way_up():
    with pytest.raises(SpaceError, match=r"Real\(0\.1, 0\.5\)"):
        parse_space("0.5:0.1")


def test_options_left_out_are_no_hyperparameters():
    assert parse_hyperparameters(["epochs=5", " opt =sgd"], model="a,b", lr=None) == {
        "model": Categorical("a", "b"),
        "epochs": 5,
        "opt": "sgd",
    }


@pytest.mark.parametrize(
    ("settings", "named", "message"),
    [
        (["epochs"], {}, "name=value"),
        (["=5"], {}, "name=value"),
        (["lr=1", "lr=2"], {}, "'lr' is given twice"),
        (["model=a"], {"model": "b"}, "'model' is given twice"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, named, message):
    with pytest.raises(HyperparameterError, match=message):
        parse_hyperparameters(settings, **named)
