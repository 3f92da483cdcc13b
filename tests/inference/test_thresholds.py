from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from saccade.inference.thresholds import BINARY, MULTILABEL, Thresholds, fit_thresholds
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Binary, Multiclass, Multilabel, Problem

RARE = Binary(("no", "yes"))
TAGS = Multilabel(("a", "b", "c"))


def draw(num: int, seed: int, base: float = -3.0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of a rare class."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-(base + 1.5 * rng.normal(size=num))))
    return np.stack([1 - p, p], 1).astype(np.float32), (rng.random(num) < p).astype(np.int64)


@pytest.mark.parametrize("name", ["f1", "balanced_accuracy", "mcc", "jaccard", "f1_macro", "quadratic_kappa"])
def test_a_rare_class_gets_a_threshold_that_is_better_on_other_images(name: str) -> None:
    metric = make_metric(name, RARE)
    p, y = draw(1500, 0)
    found = fit_thresholds(p, y, RARE, metric)
    assert found.values[0] < 0.4
    assert found.figure_after > found.figure_before == metric(y, p, RARE)
    others, labels = draw(20_000, 1)
    figure = metric(labels, found.decided(others), RARE)
    assert figure > metric(labels, others, RARE)
    assert found.figure_after == pytest.approx(figure, abs=0.08)


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "roc_auc", "average_precision", "recall"])
def test_other_metrics_leave_the_threshold_at_one_half(name: str) -> None:
    p, y = draw(1500, 0)
    assert fit_thresholds(p, y, RARE, make_metric(name, RARE)) == Thresholds()
    assert Thresholds().decided(p) is p


def test_labels_have_thresholds_of_their_own_where_the_metric_is_their_mean() -> None:
    drawn = [draw(2000, seed, base) for seed, base in enumerate((-3.0, 0.0, 3.0))]
    p, y = np.stack([p[:, 1] for p, _ in drawn], 1), np.stack([y for _, y in drawn], 1).astype(np.float32)
    each = fit_thresholds(p, y, TAGS, make_metric("f1_macro", TAGS)).values
    assert each[0] < each[1]
    of_all = fit_thresholds(p, y, TAGS, make_metric(None, TAGS))
    assert len(set(of_all.values)) == 1
    assert of_all.values[0] < 0.5
    metric = make_metric("f1_macro", TAGS)
    assert metric(y, Thresholds(each).decided(p), TAGS) > metric(y, p, TAGS)


def test_too_few_images_with_a_label_leave_it_at_one_half() -> None:
    p, y = draw(200, 0, base=-7.0)
    assert y.sum() < 5
    assert fit_thresholds(p, y, RARE, make_metric("f1", RARE)) == Thresholds()
    tags = np.hstack([p[:, 1:], draw(200, 1)[0][:, 1:]])
    has = np.stack([y, draw(200, 1)[1]], 1).astype(np.float32)
    problem = Multilabel(("rare", "common"))
    values = fit_thresholds(tags, has, problem, make_metric("f1_macro", problem)).values
    assert values[0] == 0.5
    assert values[1] < 0.5


def test_what_is_no_better_on_other_folds_is_not_taken() -> None:
    rng = np.random.default_rng(0)
    p = np.where(np.arange(100) % 2, 0.9, 0.1) + rng.normal(size=100) * 0.01
    found = fit_thresholds(np.stack([1 - p, p], 1), np.arange(100) % 2, RARE, make_metric("f1", RARE))
    assert found == Thresholds((), 1.0, 1.0)


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.5, 0.9])
def test_what_is_moved_is_decided_at_one_half_and_by_the_likeliest(threshold: float) -> None:
    p, _ = draw(500, 0, base=0.0)
    moved = Thresholds((threshold,)).decided(p)
    assert moved.dtype == p.dtype
    np.testing.assert_allclose(moved.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(moved.argmax(1) == 1, p[:, 1] > threshold)
    values = (threshold, 0.5)
    tags = Thresholds(values).decided(p)
    np.testing.assert_array_equal(tags >= 0.5, p >= np.array(values))


def test_what_a_threshold_is_worth_is_what_scikit_learn_says() -> None:
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
    assert {name: float(worth(counts)[0]) for name, worth in BINARY.items()} == pytest.approx(expected)


@pytest.mark.parametrize(("names", "problem"), [(BINARY, RARE), (MULTILABEL, TAGS)])
def test_every_metric_with_thresholds_exists(names: dict[str, object], problem: Problem) -> None:
    assert [make_metric(name, problem).name for name in names] == list(names)


def test_rare_classes_count_as_much_as_common_ones_for_balanced_accuracy() -> None:
    problem = Multiclass(("a", "b", "c"))
    metric = make_metric("balanced_accuracy", problem)

    def drawn(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        logits = np.log([0.9, 0.08, 0.02]) + 1.5 * rng.normal(size=(num, 3))
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return p.astype(np.float32), (rng.random((num, 1)) > p.cumsum(1)).sum(1).clip(max=2)

    p, y = drawn(2000, 0)
    found = fit_thresholds(p, y, problem, metric)
    assert found.shares == pytest.approx(np.bincount(y) / len(y))
    assert found.figure_after > found.figure_before == metric(y, p, problem)
    others, labels = drawn(20_000, 1)
    assert metric(labels, found.decided(others), problem) > metric(labels, others, problem) + 0.1
    assert found.decided(others).sum(1) == pytest.approx(1, abs=1e-5)
    assert fit_thresholds(p, y, problem, make_metric(None, problem)) == Thresholds()


def test_shares_are_those_of_training_unless_held_out_images_speak_against_them() -> None:
    problem = Multiclass(("a", "b", "c"))
    metric = make_metric("balanced_accuracy", problem)
    y = np.array([0] * 20 + [1] * 5 + [2])
    right = np.full((26, 3), 0.015, np.float32)
    right[np.arange(26), y] = 0.97
    right[:2] = [0.6, 0.2, 0.2]
    shares = np.array([0.7, 0.28, 0.02])
    found = fit_thresholds(right, y, problem, metric, shares=shares)
    assert found.shares == pytest.approx(shares)
    assert found.figure_before == 1
    for equal in (np.full(3, 1 / 3), np.array([0.333, 0.334, 0.333])):
        assert fit_thresholds(right, y, problem, metric, shares=equal) == Thresholds()
    assert found.decided(right)[:20].argmax(1).tolist() == [2] * 2 + [0] * 18
    assert found.figure_after == pytest.approx((0.9 + 1 + 1) / 3)
    many, labels = np.tile(right, (40, 1)), np.tile(y, 40)
    assert fit_thresholds(many, labels, problem, metric, shares=shares) == Thresholds()


def test_two_classes_are_divided_by_their_shares_where_a_threshold_cannot_be_found() -> None:
    y = np.array([0] * 20 + [1] * 2)
    p = np.stack([1 - 0.3 * y, 0.3 * y], 1).astype(np.float32)
    metric = make_metric("balanced_accuracy", RARE)
    assert fit_thresholds(p, y, RARE, metric) == Thresholds()
    found = fit_thresholds(p, y, RARE, metric, shares=np.array([0.9, 0.1]))
    assert (found.figure_before, found.figure_after) == (0.5, 1.0)
    assert found.decided(p).argmax(1).tolist() == y.tolist()
