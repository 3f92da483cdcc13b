from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from saccade.data.splitting import split_folds
from saccade.inference import calibration
from saccade.inference import calibration as module
from saccade.inference.calibration import Calibration, calibration_error, error_by_chance, fit_calibration
from saccade.tasks.problem import Binary, Multiclass, Multilabel, Problem, Regression

CLASSES = Multiclass(("a", "b", "c", "d"))
TAGS = Multilabel(("a", "b", "c"))


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def draw(problem: Problem, num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated logits, and targets drawn by them."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(num, problem.num_outputs))
    if problem.type == "multilabel":
        return logits, (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    return logits, (softmax(logits).cumsum(1) > rng.random((num, 1))).argmax(1)


def activated(logits: np.ndarray, problem: Problem) -> np.ndarray:
    p = 1 / (1 + np.exp(-logits)) if problem.type == "multilabel" else softmax(logits)
    return p.astype(np.float32)


@pytest.mark.parametrize("problem", [CLASSES, TAGS, Binary(("a", "b"))], ids=lambda problem: problem.type)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_is_recovered_and_calibrates_new_images(problem: Problem, temperature: float) -> None:
    logits, targets = draw(problem, 3000)
    probabilities = activated(logits * temperature, problem)  # overconfident by this factor
    here, there = slice(None, 1500), slice(1500, None)
    found = fit_calibration(probabilities[here], targets[here], problem)
    assert found.temperature == pytest.approx(temperature, rel=0.12)
    assert found.num_images == 1500
    calibrated = found.apply(probabilities[there], problem)
    assert calibration_error(calibrated, targets[there], problem) < 0.05
    before = problem.image_losses(probabilities[there], targets[there]).mean()
    assert problem.image_losses(calibrated, targets[there]).mean() < before + 5e-3
    assert found.ece_after == pytest.approx(calibration_error(calibrated, targets[there], problem), abs=0.03)
    if temperature != 1:
        assert found.ece_before > 2 * found.ece_after


def test_ece_after_is_cross_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fold must be calibrated by its own call."""
    logits, targets = draw(CLASSES, 40, seed=3)
    probabilities = activated(logits, CLASSES)
    calibrations = map(Calibration, [1.0, 2.0, 3.0, 4.0, 5.0, 9.0])
    monkeypatch.setattr(module, "_most_probable", lambda *_: next(calibrations))
    found = fit_calibration(probabilities, targets, CLASSES)
    assert found.temperature == 9.0
    folds = split_folds(np.zeros(40), 5, np.random.default_rng(0))
    after = np.empty_like(probabilities)
    for fold in range(5):
        after[folds == fold] = Calibration(fold + 1.0).apply(probabilities[folds == fold], CLASSES)
    assert found.ece_after == calibration_error(after, targets, CLASSES)


PRIOR = np.array([0.7, 0.2, 0.07, 0.03])


def draw_too_frequent(num: int, power: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too high for frequent classes, by a power of the prior; and targets."""
    rng = np.random.default_rng(seed)
    right = softmax(2 * rng.normal(size=(num, 4)) + np.log(PRIOR))
    targets = (right.cumsum(1) > rng.random((num, 1))).argmax(1)
    return softmax(np.log(right) + power * np.log(PRIOR)), targets


@pytest.mark.parametrize("power", [0.0, 0.4, 1.0])
def test_logit_adjustment_is_recovered(power: float) -> None:
    probabilities, targets = draw_too_frequent(5000, power)
    found = fit_calibration(probabilities, targets, CLASSES, class_prior=PRIOR)
    assert found.logit_adjustment == pytest.approx(power, abs=0.15)
    assert found.temperature == pytest.approx(1.0, abs=0.1)
    calibrated = found.apply(probabilities, CLASSES)
    before = CLASSES.image_losses(probabilities, targets).mean()
    assert CLASSES.image_losses(calibrated, targets).mean() < before + 1e-3
    np.testing.assert_allclose(calibrated.mean(0), np.bincount(targets) / 5000, atol=0.02)
    assert found.remaining_prior is not None
    alike = calibrated / found.remaining_prior  # all of the prior is removed in both
    np.testing.assert_array_equal(alike.argmax(1), (probabilities / PRIOR).argmax(1))
    assert fit_calibration(probabilities, targets, CLASSES).class_prior == ()


def test_logit_adjustment_stays_near_its_prior_with_few_images_and_is_0_for_equal_classes() -> None:
    probabilities, targets = draw_too_frequent(5, 0.0)
    assert fit_calibration(probabilities, targets, CLASSES, class_prior=PRIOR).logit_adjustment == pytest.approx(
        module.ADJUSTMENT, abs=0.3
    )
    equal = fit_calibration(probabilities, targets, CLASSES, class_prior=np.full(4, 0.25))
    assert (equal.logit_adjustment, equal.class_prior, equal.remaining_prior) == (0.0, (), None)


@given(arrays(np.float64, (7, 4), elements=st.floats(0, 1)), st.floats(0, 1.5))
def test_adjusted_probabilities_sum_to_1(numbers: np.ndarray, power: float) -> None:
    probabilities = softmax(20 * numbers).astype(np.float32)
    adjusted = Calibration(1.0, logit_adjustment=power, class_prior=tuple(PRIOR)).apply(probabilities, CLASSES)
    assert adjusted.dtype == np.float32
    np.testing.assert_allclose(adjusted.sum(1), 1, rtol=1e-5)
    assert (adjusted[:, 3] >= probabilities[:, 3] - 1e-6).all()  # the rarest class never gets less


@pytest.mark.parametrize("problem", [CLASSES, TAGS], ids=lambda problem: problem.type)
def test_gradients_equal_finite_differences(problem: Problem) -> None:
    logits, targets = draw(problem, 30)
    shift = np.log(PRIOR) if problem is CLASSES else 0.0

    def loss(scale: float, power: float) -> float:
        return module._loss_and_gradients(logits - power * shift, targets, problem, scale)[0]

    _, by_scale, by_class = module._loss_and_gradients(logits - 0.3 * shift, targets, problem, 0.8)
    assert by_scale == pytest.approx((loss(0.8 + 1e-5, 0.3) - loss(0.8 - 1e-5, 0.3)) / 2e-5, rel=1e-5)
    by_power = (loss(0.8, 0.3 + 1e-5) - loss(0.8, 0.3 - 1e-5)) / 2e-5
    assert -np.sum(by_class * shift) == pytest.approx(by_power, rel=1e-5, abs=1e-6)


def test_temperature_stays_near_1_with_few_images() -> None:
    """If all of ten images are right, the maximum likelihood is at temperature 0."""
    probabilities = np.tile(np.array([0.9, 0.06, 0.03, 0.01], np.float32), (10, 1))
    few = fit_calibration(probabilities, np.zeros(10, np.int64), CLASSES).temperature
    many = fit_calibration(np.tile(probabilities, (200, 1)), np.zeros(2000, np.int64), CLASSES).temperature
    assert 0.5 < few < 1
    assert many < 0.5 * few


@given(
    arrays(np.float32, (5, 4), elements=st.floats(0, 1, width=32)).filter(lambda p: p.sum(1).min() > 0.01),
    st.floats(0.05, 20),
)
def test_temperature_keeps_the_order_of_classes(weights: np.ndarray, temperature: float) -> None:
    probabilities = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    calibrated = Calibration(temperature).apply(probabilities, CLASSES)
    assert calibrated.dtype == np.float32
    np.testing.assert_allclose(calibrated.sum(1), 1, rtol=1e-5)
    likeliest = probabilities.argmax(1)
    np.testing.assert_array_equal(calibrated[np.arange(5), likeliest], calibrated.max(1))
    tags = Calibration(temperature).apply(probabilities[:, :3], TAGS)
    is_clear = np.abs(probabilities[:, :3] - 0.5) > 1e-5
    np.testing.assert_array_equal((tags >= 0.5)[is_clear], (probabilities[:, :3] >= 0.5)[is_clear])


def test_probabilities_of_0_and_1_stay_finite() -> None:
    sure = np.array([[1, 0, 0, 0]], np.float32)
    calibrated = Calibration(3.0).apply(sure, CLASSES)
    assert np.isfinite(calibrated).all()
    assert calibrated[0, 0] > 0.99
    assert np.isfinite(Calibration(3.0).apply(np.array([[1, 0, 0.5]], np.float32), TAGS)).all()
    found = fit_calibration(np.tile(sure, (30, 1)), np.arange(30) % 4, CLASSES)
    assert math.isfinite(found.temperature)
    assert found.temperature > 10  # confident, and right by chance only


def test_regression_and_a_single_image_are_not_calibrated() -> None:
    numbers, problem = np.array([[1.0], [2.0]]), Regression(mean=1.0, std=2.0)
    assert fit_calibration(numbers, np.array([0.0, 1.0]), problem) == Calibration()
    np.testing.assert_array_equal(Calibration(2.0).apply(numbers, problem), numbers)
    assert fit_calibration(np.array([[0.5, 0.5, 0, 0]]), np.array([0]), CLASSES) == Calibration()


def test_calibration_error_equals_a_plain_loop() -> None:
    logits, targets = draw(CLASSES, 200)
    p = activated(logits, CLASSES)
    certainty, is_right, error = p.max(1), p.argmax(1) == targets, 0.0
    for number in range(15):
        is_in = (certainty > number / 15) & (certainty <= (number + 1) / 15)
        if is_in.any():
            error += is_in.mean() * abs(is_right[is_in].mean() - certainty[is_in].mean())
    assert calibration_error(p, targets, CLASSES) == pytest.approx(error, abs=1e-6)
    tags, has = draw(TAGS, 200)
    q = activated(tags, TAGS)
    errors = []
    for p_of, has_of in zip(q.T, has.T, strict=True):
        bins = np.digitize(p_of, np.arange(1, 15) / 15, right=True)
        errors.append(sum(abs((p_of - has_of)[bins == number].sum()) for number in range(15)) / 200)
    assert calibration_error(q, has, TAGS) == pytest.approx(np.mean(errors), abs=1e-6)


def test_a_sample_of_many_probabilities_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ELEMENTS", 4 * 500)
    logits, targets = draw(CLASSES, 2000)
    found = fit_calibration(activated(2 * logits, CLASSES), targets, CLASSES)
    assert found.num_images == 500
    assert found.temperature == pytest.approx(2, rel=0.2)


def test_error_by_chance_equals_the_error_of_labels_drawn_by_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(len(CLASSES.classes)), 300)
    drawn = [np.array([rng.choice(len(row), p=row) for row in p]) for _ in range(50)]
    errors = [calibration_error(p, targets, CLASSES) for targets in drawn]
    assert error_by_chance(p, CLASSES) == pytest.approx(np.mean(errors), rel=0.15)
    q = rng.random((300, TAGS.num_outputs))
    errors = [calibration_error(q, (rng.random(q.shape) < q).astype(int), TAGS) for _ in range(50)]
    assert error_by_chance(q, TAGS) == pytest.approx(np.mean(errors), rel=0.15)
    assert error_by_chance(p[:30], CLASSES) > error_by_chance(p, CLASSES)


def test_folds_of_cross_fitting_keep_groups_together(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(calibration, "split_folds", lambda *args: given.append(args[-1]) or split_folds(*args))
    groups = np.arange(20) // 4
    fit_calibration(np.tile([0.7, 0.1, 0.1, 0.1], (20, 1)), np.arange(20) % 4, CLASSES, groups=groups)
    assert given[0] is groups


def test_a_logit_adjustment_that_moves_right_images_to_a_rare_class_is_rejected() -> None:
    targets = np.array([0] * 7 + [1] * 2)
    probabilities = np.where(targets[:, None] == np.arange(2), 0.53, 0.47).astype(np.float32)  # hardly trained
    found = fit_calibration(probabilities, targets, Binary(("a", "b")), class_prior=np.array([0.75, 0.25]))
    assert (found.class_prior, found.num_images) == ((), 9)
    assert (found.apply(probabilities, Binary(("a", "b"))).argmax(1) == targets).all()
