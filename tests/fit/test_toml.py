"""What is written is what Python's own reader reads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import DataError, HyperparameterError
from saccade.fit.toml import read_toml, toml_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # TOML holds no lone surrogates
SCALARS = st.one_of(TEXT, st.booleans(), st.integers(), st.floats(allow_nan=False))
VALUES = st.one_of(SCALARS, st.lists(SCALARS), st.lists(st.lists(SCALARS)))


@given(st.dictionaries(TEXT, st.one_of(VALUES, st.dictionaries(TEXT, VALUES))))
def test_what_is_written_is_read_back_equal(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(toml_text(values), encoding="utf-8", newline="")
    read = read_toml(path)
    assert read == values
    assert repr(sorted(read.items())) == repr(sorted(values.items()))  # 1, 1.0 and True are equal, -0.0 and 0.0 too


def test_what_is_no_number_is_read_back(tmp_path):
    (tmp_path / "x.toml").write_text(toml_text({"x": math.nan, "y": -math.inf}))
    read = read_toml(tmp_path / "x.toml")
    assert math.isnan(read["x"])
    assert read["y"] == -math.inf


@pytest.mark.parametrize("value", [None, object(), {1}, [None], "caf\udce9"])
def test_what_toml_does_not_have_is_refused(value):
    with pytest.raises(HyperparameterError):
        toml_text({"x": value})


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbfx = 1\r\n")
    assert read_toml(tmp_path / "x.toml") == {"x": 1}


@pytest.mark.parametrize("content", [b"x = ", b"x = 1\nx = 2", b"\xff", b"\x00"])
def test_what_is_no_toml_is_refused_by_the_name_of_the_file(tmp_path, content):
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.toml is no TOML file"):
        read_toml(tmp_path / "x.toml")
