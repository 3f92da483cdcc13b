from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from saccade.inference.thresholds import BINARY, MULTILABEL, Thresholds, fit_thresholds
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Binary, Multiclass, Multilabel, Problem

RARE = Binary(("no", "yes"))
TAGS = Multilabel(("a", "b", "c"))


def fitted(*args: Any, **options: Any) -> Thresholds:
    return fit_thresholds(*args, **options)[0]


def draw(num: int, seed: int, base: float = -3.0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of a rare class."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-(base + 1.5 * rng.normal(size=num))))
    return np.stack([1 - p, p], 1).astype(np.float32), (rng.random(num) < p).astype(np.int64)


@pytest.mark.parametrize("name", ["f1", "balanced_accuracy", "mcc", "jaccard", "f1_macro", "quadratic_kappa"])
def test_threshold_of_a_rare_class_improves_the_metric_on_new_images(name: str) -> None:
    metric = make_metric(name, RARE)
    p, y = draw(1500, 0)
    found = fitted(p, y, RARE, metric)
    assert found.values[0] < 0.4
    assert found.metric_after > found.metric_before == metric(y, p, RARE)
    others, labels = draw(20_000, 1)
    value = metric(labels, found.apply(others), RARE)
    assert value > metric(labels, others, RARE)
    assert found.metric_after == pytest.approx(value, abs=0.08)


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "roc_auc", "average_precision", "recall"])
def test_other_metrics_keep_the_threshold_at_one_half(name: str) -> None:
    p, y = draw(1500, 0)
    assert fitted(p, y, RARE, make_metric(name, RARE)) == Thresholds()
    np.testing.assert_array_equal(Thresholds().apply(p), p)


def test_macro_metrics_give_each_label_its_own_threshold() -> None:
    drawn = [draw(2000, seed, base) for seed, base in enumerate((-3.0, 0.0, 3.0))]
    p, y = np.stack([p[:, 1] for p, _ in drawn], 1), np.stack([y for _, y in drawn], 1).astype(np.float32)
    each = fitted(p, y, TAGS, make_metric("f1_macro", TAGS)).values
    assert each[0] < each[1]
    of_all = fitted(p, y, TAGS, make_metric(None, TAGS))
    assert len(set(of_all.values)) == 1
    assert of_all.values[0] < 0.5
    metric = make_metric("f1_macro", TAGS)
    assert metric(y, Thresholds(each).apply(p), TAGS) > metric(y, p, TAGS)


def test_labels_with_too_few_images_keep_one_half() -> None:
    p, y = draw(200, 0, base=-7.0)
    assert y.sum() < 5
    assert fitted(p, y, RARE, make_metric("f1", RARE)) == Thresholds()
    tags = np.hstack([p[:, 1:], draw(200, 1)[0][:, 1:]])
    has = np.stack([y, draw(200, 1)[1]], 1).astype(np.float32)
    problem = Multilabel(("rare", "common"))
    values = fitted(tags, has, problem, make_metric("f1_macro", problem)).values
    assert values[0] == 0.5
    assert values[1] < 0.5


