"""Durations, constants and spaces as texts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import HyperparameterError, SpaceError
from saccade.fit.values import from_toml, parse_duration, parse_hyperparameters, parse_space, to_toml
from saccade.space import Bool, Categorical, Dict, Int, List, Real
from saccade.space.base import canonical_key


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
    ],
)
def test_durations(text, limit):
    assert parse_duration(text) == limit


@pytest.mark.parametrize("text", ["", " ", "soon", "10x", "m", "1m1h", "1..5h", ".h", "-5m", "1h30"])
def test_invalid_durations_are_refused_with_examples(text):
    with pytest.raises(HyperparameterError, match="1h30m"):
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_a_duration_is_the_sum_of_its_parts(hours, minutes, seconds):
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


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
def test_constants(text, value):
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
def test_spaces(text, space):
    assert parse_space(text) == space


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives_being_written(number):
    assert parse_space(repr(number)) == number
    assert math.copysign(1, parse_space(repr(number))) == math.copysign(1, number)


@pytest.mark.parametrize("text", ["", "a,", ",a", "a,,b", "1:x", "1:2:lin", "1:2:log:3", "1:", "(1,2", "'a", "(1,)"])
def test_invalid_values_are_refused(text):
    with pytest.raises(HyperparameterError):
        parse_space(text)


def test_reversed_ranges_are_refused_with_a_correction():
    with pytest.raises(SpaceError, match=r"Real\(0\.1, 0\.5\)"):
        parse_space("0.5:0.1")


def test_omitted_options_are_not_hyperparameters():
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
def test_invalid_settings_are_refused(settings, named, message):
    with pytest.raises(HyperparameterError, match=message):
        parse_hyperparameters(settings, **named)


@pytest.mark.parametrize(
    "value",
    [
        Int(8, 64, default=16, log=True),
        Bool(default=True),
        List(Real(0.1, 0.5), 1.0),
        Dict(a=Int(1, 3), b="x, y"),
        Categorical({"name": "sgd", "momentum": Real(0.5, 0.99)}, None),
        {0: 1.0, 1: -2.5},
        {"cat": [1, (2, None)]},
    ],
)
def test_spaces_and_dicts_can_be_written_as_in_python(value):
    assert canonical_key(parse_space(repr(value))) == canonical_key(value)


@pytest.mark.parametrize(
    "text",
    [
        "Real(1)",
        "Int(1, 2, 3, 4, 5)",
        "Real(open('x'))",
        "Real(1, 2, step=3)",
        "{1: }",
        "{a}",
        "{**{}}",
        "Bool(*[1])",
        "Real(**{})",
    ],
)
def test_invalid_python_is_refused(text):
    with pytest.raises((HyperparameterError, SpaceError)):
        parse_space(text)


def test_no_code_is_run(tmp_path):
    victim = tmp_path / "victim"
    with pytest.raises(HyperparameterError):
        parse_space(f"Categorical(1, __import__('pathlib').Path({str(victim)!r}).touch())")
    assert not victim.exists()


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
PLAIN_TEXT = st.text(st.characters(exclude_characters="'\"\\", exclude_categories=["Cs", "Cc"]))
CONSTANTS = st.one_of(SCALARS, PLAIN_TEXT, st.tuples(st.floats(0, 1), st.floats(0, 1)))
BOUNDS = st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)).filter(lambda pair: pair[0] < pair[1])
RANGES = st.builds(lambda pair, log: Real(*pair, log=log), BOUNDS, st.booleans())
CHOICES = st.lists(st.one_of(CONSTANTS, RANGES), min_size=2, unique_by=canonical_key).map(
    lambda some: Categorical(*some)
)


@given(st.one_of(CONSTANTS, RANGES, CHOICES))
def test_values_are_read_back_equal(value):
    assert canonical_key(from_toml(to_toml(value))) == canonical_key(value)


@given(st.text())
def test_any_text_is_read_back_equal_or_refused(text):
    try:
        form = to_toml(text)
    except HyperparameterError:
        assert "'" in text or '"' in text  # only such text can be beyond quoting
    else:
        assert from_toml(form) == text


@pytest.mark.parametrize("value", [object(), len, Categorical("a", object())])
def test_objects_of_the_user_cannot_be_written(value):
    with pytest.raises(HyperparameterError, match="cannot be written"):
        to_toml(value)
