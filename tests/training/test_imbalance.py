from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from saccade import Categorical
from saccade.errors import DataError, HyperparameterError, UnknownNameError
from saccade.tasks.problem import Multilabel, Problem
from saccade.training.imbalance import (
    balanced_sampling_weights,
    check_imbalance,
    class_priors,
    class_weights,
    loss_weights,
    sample_weights,
)
from saccade.training.recipes.recipe import Recipe, recipe_space

ABC = Problem.of(["a", "b", "c"])
LISTS = Problem.of([["a"], ["b"], ["c"]])
NUMBERS = Problem.of([0.5, 1.0, 1.25])

all_classes = st.lists(st.integers(0, 2), max_size=50).map(lambda more: np.array([0, 1, 2, *more]))
positive = st.floats(0.01, 100)


def test_class_weights_are_none_without_a_specification():
    assert class_weights(None, np.array([0, 1]), ABC) is None
    assert class_weights(None, np.array([0.0, 1.0]), NUMBERS) is None


@settings(deadline=None)
@given(all_classes)
def test_balanced_weights_are_scikit_learns(targets):
    weights = class_weights("balanced", targets, ABC)
    assert weights.dtype == np.float32
    assert weights == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=targets), rel=1e-5)


@settings(deadline=None)
@given(all_classes, st.dictionaries(st.sampled_from("abc"), positive))
def test_given_weights_keep_their_ratio_and_have_mean_1_over_the_images(targets, spec):
    weights = class_weights(spec, targets, ABC)
    asked = np.array([spec.get(label, 1.0) for label in "abc"])
    assert weights / weights[0] == pytest.approx(asked / asked[0], rel=1e-4)
    assert weights[targets].mean() == pytest.approx(1, rel=1e-4)


def test_weights_are_given_by_label_whatever_its_type():
    targets = np.array([0, 1])
    assert class_weights({True: 3}, targets, Problem.of([False, True])).tolist() == [0.5, 1.5]
    assert class_weights({20: 3}, targets, Problem.of([10, 20])).tolist() == [0.5, 1.5]
    assert class_weights({np.int64(20): np.float32(3)}, targets, Problem.of([10, 20])).tolist() == [0.5, 1.5]


def test_class_weights_by_class_names_of_integer_labels():
    weights = class_weights({"dog": 3}, np.array([0, 1]), Problem.of([0, 1]), class_names=["cat", "dog"])
    assert weights.tolist() == [0.5, 1.5]


def test_multilabel_class_weights_are_of_positives_against_negatives():
    targets = LISTS.encode([["a", "b"], ["a"], ["a"], ["a", "b", "c"]])
    assert class_weights("balanced", targets, LISTS).tolist() == [1, 1, 3]  # every image has an a
    assert class_weights({"c": 5}, targets, LISTS).tolist() == [1, 1, 5]


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("balance", UnknownNameError, "Did you mean 'balanced'"),
        ({"cc": 1}, UnknownNameError, "Unknown label in class_weight 'cc'"),
        ([1, 2, 3], HyperparameterError, "expected 'balanced', a dict"),
        ({"a": -1}, HyperparameterError, "of 'a' was given -1; expected a number, 0 or more"),
        ({"a": "much"}, HyperparameterError, "was given 'much'"),
        ({"a": float("nan")}, HyperparameterError, "was given nan"),
        ({"a": 0, "b": 0, "c": 0}, HyperparameterError, "no training image a weight above 0"),
    ],
)
def test_invalid_class_weights_are_refused(spec, error, message):
    with pytest.raises(error, match=message):
        class_weights(spec, np.array([0, 1, 2]), ABC)


def test_a_label_of_the_wrong_type_gets_a_hint():
    with pytest.raises(UnknownNameError, match="The label is 1 of type int"):
        class_weights({"1": 2.0}, np.array([0, 1]), Problem.of([0, 1]))


@settings(deadline=None)
@given(all_classes)
def test_balanced_sampling_draws_each_class_equally_often(targets):
    probabilities = balanced_sampling_weights(targets, ABC)
    assert probabilities.sum() == pytest.approx(1)
    assert np.bincount(targets, probabilities) == pytest.approx([1 / 3] * 3)


