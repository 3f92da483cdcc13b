from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.examples import Examples
from saccade.errors import DataError
from saccade.tasks.matching import match_classes, names_of_classes, widened
from saccade.tasks.problem import Problem

PETS = ["ant", "bee", "cow"]


def matched(labels, names, classes, class_names=None):
    labels = pd.Series(labels, dtype=None if len(labels) else object)
    examples = Examples([b""] * len(labels), labels.index, labels, names)
    result = match_classes(examples, Problem.of(classes), class_names, "tuning_data", "train_data")
    assert result.class_names == class_names
    return result.labels.tolist()


@pytest.mark.parametrize(
    ("labels", "names", "classes", "class_names", "expected"),
    [
        ([0, 1], ["bee", "cow"], PETS, None, ["bee", "cow"]),
        ([0, 1], ["bee", "cow"], [0, 1, 2], PETS, [1, 2]),
        (["bee", "cow"], None, [0, 1, 2], PETS, [1, 2]),
        ([0, 1], None, [0, 1, 2], PETS, [0, 1]),  # a table with the numbers of the training set
        ([0, 1], ["dog", "yak"], [0, 1, 2], None, [0, 1]),  # nothing but numbers can be compared
        ([1, 0], ["7", "9"], [7, 8, 9], None, [9, 7]),
        ([3, 5], None, ["3", "5", "7"], None, ["3", "5"]),
        ([3.0, 5.0], None, ["3", "5", "7"], None, ["3", "5"]),
        (["3", "5"], None, [3, 5, 7], None, [3, 5]),
        ([1, 0], None, [0.0, 1.0, 2.0], None, [1, 0]),
        (["1", "0"], None, [0.0, 1.0, 2.0], None, [1.0, 0.0]),
        ([True, False], None, ["False", "True"], None, ["True", "False"]),
        (["True"], None, [False, True], None, [True]),
        (pd.Categorical(["bee"], categories=PETS), None, PETS, None, ["bee"]),
    ],
)
def test_classes_are_matched_by_name(labels, names, classes, class_names, expected):
    assert matched(labels, names, classes, class_names) == expected


@pytest.mark.parametrize(
    ("labels", "names", "classes", "class_names"),
    [
        (["dog", "ant"], None, PETS, None),
        ([0, 1], ["ant", "dog"], [0, 1, 2], PETS),
        ([0, 1], ["ant", "dog"], PETS, None),
        (["ant", "dog"], None, [0, 1, 2], PETS),
    ],
)
def test_an_unknown_class_is_an_error_that_lists_the_differences(labels, names, classes, class_names):
    expected = (
        r"tuning_data has classes that train_data does not have: \['dog'\].*'ant', 'bee', 'cow'.*lacks.*'bee', 'cow'"
    )
    with pytest.raises(DataError, match=expected):
        matched(labels, names, classes, class_names)


def test_numbers_are_not_the_positions_of_folder_names():
    with pytest.raises(DataError, match=r"does not have: \[0, 1\]"):
        matched([0, 1], None, PETS)


def test_leading_zeros_are_another_class():
    with pytest.raises(DataError, match=r"\[7\]"):
        matched([7], None, ["007", "008"])


@given(
    names=st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=6, unique=True),
    order=st.randoms(use_true_random=False),
    are_numbered=st.tuples(st.booleans(), st.booleans()),
)
def test_matching_does_not_depend_on_the_numbering_of_classes(names, order, are_numbered):
    theirs = sorted(names)
    ours = list(names)
    order.shuffle(ours)
    classes, class_names = (list(range(len(theirs))), theirs) if are_numbered[0] else (theirs, None)
    labels, own = (list(range(len(ours))), ours) if are_numbered[1] else (ours, None)
    found = matched(labels, own, classes, class_names)
    assert [theirs[label] if are_numbered[0] else label for label in found] == ours


def test_missing_labels_stay_missing_and_other_problems_are_left_as_they_are():
    assert np.isnan(matched(["3", None], None, [3, 5])[1])
    assert matched([["a"], ["b", "c"]], None, [["a", "b"], ["c"]]) == [["a"], ["b", "c"]]
    assert matched([0.25], None, [0.5, 1.5, 2.5]) == [0.25]


def test_accents_may_be_decomposed():
    examples = Examples(["a.png"] * 2, pd.RangeIndex(2), pd.Series(["cafe\u0301", "bar"]))
    problem = Problem.of(["caf\u00e9", "bar", "cow"])
    assert match_classes(examples, problem, None, "it", "the predictor").labels.tolist() == ["caf\u00e9", "bar"]
    assert widened(problem, None, examples)[0] is problem


def test_classes_of_further_images_are_added_by_name():
    further = Examples(["a.png"] * 2, pd.RangeIndex(2), pd.Series([0, 1]), ["ant", "dog"])
    problem, names = widened(Problem.of([0, 1]), ["cat", "dog"], further)
    assert (problem.classes, names) == ((0, 1, 2), ["cat", "dog", "ant"])
    assert names_of_classes([0, 2], ["ant", "bee", "cow"]) == ["ant", "cow"]
    assert names_of_classes([5.0, 7.5], None) == ["5.0", "7.5"]