def test_thresholds_that_do_not_improve_the_cross_fitted_metric_are_rejected() -> None:
    rng = np.random.default_rng(0)
    p = np.where(np.arange(100) % 2, 0.9, 0.1) + rng.normal(size=100) * 0.01
    found = fitted(np.stack([1 - p, p], 1), np.arange(100) % 2, RARE, make_metric("f1", RARE))
    assert found == Thresholds((), 1.0, 1.0)


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.5, 0.9])
def test_adjusted_probabilities_are_decided_by_the_usual_rule(threshold: float) -> None:
    p, _ = draw(500, 0, base=0.0)
    adjusted = Thresholds((threshold,)).apply(p)
    assert adjusted.dtype == p.dtype
    np.testing.assert_allclose(adjusted.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(adjusted.argmax(1) == 1, p[:, 1] > threshold)
    values = (threshold, 0.5)
    tags = Thresholds(values).apply(p)
    np.testing.assert_array_equal(tags >= 0.5, p >= np.array(values))


def test_criteria_equal_scikit_learn_metrics() -> None:
    rng = np.random.default_rng(0)
    y, guess = rng.integers(0, 2, 80), rng.integers(0, 2, 80)
    counts = tuple(np.array([((guess == a) & (y == b)).sum()]) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0)))
    expected = {
        "f1": sklearn_metrics.f1_score(y, guess),
        "f1_macro": sklearn_metrics.f1_score(y, guess, average="macro"),
        "jaccard": sklearn_metrics.jaccard_score(y, guess),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(y, guess),
        "mcc": sklearn_metrics.matthews_corrcoef(y, guess),
        "matthews_corrcoef": sklearn_metrics.matthews_corrcoef(y, guess),
        "quadratic_kappa": sklearn_metrics.cohen_kappa_score(y, guess, weights="quadratic"),
    }
    assert {name: float(criterion(*counts)[0]) for name, criterion in BINARY.items()} == pytest.approx(expected)


@pytest.mark.parametrize(("names", "problem"), [(BINARY, RARE), (MULTILABEL, TAGS)])
def test_every_metric_with_thresholds_exists(names: dict[str, object], problem: Problem) -> None:
    assert [make_metric(name, problem).name for name in names] == list(names)


def test_balanced_accuracy_divides_by_the_class_prior() -> None:
    problem = Multiclass(("a", "b", "c"))
    metric = make_metric("balanced_accuracy", problem)

    def drawn(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        logits = np.log([0.9, 0.08, 0.02]) + 1.5 * rng.normal(size=(num, 3))
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return p.astype(np.float32), (rng.random((num, 1)) > p.cumsum(1)).sum(1).clip(max=2)

    p, y = drawn(2000, 0)
    found = fitted(p, y, problem, metric)
    assert found.class_prior == pytest.approx(np.bincount(y) / len(y))
    assert found.metric_after > found.metric_before == metric(y, p, problem)
    others, labels = drawn(20_000, 1)
    assert metric(labels, found.apply(others), problem) > metric(labels, others, problem) + 0.1
    assert found.apply(others).sum(1) == pytest.approx(1, abs=1e-5)
    assert fitted(p, y, problem, make_metric(None, problem)) == Thresholds()


def test_class_prior_is_rejected_if_it_is_clearly_worse_on_held_out_images() -> None:
    problem = Multiclass(("a", "b", "c"))
    metric = make_metric("balanced_accuracy", problem)
    y = np.array([0] * 20 + [1] * 5 + [2])
    right = np.full((26, 3), 0.015, np.float32)
    right[np.arange(26), y] = 0.97
    right[:2] = [0.6, 0.2, 0.2]
    prior = np.array([0.7, 0.28, 0.02])
    found = fitted(right, y, problem, metric, class_prior=prior)
    assert found.class_prior == pytest.approx(prior)
    assert found.metric_before == 1
    for equal in (np.full(3, 1 / 3), np.array([0.333, 0.334, 0.333])):
        assert fitted(right, y, problem, metric, class_prior=equal) == Thresholds()
    assert found.apply(right)[:20].argmax(1).tolist() == [2] * 2 + [0] * 18
    assert found.metric_after == pytest.approx((0.9 + 1 + 1) / 3)
    many, labels = np.tile(right, (40, 1)), np.tile(y, 40)
    assert fitted(many, labels, problem, metric, class_prior=prior) == Thresholds()


def test_binary_problem_with_too_few_images_for_a_threshold_uses_the_class_prior() -> None:
    y = np.array([0] * 20 + [1] * 2)
    p = np.stack([1 - 0.3 * y, 0.3 * y], 1).astype(np.float32)
    metric = make_metric("balanced_accuracy", RARE)
    assert fitted(p, y, RARE, metric) == Thresholds()
    found = fitted(p, y, RARE, metric, class_prior=np.array([0.9, 0.1]))
    assert (found.metric_before, found.metric_after) == (0.5, 1.0)
    assert found.apply(p).argmax(1).tolist() == y.tolist()
