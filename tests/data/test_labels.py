from __future__ import annotations

import pandas as pd
import pytest

from saccade.data.labels import are_numbers_of_classes, are_values, checked_classes
from saccade.errors import DataError


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "b"], ["a", "b"]),
        (["b", None], ["b"]),
        ([1, 0], None),
        ([0.5, 1.5], None),
        ([True, False], None),
        ([], None),
    ],
)
def test_classes_are_found_only_where_labels_are_strings(labels, classes):
    assert checked_classes(None, pd.Series(labels, dtype=None if labels else object)) == classes


def test_given_classes_keep_their_order():
    assert checked_classes(("b", "a"), pd.Series(["a"])) == ["b", "a"]
    assert checked_classes(["b", "a"], pd.Series([1, 0])) == ["b", "a"]


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0]])
def test_a_number_without_a_class_is_an_error(labels):
    with pytest.raises(DataError, match=f"from {labels[0]} to {labels[1]}, but 2 classes"):
        checked_classes(["a", "b"], pd.Series(labels))


def test_a_name_that_is_no_class_is_an_error():
    with pytest.raises(DataError, match="'c' is not among"):
        checked_classes(["a", "b"], pd.Series(["a", "c"]))


@pytest.mark.parametrize("classes", [["a", "b", "a"], "ab"])
def test_classes_that_cannot_be(classes):
    with pytest.raises(DataError, match=r"named twice: 'a'|string 'ab'"):
        checked_classes(classes, pd.Series([0, 1]))


def test_numbers_mean_classes_only_where_these_have_names():
    assert are_numbers_of_classes(pd.Series([0]), ["a"])
    assert not are_numbers_of_classes(pd.Series([0]), None)
    assert not are_numbers_of_classes(pd.Series(["a"]), ["a"])
    assert not are_numbers_of_classes(pd.Series([0.5]), ["a"])


def test_only_fractions_are_values():
    assert are_values(pd.Series([0.5, None]))
    assert not are_values(pd.Series([1.0, None]))
    assert not are_values(pd.Series(["0.5"]))
