from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from saccade.tasks.problem import Problem
from saccade.training.probes import heads
from saccade.training.probes.heads import Head, HeadFitter


def fit_heads(
    features: np.ndarray, targets: np.ndarray, problem: Problem, *weights: np.ndarray, **options: Any
) -> Head:
    fitter = HeadFitter(features, targets, problem, options.pop("groups", None))
    return fitter.fit(*weights, **options)


def clouds(
    num_images: int, num_classes: int, num_features: int, distance: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(num_images) % num_classes
    centres = distance * rng.normal(size=(num_classes, num_features))
    return (centres[targets] + rng.normal(size=(num_images, num_features))).astype(np.float32), targets


def classes(num: int) -> Problem:
    return Problem.of([f"class {number:02d}" for number in range(num)] * 2)


def outputs(head: Head, features: np.ndarray) -> np.ndarray:
    return np.asarray(features @ head.weight.T + head.bias)


def centred(features: np.ndarray) -> np.ndarray:
    moved = features - features.mean(0)
    return np.asarray(moved / np.sqrt(np.mean(moved**2)))


@settings(max_examples=15, deadline=None)
@given(
    num_images=st.integers(12, 80),
    num_classes=st.integers(2, 5),
    num_features=st.integers(2, 100),
    penalty=st.floats(1, 100),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 9),
)
def test_a_head_is_the_logistic_regression_of_its_penalty(
    num_images: int, num_classes: int, num_features: int, penalty: float, scale: float, seed: int
) -> None:
    features, targets = clouds(num_images, num_classes, num_features, 0.5, seed)
    problem = classes(num_classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "TOLERANCE", 1e-5)
        patch.setattr(heads, "MAX_STEPS", 3000)
        patch.setattr(heads, "DEFAULT_PENALTY", penalty)
        head = fit_heads(scale * features, targets, problem, num_folds=1)
    known = LogisticRegression(C=1 / penalty, max_iter=5000, tol=1e-7)
    if num_classes == 2:  # there scikit-learn has one row of coefficients, for which the penalty counts twice
        known.set_params(C=2 / penalty)
    expected = known.fit(centred(features), targets).predict_proba(centred(features))
    found = torch.tensor(outputs(head, scale * features)).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_regression_head_is_a_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = clouds(50, 3, 10, 1.0)
    targets = (features[:, 0] - 2 * features[:, 1]).astype(np.float32)
    problem = Problem.of(np.linspace(0, 1, 50).tolist(), "regression")
    monkeypatch.setattr(heads, "TOLERANCE", 1e-6)
    head = fit_heads(features, targets, problem, num_folds=1)
    expected = Ridge(heads.DEFAULT_PENALTY).fit(centred(features), targets).predict(centred(features))
    np.testing.assert_allclose(outputs(head, features)[:, 0], expected, atol=1e-2)


def test_each_label_has_a_logistic_regression_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    features, numbers = clouds(60, 3, 8, 1.0)
    targets = np.stack([numbers == 0, numbers != 1], axis=1).astype(np.float32)
    problem = Problem.of([["one", "two"], ["two"], ["one"]] * 20)
    monkeypatch.setattr(heads, "TOLERANCE", 1e-5)
    head = fit_heads(features, targets, problem, num_folds=1)
    for label in range(2):
        known = LogisticRegression(C=1 / heads.DEFAULT_PENALTY, tol=1e-7).fit(centred(features), targets[:, label])
        expected = known.decision_function(centred(features))
        np.testing.assert_allclose(outputs(head, features)[:, label], expected, atol=0.05)


def test_cross_validation_selects_a_larger_penalty_for_noise() -> None:
    clear, targets = clouds(60, 2, 40, 2.0)
    noise = np.random.default_rng(1).normal(size=(60, 40)).astype(np.float32)
    assert fit_heads(noise, targets, classes(2)).penalty == max(heads.PENALTIES)
    assert fit_heads(clear, targets, classes(2)).penalty < max(heads.PENALTIES)


def test_held_out_outputs_are_independent_of_their_own_label() -> None:
    features = np.random.default_rng(0).normal(size=(120, 200)).astype(np.float32)
    targets = np.arange(120) % 2  # nothing can be learned, but all can be remembered
    head = fit_heads(features, targets, classes(2))
    assert head.held_out is not None
    assert head.held_out.shape == (120, 2)
    assert 0.3 < (head.held_out.argmax(1) == targets).mean() < 0.7
    assert (outputs(head, features).argmax(1) == targets).mean() > 0.9


def test_images_of_weight_0_have_no_effect() -> None:
    features, targets = clouds(80, 2, 5, 3.0)
    weights = np.concatenate([np.ones(40), np.zeros(40)]).astype(np.float32)
    wrong = np.where(weights > 0, targets, 1 - targets)
    weighted = fit_heads(features, wrong, classes(2), weights)
    assert (outputs(weighted, features).argmax(1) == targets).mean() > 0.9


def test_many_outputs_are_fitted_with_fewer_penalties() -> None:
    num_classes = heads.MAX_COLUMNS // 3
    features, targets = clouds(2 * num_classes, num_classes, 4, 3.0)
    assert fit_heads(features, targets, classes(num_classes)).weight.shape == (num_classes, 4)


def test_with_many_outputs_easing_converges_to_the_same_head_in_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    num_classes = heads.MANY_OUTPUTS + 20
    features, targets = clouds(4 * num_classes, num_classes, 20, 1.0)
    monkeypatch.setattr(heads, "TOLERANCE", 1e-5)
    monkeypatch.setattr(heads, "LEAST_STEPS", 0)

    def probabilities(num_steps: int, many: float = heads.MANY_OUTPUTS) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(heads, "MAX_STEPS", num_steps)
            patch.setattr(heads, "MANY_OUTPUTS", many)
            head = fit_heads(features, targets, classes(num_classes), penalties=(5.0,), num_folds=1)
        return np.asarray(torch.tensor(outputs(head, features)).softmax(1))

    known = LogisticRegression(C=1 / 5, max_iter=5000, tol=1e-7)
    expected = known.fit(centred(features), targets).predict_proba(centred(features))
    np.testing.assert_allclose(probabilities(2000), expected, atol=0.002)
    eased, cautious = (np.abs(probabilities(30, many) - expected).max() for many in (heads.MANY_OUTPUTS, np.inf))
    assert eased < cautious / 2


@pytest.mark.parametrize("num_images", [1, 2, 3])
def test_heads_are_fitted_to_a_few_images(num_images: int) -> None:
    features, targets = clouds(num_images, 2, 4, 1.0)
    head = fit_heads(features, targets, classes(2))
    assert np.isfinite(head.weight).all()
    assert np.isfinite(head.bias).all()


def test_without_time_a_head_is_fitted_without_cross_validation() -> None:
    features, targets = clouds(60, 3, 8, 3.0)
    head = fit_heads(features, targets, classes(3), seconds_left=lambda: 0.0)
    assert (outputs(head, features).argmax(1) == targets).mean() > 0.9


def test_images_of_a_group_are_in_one_fold() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(40, 100)).repeat(3, 0), rng.integers(2, size=40).repeat(3)
    right = [
        (fit_heads(features, targets, classes(2), groups=groups).held_out.argmax(1) == targets).mean()
        for groups in (None, np.arange(40).repeat(3))
    ]
    assert right[0] > 0.9  # from copies in the other folds
    assert right[1] < 0.7
