"""Propagated labels, on synthetic features."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from saccade.tasks.problem import Problem
from saccade.training.probes import pseudo_labels as module
from saccade.training.probes.pseudo_labels import PseudoLabels, pseudo_labels

PROBLEM = Problem.of(pd.Series(["a", "b", "c"]))


def clusters(num: int, width: float, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Return features of three classes by two networks, and the classes; the first 12 images have all of them."""
    rng = np.random.default_rng(seed)
    targets = np.arange(num) % 3
    centres = rng.normal(size=(2, 3, 40))
    return [(each[targets] + width * rng.normal(size=(num, 40))).astype(np.float32) for each in centres], targets


def test_labels_spread_within_clusters_and_help() -> None:
    features, targets = clusters(300, 1.6)
    found = pseudo_labels(features, targets[:12], PROBLEM)
    assert found is not None
    assert (found.targets == targets[12:]).mean() > 0.9
    assert found.are_better
    assert found.loss_with < found.loss
    assert found.confidence.shape == (288,)
    assert (found.confidence > 1 / 3).all()
    right = found.targets == targets[12:]
    assert found.confidence[right].mean() > found.confidence[~right].mean() if not right.all() else True


def test_labels_without_relation_to_the_features_do_not_help() -> None:
    features, targets = clusters(300, 1.0)
    mixed = np.random.default_rng(1).permutation(targets[:60])
    found = pseudo_labels(features, mixed, PROBLEM)
    assert found is not None
    assert not found.are_better


def test_classes_keep_the_frequencies_of_the_labels() -> None:
    features, targets = clusters(600, 3.0)
    known = np.concatenate([np.flatnonzero(targets == 0)[:20], np.flatnonzero(targets == 1)[:4], [2, 5]])
    order = np.concatenate([known, np.setdiff1d(np.arange(600), known)])
    found = pseudo_labels([each[order] for each in features], targets[known], PROBLEM)
    assert found is not None
    counts = np.bincount(found.targets, minlength=3)
    assert counts[0] > 2 * max(counts[1:])


def test_few_images_and_no_time_give_no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = clusters(60, 1.0)
    assert pseudo_labels(features, targets, PROBLEM) is None  # none is without a label
    assert pseudo_labels(features, targets[:3], PROBLEM) is None  # one image of each class: nothing to hold out
    assert pseudo_labels([each[:8] for each in features], targets[:6], PROBLEM) is None
    assert pseudo_labels(features, targets[:12], PROBLEM, seconds_left=lambda: 0.0) is None
    expected = pseudo_labels(features, targets[:12], PROBLEM)
    monkeypatch.setattr(module, "MAX_SIMILARITIES", 100)  # in parts
    again = pseudo_labels(features, targets[:12], PROBLEM)
    assert expected is not None
    assert again is not None
    assert (again.targets == expected.targets).all()


def test_a_difference_within_its_error_is_no_improvement() -> None:
    none = np.zeros(0)
    assert PseudoLabels(none, none, 1.0, 0.8, 0.1).are_better
    assert not PseudoLabels(none, none, 1.0, 0.95, 0.1).are_better
    assert not PseudoLabels(none, none, 1.0, 1.2, 0.1).are_better
