"""Names of predictions, selection of images to explain, neighbours and overlays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.examples import Examples
from saccade.errors import HyperparameterError
from saccade.inference.description import Member
from saccade.inference.pipeline import postprocess
from saccade.inference.postprocessing import Postprocessing
from saccade.inference.saved import SavedPredictor
from saccade.inference.thresholds import Thresholds
from saccade.insight.embeddings import EmbeddedImages
from saccade.insight.reasons import NamedPredictions, check_numbers, label_names, neighbours_of, small_overlay
from saccade.models.network import InputSpec
from saccade.tasks.problem import Problem

PETS = ["cat", "cow", "dog"]


def saved_for(labels: Any, class_names: list[str] | None = None, **postprocessing: Any) -> SavedPredictor:
    """Return a predictor with a problem and postprocessing only."""
    none: Any = None
    return SavedPredictor(
        folder=Path(),
        label="label",
        problem=Problem.of(labels),
        metric="",
        eval_metric=None,
        class_names=class_names,
        summary={},
        trials=[],
        members=[Member(0, none)],
        postprocessing=Postprocessing(**postprocessing),
    )


def named_predictions(predictions: np.ndarray, examples: Examples, saved: SavedPredictor) -> NamedPredictions:
    return NamedPredictions.of(postprocess(saved, [predictions]), examples, saved)


def examples_of(labels: Any, class_names: list[str] | None = None) -> Examples:
    return Examples([b""] * len(labels), pd.RangeIndex(len(labels)), labels, class_names)


@pytest.mark.parametrize(
    ("fitted", "labels", "class_names", "expected"),
    [
        (PETS, pd.Series(["dog", None, "cat"]), None, ["dog", None, "cat"]),
        (PETS, pd.Series([2, 0]), ["ant", "bee", "cat"], ["cat", "ant"]),
        ([5, 7], pd.Series([7, 5, 9]), None, ["7", "5", "9"]),
        ([0.0, 1.0], pd.Series([1.0, np.nan]), None, ["1.0", None]),
        ([["a", "b"], ["c"]], pd.Series([["c", "a"], {"b"}, [], None]), None, ["a, c", "b", "none", None]),
        ([0.5, 1.5, 2.5], pd.Series([2.123456789, np.nan, 3]), None, ["2.12346", None, "3"]),
        (PETS, pd.Series([["cat", "dog"], "cow"]), None, ["['cat', 'dog']", "cow"]),
        (PETS, None, None, []),
    ],
)
def test_label_names(fitted, labels, class_names, expected):
    assert label_names(labels, class_names, saved_for(fitted)) == expected


def test_class_numbers_without_names_have_the_names_of_the_fit():
    saved = saved_for([0, 1, 2], PETS)
    assert label_names(pd.Series([2, 0]), None, saved) == ["dog", "cat"]
    assert label_names(pd.Series([2, 0]), ["dog", "ant", "cat"], saved) == ["cat", "dog"]


def test_names_of_several_label_columns():
    frame = pd.DataFrame({"a": [1, 0, 1], "b": [1, 0, 0]})
    saved = saved_for(frame)
    assert label_names(frame.astype(bool), None, saved) == ["a, b", "none", "a"]
    assert label_names(frame.where(frame["a"] == 1), None, saved) == ["a, b", None, "a"]
    named = named_predictions(np.array([[0.9, 0.4], [0.2, 0.6], [0.1, 0.3]]), examples_of(frame), saved)
    assert named.predicted == ["a", "b", "none"]
    assert named.is_wrong.tolist() == [True, True, True]
    assert named.weights == pytest.approx([0.6, 0.6, 0.7])
    assert named.targets.tolist() == [0, 1, 1]


def test_the_probability_is_that_of_the_predicted_label():
    saved = saved_for(["no", "yes"], thresholds=Thresholds((0.2,)))
    labels = pd.Series(["yes", "yes", None])
    named = named_predictions(np.array([[0.7, 0.3], [0.9, 0.1], [0.05, 0.95]]), examples_of(labels), saved)
    assert named.predicted == ["yes", "no", "yes"]
    assert named.probabilities == pytest.approx([0.3, 0.9, 0.95])
    assert named.is_wrong.tolist() == [False, True, False]
    assert named.true == ["yes", "yes", None]


def test_the_largest_regression_errors_are_first():
    labels = pd.Series([1.0, 2.0, np.nan, 4.5])
    predictions = np.array([[1.5], [2.0], [9.0], [1.5]])
    named = named_predictions(predictions, examples_of(labels), saved_for([0.5, 1.5, 2.25]))
    assert named.predicted == ["1.5", "2", "9", "1.5"]
    assert named.targets.tolist() == [0] * 4
    assert named.rows_to_show([], 3) == [3, 0, 1]
    unknown = named_predictions(predictions, Examples([b""] * 4, pd.RangeIndex(4)), saved_for([0.5, 1.5, 2.25]))
    assert unknown.rows_to_show([0], 2) == [1, 2]


@settings(max_examples=80, deadline=None)
@given(
    images=st.lists(st.tuples(st.integers(0, 10), st.booleans(), st.booleans()), min_size=1, max_size=12),
    num_images=st.integers(1, 12),
)
def test_confident_mistakes_are_first(images: list[tuple[int, bool, bool]], num_images: int):
    confidence = np.array([sure / 10 for sure, _, _ in images])
    is_wrong = np.array([wrong for _, wrong, _ in images])
    unreadable = [row for row, (_, _, lost) in enumerate(images) if lost]
    named = NamedPredictions(
        ["a"] * len(images), [None] * len(images), [None] * len(images), np.zeros(0), confidence, is_wrong
    )
    shown = named.rows_to_show(unreadable, num_images)
    if len(images) <= num_images:
        assert shown == list(range(len(images)))
        return
    assert len(set(shown)) == num_images
    wrong = [row for row in range(len(images)) if row not in unreadable and is_wrong[row]]
    right = [row for row in range(len(images)) if row not in unreadable and not is_wrong[row]]
    expected = sorted(wrong, key=lambda row: -confidence[row]) + sorted(right, key=lambda row: confidence[row])
    assert [row for row in shown if row not in unreadable] == expected[:num_images]
    assert shown[: len(expected)] == expected[:num_images]


def test_neighbours_have_images_and_names():
    vectors = np.eye(3, dtype=np.float32)
    among = EmbeddedImages(
        Examples(["a.png", b"b", "c.png"], pd.RangeIndex(3), pd.Series([1, 0, 1]), ["x", "y"]), vectors
    )
    queries = EmbeddedImages(Examples([b""], pd.RangeIndex(1)), np.array([[0.0, 0.8, 0.6]], np.float32))
    (near,) = neighbours_of(queries, among, 2, saved_for(["x", "y"]))
    assert [(each.image, each.label) for each in near] == [(b"b", "x"), ("c.png", "y")]
    assert [each.similarity for each in near] == pytest.approx([0.8, 0.6])
    unlabelled = EmbeddedImages(Examples(["a.png", "b.png", "c.png"], pd.RangeIndex(3)), vectors * [[1], [1], [0]])
    (near,) = neighbours_of(queries, unlabelled, 5, saved_for(["x", "y"]))
    assert [(each.image, each.label) for each in near] == [("b.png", None), ("a.png", None)]


def test_overlays_are_small_and_match_the_map():
    spec = InputSpec(8, 1.0, "bilinear", (0.5,), (0.5,))
    map_HW = np.zeros((8, 8), np.float32)
    map_HW[:, 6:] = 1
    overlay = small_overlay(Image.new("RGB", (1200, 600), (90, 90, 90)), map_HW, spec)
    assert overlay is not None
    assert overlay.size == (256, 128)
    change = np.abs(np.asarray(overlay).astype(int) - 90).sum(2).mean(0)
    assert change[170:190].min() > 100
    assert change[:140].max() == change[200:].max() == 0
    picture = Image.new("RGB", (20, 30))
    assert (small_overlay(picture, map_HW, spec) or picture).size == picture.size == (20, 30)
    assert small_overlay(b"no image", map_HW, spec) is None
    assert small_overlay(picture, 0 * map_HW, spec) is None


@pytest.mark.parametrize("value", [0, -1, 1000, 2.0, True, "4", None])
def test_invalid_numbers_of_images_are_refused(value: Any):
    check_numbers(1, np.int64(200))
    with pytest.raises(HyperparameterError, match=r"k was given .*; expected a whole number, from 1 to 50"):
        check_numbers(value, 12)
    with pytest.raises(HyperparameterError, match=r"num_images was given .*; expected a whole number, from 1 to 200"):
        check_numbers(4, value)