def test_balanced_sampling_skips_classes_without_images():
    assert balanced_sampling_weights(np.array([0, 2, 2]), ABC).tolist() == [0.5, 0.25, 0.25]


def test_balanced_sampling_draws_images_for_their_rarest_label():
    targets = LISTS.encode([["a"], ["a"], ["a", "b"], []])
    assert balanced_sampling_weights(targets, LISTS) == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3])


def test_class_weights_and_balanced_sampling_are_refused_for_regression():
    targets = np.zeros(3, np.float32)
    with pytest.raises(HyperparameterError, match="class_weight requires classes"):
        class_weights("balanced", targets, NUMBERS)
    with pytest.raises(HyperparameterError, match="balanced_sampling requires classes"):
        balanced_sampling_weights(targets, NUMBERS)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1).filter(lambda column: sum(column) > 0.1))
def test_sample_weights_keep_their_ratio_and_have_mean_1(column):
    weights = sample_weights(column)
    assert weights.dtype == np.float32
    assert weights.mean() == pytest.approx(1, rel=1e-4)
    assert weights == pytest.approx(np.array(column) / np.mean(column), rel=1e-4)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.Series([1, None], dtype="Int64"), r"1 of 2 sample weights .* first in row 1"),
        ([1.0, float("nan")], "row 1"),
        ([-1.0, 2.0], r"row 0 \(-1\.0\)"),
        ([1.0, float("inf")], "row 1"),
        (["heavy", "light"], "must be numbers"),
        ([0, 0], "all sample weights are 0"),
    ],
)
def test_invalid_sample_weights_are_refused(column, message):
    with pytest.raises(DataError, match=message):
        sample_weights(column)


def test_loss_weights_are_those_of_class_and_image_together():
    by_class, by_image = np.array([1.0, 2.0, 4.0], np.float32), np.array([1.0, 0.5, 0.5], np.float32)
    targets = np.array([0, 1, 2])
    assert loss_weights(targets, ABC, None, None) is None
    assert loss_weights(targets, ABC, by_class, by_image).tolist() == [1.0, 1.0, 2.0]
    assert loss_weights(targets, ABC, None, by_image).tolist() == [1.0, 0.5, 0.5]
    of_lists = loss_weights(LISTS.encode([["a"], ["c"], []]), LISTS, by_class, by_image)
    assert of_lists.tolist() == [[1.0, 1.0, 1.0], [0.5, 0.5, 2.0], [0.5, 0.5, 0.5]]


def test_weights_of_a_search_space_are_checked_against_the_labels():
    labels, names = [0, 0, 1], ["cat", "dog"]
    problem = Problem.of(labels)
    good = recipe_space({"class_weight": Categorical("balanced", {"dog": 2.0}, {1: 2.0}, None)})
    check_imbalance(good, labels, problem, names)
    with pytest.raises(UnknownNameError, match="'dog'"):
        check_imbalance(recipe_space({"class_weight": Categorical(None, {"dgo": 2.0})}), labels, problem, names)
    numbers = [0.5, 1.25, 3.0]
    with pytest.raises(HyperparameterError, match="requires classes"):
        check_imbalance(recipe_space({"balanced_sampling": True}), numbers, Problem.of(numbers))


def test_class_priors_are_weighted_class_frequencies() -> None:
    problem = Problem.of(["a", "b", "c"])
    targets = np.array([0] * 6 + [1] * 2)
    plain = class_priors(Recipe.of({}), targets, problem)
    assert plain == pytest.approx(np.array([6, 2, 4]) / 12)  # a class without images has the mean
    weighted = class_priors(Recipe.of({"class_weight": {"b": 3.0}}), targets, problem)
    assert weighted == pytest.approx(np.array([6, 6, 4]) / 16)
    assert class_priors(Recipe.of({"balanced_sampling": True}), targets, problem) == pytest.approx(np.full(3, 1 / 3))
    by_image = np.array([0.5] * 6 + [3.0] * 2)
    assert class_priors(Recipe.of({}), targets, problem, by_image=by_image) == pytest.approx(
        np.array([3, 6, 4.5]) / 13.5
    )
    assert class_priors(Recipe.of({}), np.ones((3, 2)), Multilabel(("x", "y"))) is None
