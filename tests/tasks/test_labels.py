from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from saccade.errors import DataError
from saccade.tasks.labels import (
    class_array,
    indicators,
    infer_problem_type,
    inferred_problem_type,
    plain_label_lists,
    plain_labels,
)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["cat", "dog", "cat"], "binary"),
        ([0.5, 1.5, 0.5], "binary"),
        ([True, False], "binary"),
        (["cat", "dog", "cow"], "multiclass"),
        (pd.Series(["1.5", "2.5", "3.5"], dtype="category"), "multiclass"),
        ([3, 1, 2], "multiclass"),
        ([3.0, 1.0, 2.0], "multiclass"),
        ([3.0, 1.25, 2.0], "regression"),
        (np.linspace(0, 1, 7), "regression"),
        (list(range(20)), "multiclass"),
        (list(range(21)), "regression"),
        (pd.Series(list(range(21)) * 2, dtype="Int64"), "multiclass"),
        ([float(age) for age in range(21)], "regression"),
        ([str(name) for name in range(50)], "multiclass"),
        ([["cat"], []], "multilabel"),
        ([{"cat"}, {"dog", "cow"}], "multilabel"),
        ([np.array([1, 2]), np.array([3])], "multilabel"),
        (pd.DataFrame({"cat": [0, 1], "dog": [1, 1]}), "multilabel"),
    ],
)
def test_the_problem_type_is_inferred_from_the_labels(labels, expected):
    assert infer_problem_type(labels) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pd.Series(["b", "a"], dtype="string"), ["b", "a"]),
        (pd.Series(["b", "a"], dtype="category"), ["b", "a"]),
        (pd.Series([2, 1], dtype="category"), [2, 1]),
        (pd.Series([2, 1], dtype="UInt8"), [2, 1]),
        (pd.Series([True, False], dtype="boolean"), [True, False]),
        (pd.Series([0.5, 1.5], dtype="Float32"), [0.5, 1.5]),
        (np.array(["b", "a"]), ["b", "a"]),
        ([np.int8(2), np.int64(1)], [2, 1]),
        ([np.bool_(True), np.bool_(False)], [True, False]),
        (np.array([np.str_("b")], dtype=object), ["b"]),
        (pd.Index([2, 1]), [2, 1]),
    ],
)
def test_labels_of_all_dtypes_become_plain(labels, expected):
    plain = plain_labels(labels)
    assert plain == expected
    assert [type(label) for label in plain] == [type(label) for label in expected]


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT, "", "  "])
def test_missing_labels_are_counted(missing):
    with pytest.raises(DataError, match="2 of 3 labels are missing"):
        plain_labels([missing, "cat", missing])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, "cat"], r"mix numbers and text: \[1, 'cat'\]"),
        ([1, True], "mix bools and numbers"),
        ([date(2020, 1, 1)], "of type date"),
        ([b"cat"], "of type bytes"),
        (["cat", ["dog"]], "one label for each"),
        ([1.5, float("inf")], "1 of 2 labels are infinite"),
    ],
)
def test_values_that_are_not_labels_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        plain_labels(labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat dog", ["cat"]], r"'cat dog'.*str\.split"),
        ([["cat"], None], "1 of 2 labels are missing"),
        ([["cat", None]], "missing value"),
        ([["cat", 1]], "mix numbers and text"),
        ([[["cat"]]], "a list of labels"),
    ],
)
def test_values_that_are_not_lists_of_labels_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        plain_label_lists(labels)


def test_columns_of_labels_hold_0_and_1_only():
    frame = pd.DataFrame({"cat": [0, 1], "dog": [True, False], "cow": pd.array([1, 0], dtype="Int64")})
    assert indicators(frame).tolist() == [[0, 1, 1], [1, 0, 0]]
    with pytest.raises(DataError, match=r"the columns \['dog'\] hold other values"):
        indicators(frame.assign(dog=[2, 0]))
    with pytest.raises(DataError, match=r"missing in the columns \['cow'\]"):
        indicators(frame.assign(cow=pd.array([1, None], dtype="Int64")))
    with pytest.raises(DataError, match="must hold 0 and 1"):
        indicators(frame.assign(cat=["yes", "no"]))


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        ([True, False], "bool"),
        ([2, 1], "int64"),
        ([2**40, 1], "int64"),
        ([0.5, 2], "float64"),
        ([2**60 + 1, 0.5], "object"),
        ([2**70, 1], "object"),
        (["b", "a"], "object"),
    ],
)
def test_arrays_of_classes_hold_them_exactly(labels, dtype):
    classes = tuple(sorted(set(labels)))
    array = class_array(classes)
    assert array.dtype == dtype
    assert array.tolist() == sorted(labels)


@pytest.mark.parametrize(
    ("labels", "problem_type", "expected"),
    [
        ([1, 2, 3, 3], "multiclass", "3 different whole numbers; problem_type='regression' takes them as quantities"),
        ([4, 5, 4], "binary", "2 different numbers; problem_type='regression' takes them as quantities"),
        (
            [0.5, 2.25, 3],
            "regression",
            "labels are numbers with fractions; problem_type='multiclass'",
        ),
        (
            list(range(30)),
            "regression",
            "30 different whole numbers, nearly as many as images; problem_type='multi",
        ),
        (["1.50", "2.25", "3.10"], "multiclass", "3 different texts, such as '1.50'; problem_type='regression'"),
        (["cat", "dog", "cow"], "multiclass", "3 different labels, not numbers"),
        ([str(number) for number in range(30)], "multiclass", "30 different labels, not numbers"),
        ([["a"], ["b", "c"]], "multilabel", "labels are lists"),
    ],
)
def test_the_inferred_type_has_a_reason_and_for_numbers_an_argument_to_override_it(labels, problem_type, expected):
    kind, reason = inferred_problem_type(labels)
    assert kind == infer_problem_type(labels) == problem_type
    assert expected in reason
