from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.data.examples import Examples
from saccade.errors import DataError
from saccade.insight.embeddings import EmbeddedImages, unit_vectors
from saccade.insight.label_issues import confident_joint, label_issues, out_of_fold_probabilities, probably_wrong
from saccade.tasks.problem import Problem


def blobs(num_classes: int, num: int, seed: int, spread: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Return features around a centre for each class, and the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_classes * num) % num_classes)
    return np.eye(num_classes, 16)[labels] + spread * rng.normal(size=(len(labels), 16)), labels


def embedded(features: np.ndarray) -> EmbeddedImages:
    names = [f"{number}.png" for number in range(len(features))]
    return EmbeddedImages(Examples(list(names), pd.Index(range(100, 100 + len(features)))), unit_vectors(features))


@pytest.mark.parametrize("num_classes", [2, 5])
def test_flipped_labels_are_found(num_classes: int) -> None:
    features, labels = blobs(num_classes, 60, seed=num_classes)
    rng = np.random.default_rng(1)
    flipped = rng.choice(len(labels), len(labels) // 10, replace=False)
    given_labels = labels.copy()
    given_labels[flipped] = (labels[flipped] + rng.integers(1, num_classes, len(flipped))) % num_classes
    series = pd.Series([f"class {label}" for label in given_labels])
    issues = label_issues(embedded(features), series, Problem.of(series))
    found = issues.index.to_numpy() - 100
    assert np.isin(flipped, found).mean() >= 0.8
    assert np.isin(found, flipped).mean() > 0.8
    top = issues.iloc[: len(flipped) // 2]
    assert np.isin(top.index - 100, flipped).all()
    right = issues["suggested_label"] == [f"class {label}" for label in labels[found]]
    assert right[np.isin(found, flipped)].mean() > 0.9
    assert list(issues["rank"]) == list(range(1, len(issues) + 1))
    assert issues["self_confidence"].is_monotonic_increasing
    assert list(issues["image"]) == [f"{row}.png" for row in found]


def test_unreadable_images_and_single_images_of_a_class_are_not_reported() -> None:
    features, labels = blobs(2, 20, seed=0)
    features[3] = np.nan
    names = pd.Series(["cat" if label else "dog" for label in labels])
    names[5] = "cow"  # similar to one of the other classes
    issues = label_issues(embedded(features), names, Problem.of(names))
    assert not {103, 105} & set(issues.index)


@settings(max_examples=50, deadline=None)
@given(num=st.integers(1, 40), num_classes=st.integers(2, 5), seed=st.integers(0, 1000))
def test_at_most_the_estimated_number_of_wrong_labels_is_reported(num: int, num_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(num_classes), num)
    labels = rng.integers(num_classes, size=num)
    joint = confident_joint(probabilities, labels)
    assert np.allclose(joint.sum(1), np.bincount(labels, minlength=num_classes))
    is_flagged = probably_wrong(probabilities, labels)
    num_wrong = np.rint(joint.sum(1) - joint.diagonal())
    for label in range(num_classes):
        assert is_flagged[labels == label].sum() <= num_wrong[label]
    assert not is_flagged[probabilities.argmax(1) == labels].any()


def test_labels_with_the_largest_margin_are_reported_first() -> None:
    """Of ten images of class 0 with label 1, the five with confident predictions are reported at least."""
    confident, rest = [[0.95, 0.05]] * 5, [[0.6, 0.4]] * 5
    probabilities = np.array([[0.9, 0.1]] * 20 + confident + rest + [[0.1, 0.9]] * 20)
    labels = np.array([0] * 20 + [1] * 30)
    flagged = np.flatnonzero(probably_wrong(probabilities, labels))
    assert set(range(20, 25)) <= set(flagged)
    assert set(flagged) <= set(range(20, 30))


def test_predictions_are_out_of_fold() -> None:
    """Random labels are not predictable, although there are more features than images."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(80, 200)), np.arange(80) % 2
    probabilities = out_of_fold_probabilities(features, labels, 2)
    assert (probabilities.argmax(1) == labels).mean() < 0.7
    assert np.allclose(probabilities.sum(1), 1)


def test_problems_without_classes_and_single_classes_are_refused() -> None:
    images = embedded(np.eye(4, 16))
    numbers = pd.Series([0.5, 1.5, 2.5, 3.5])
    with pytest.raises(DataError, match="regression problem"):
        label_issues(images, numbers, Problem.of(numbers, "regression"))
    with pytest.raises(DataError, match="less than two classes"):
        label_issues(images, pd.Series(["cat"] * 4), Problem.of(["cat", "dog"]))
