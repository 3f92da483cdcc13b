"""Ensemble weights and their evaluation, on synthetic predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.inference.postprocessing import weighted_mean
from saccade.selection.ensemble import (
    MIN_IMAGES,
    MIN_WEIGHT,
    best_single,
    cross_fit,
    evaluate,
    score_error,
    select_weights,
)
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Binary, Multiclass, Multilabel, Problem, Regression

PROBLEMS = {
    "multiclass": Multiclass(tuple("abcd")),
    "binary": Binary(("no", "yes")),
    "multilabel": Multilabel(tuple("abc")),
    "regression": Regression(5.0, 2.0),
}


def targets_of(problem: Problem, num: int, rng: np.random.Generator) -> np.ndarray:
    if problem.type == "regression":
        return rng.normal(size=num).astype(np.float32)
    if problem.type == "multilabel":
        return (rng.random((num, problem.num_outputs)) < 0.4).astype(np.float32)
    return rng.integers(0, problem.num_outputs, num)


def model(problem: Problem, targets: np.ndarray, rng: np.random.Generator, skill: float) -> np.ndarray:
    """Return predictions that agree with the targets by skill; 0 is noise."""
    noise = rng.normal(size=(len(targets), problem.num_outputs))
    if problem.type == "regression":
        return ((skill * targets[:, None] + noise) / (skill + 1)) * problem.std + problem.mean
    if problem.type == "multilabel":
        return (1 / (1 + np.exp(-(noise + skill * (2 * targets - 1))))).astype(np.float32)
    logits = noise + skill * np.eye(problem.num_outputs)[targets]
    exp = np.exp(logits)
    return (exp / exp.sum(1, keepdims=True)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(PROBLEMS)),
    st.lists(st.floats(0, 4), min_size=1, max_size=14),
    st.integers(5, 60),
    st.integers(1, 6),
    st.integers(0, 2**16),
)
def test_an_ensemble_is_at_most_insignificantly_worse_than_the_best_model(kind, skills, num, max_members, seed):
    problem, rng = PROBLEMS[kind], np.random.default_rng(seed)
    targets = targets_of(problem, num, rng)
    models = [model(problem, targets, rng, skill) for skill in skills]
    weights = select_weights(models, targets, problem, max_members, seed)
    assert weights.shape == (len(models),)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    assert 1 <= (weights > 0).sum() <= max_members
    losses = np.array([problem.image_losses(rows, targets) for rows in models])
    best = losses[losses.mean(1).argmin()]
    by_chance = (losses - best).std(1).max() / np.sqrt(num)
    assert problem.image_losses(weighted_mean(models, weights), targets).mean() <= best.mean() + 2 * by_chance + 1e-6
    assert (select_weights(models, targets, problem, max_members, seed) == weights).all()


def test_complementary_models_are_selected_among_many():
    rng = np.random.default_rng(0)
    problem = PROBLEMS["multiclass"]
    targets = rng.integers(0, 4, 200)
    sure = np.full((200, 4), 0.02) + 0.92 * np.eye(4)[targets]
    unsure = np.full((200, 4), 0.25)
    halves = [np.where((np.arange(200) % 2 == half)[:, None], sure, unsure) for half in (0, 1)]
    weak = [model(problem, targets, rng, 0.3) for _ in range(15)]
    weights = select_weights([*weak[:7], halves[0], *weak[7:], halves[1]], targets, problem)
    assert weights[7] > 0.3
    assert weights[16] > 0.3
    ensemble, single = cross_fit([*halves, *weak], targets, problem, make_metric("log_loss", problem))
    assert ensemble.score > single.score + 0.1


def test_a_perfect_model_gets_all_the_weight():
    rng = np.random.default_rng(1)
    problem = PROBLEMS["multiclass"]
    targets = rng.integers(0, 4, 100)
    models = [model(problem, targets, rng, 0.1), 0.01 + 0.96 * np.eye(4)[targets], model(problem, targets, rng, 0.1)]
    assert select_weights(models, targets, problem).tolist() == [0, 1, 0]


def test_no_member_has_a_negligible_weight():
    rng = np.random.default_rng(2)
    problem = PROBLEMS["regression"]
    targets = targets_of(problem, 300, rng)
    models = [model(problem, targets, rng, 1.0) for _ in range(12)]
    weights = select_weights(models, targets, problem, 12)
    assert weights[weights > 0].min() >= MIN_WEIGHT / 2
    assert (weights > 0).sum() > 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0.05, 1), st.floats(0, 1)), min_size=2, max_size=6), st.integers(0, 2**16))
def test_members_together_are_within_the_limits(loads, seed):
    problem, rng = PROBLEMS["multiclass"], np.random.default_rng(seed)
    targets = targets_of(problem, 200, rng)
    models = [model(problem, targets, rng, 1.0) for _ in loads]
    weights = select_weights(models, targets, problem, loads=np.array(loads))
    assert np.array(loads)[weights > 0].sum(0).max() <= 1
    assert weights.sum() == pytest.approx(1)


def test_of_members_with_equal_gains_the_slowest_is_left_out():
    problem, rng = PROBLEMS["multiclass"], np.random.default_rng(0)
    targets = targets_of(problem, 2000, rng)
    models = [model(problem, targets, rng, 1.0) for _ in range(3)]
    assert (select_weights(models, targets, problem) > 0).all()
    for slow in range(3):
        loads = np.where(np.arange(3) == slow, 0.6, 0.3)[:, None]
        weights = select_weights(models, targets, problem, loads=loads)
        assert np.flatnonzero(weights == 0).tolist() == [slow]


def test_cross_fitted_scores_of_noise_are_not_optimistic():
    """The best of many random models scores too high on the images that selected it."""
    problem = PROBLEMS["multiclass"]
    metric, num = make_metric(None, problem), 60
    optimistic, honest = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        targets = rng.integers(0, 4, num)
        models = [model(problem, targets, rng, 0.0) for _ in range(15)]
        optimistic.append(max(metric(targets, rows, problem) for rows in models))
        honest.append([one.score for one in cross_fit(models, targets, problem, metric, seed=seed)])
    assert np.mean(optimistic) > 0.25 + 2 / np.sqrt(12 * num)
    for mean in np.mean(honest, axis=0):
        assert abs(mean - 0.25) < 4 * np.sqrt(0.25 * 0.75 / (12 * num))


def test_too_few_images_or_no_time_give_no_evaluation():
    problem, rng = PROBLEMS["binary"], np.random.default_rng(0)
    for num, seconds, is_evaluated in [(MIN_IMAGES - 1, 9.0, False), (MIN_IMAGES, 9.0, True), (50, 0.0, False)]:
        targets = np.arange(num) % 2
        models = [model(problem, targets, rng, 1.0) for _ in range(2)]
        found = cross_fit(models, targets, problem, make_metric(None, problem), seconds_left=lambda s=seconds: s)
        assert (found is not None) is is_evaluated


def test_repeats_end_when_time_is_short():
    problem, rng = PROBLEMS["binary"], np.random.default_rng(0)
    targets = np.arange(40) % 2
    models = [model(problem, targets, rng, 1.0) for _ in range(2)]
    metric = make_metric(None, problem)
    asked: list[float] = []

    def seconds_left() -> float:
        asked.append(10.0 - 6 * max(0, len(asked) - 1))
        return asked[-1]

    assert cross_fit(models, targets, problem, metric, seconds_left=seconds_left) is not None
    assert len(asked) < 6


def test_where_the_metric_is_undefined_the_loss_selects():
    problem, rng = PROBLEMS["binary"], np.random.default_rng(0)
    one_class = np.zeros(8, int)
    models = [model(problem, one_class, rng, skill) for skill in (0.0, 5.0)]
    assert best_single(models, one_class, problem, make_metric("roc_auc", problem)) == 1


@pytest.mark.parametrize("name", ["accuracy", "f1", "roc_auc", "log_loss", "rmse"])
def test_the_standard_error_is_that_of_the_metric(name):
    """It equals the standard deviation of the difference over many samples of images, in the units of the metric."""
    problem = PROBLEMS["regression" if name == "rmse" else "binary"]
    metric, differences, errors = make_metric(name, problem), [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        targets = targets_of(problem, 200, rng)
        first, second = (model(problem, targets, rng, skill) for skill in (1.0, 0.8))
        differences.append(
            metric.score(metric(targets, first, problem)) - metric.score(metric(targets, second, problem))
        )
        errors.append(score_error(first, second, targets, problem, metric))
    assert np.mean(errors) == pytest.approx(np.std(differences), rel=0.35)


def test_underconfidence_does_not_increase_the_loss_of_an_evaluation():
    problem = PROBLEMS["binary"]
    targets = np.arange(200) % 2
    right = np.where(np.arange(200) < 180, 0.9, 0.1)
    sure = np.where(targets[:, None] == [0, 1], right[:, None], 1 - right[:, None])
    cautious = sure**0.3 / (sure**0.3).sum(1, keepdims=True)
    metric = make_metric("accuracy", problem)
    losses = [evaluate(rows, targets, problem, metric).losses.mean() for rows in (sure, cautious)]
    assert problem.image_losses(cautious, targets).mean() > problem.image_losses(sure, targets).mean() + 0.05
    assert losses[1] == pytest.approx(losses[0], abs=0.02)


def test_the_score_of_an_error_metric_is_negated():
    problem = PROBLEMS["regression"]
    targets = np.array([0.0, 1.0], np.float32)
    found = evaluate(np.array([[5.0], [9.0]]), targets, problem, make_metric(None, problem))
    assert found.score == pytest.approx(-np.sqrt(2))
    assert found.metrics["rmse"] == pytest.approx(np.sqrt(2))
    assert found.losses.mean() == pytest.approx(0.5)


def test_weights_of_comparable_models_are_nearly_equal_whatever_the_number_of_images() -> None:
    for num_images in (20, 300):
        rng = np.random.default_rng(0)
        targets = np.arange(num_images) % 2

        def model(sure: float, rng: np.random.Generator = rng, targets: np.ndarray = targets) -> np.ndarray:
            right = np.clip(sure + 0.06 * rng.normal(size=len(targets)), 0.05, 0.95)
            return np.where(np.eye(2)[targets] > 0, right[:, None], 1 - right[:, None])

        weights = select_weights([model(0.8), model(0.79), model(0.3)], targets, Problem.of(["a", "b"]))
        assert 0.4 < weights[1] < 0.6
        assert weights[2] == 0


def test_a_mean_of_several_networks_counts_as_several() -> None:
    rng, targets = np.random.default_rng(0), np.arange(40) % 2
    problem = PROBLEMS["binary"]
    models = [model(problem, targets, rng, 2.0) for _ in range(2)]
    alone, as_four = (select_weights(models, targets, problem, sizes=sizes) for sizes in (None, [4, 1]))
    assert as_four[0] / as_four[1] == pytest.approx(4 * alone[0] / alone[1])
    assert as_four.sum() == pytest.approx(1)
    assert (select_weights(models, targets, problem, sizes=[1, 1]) == alone).all()


def test_small_differences_on_few_images_are_not_significant() -> None:
    problem = PROBLEMS["binary"]
    metric = make_metric(None, problem)

    def evaluated(num: int, wrong: range) -> Any:
        targets, number = np.arange(num) % 2, np.arange(num) // 2
        p = np.where(np.isin(number % 50, wrong), 0.2, 0.8)
        return evaluate(np.where(np.eye(2)[targets] > 0, p[:, None], 1 - p[:, None]), targets, problem, metric), targets

    for num, is_significant in ((100, False), (10_000, True)):
        (better, targets), (worse, _) = evaluated(num, range(3)), evaluated(num, range(10, 15))
        assert better.score > worse.score
        assert worse.is_as_good_as(better, targets, problem, metric) is not is_significant
        assert better.is_as_good_as(worse, targets, problem, metric)


def test_scores_are_those_of_the_labels_that_a_predictor_gives() -> None:
    """An imbalanced problem with thresholds: the score is cross-fitted, and higher than without them."""
    problem, rng = Problem.of(["no", "yes"]), np.random.default_rng(0)
    p = 1 / (1 + np.exp(-(-2.5 + 1.5 * rng.normal(size=1500))))
    targets, predictions = (rng.random(1500) < p).astype(np.int64), np.stack([1 - p, p], 1)
    metric = make_metric("f1", problem)
    found = evaluate(predictions, targets, problem, metric)
    assert found.postprocessing.thresholds.values
    assert found.score == found.postprocessing.thresholds.metric_after > metric(targets, predictions, problem)
    assert found.metrics["top1"] == (found.adjusted.argmax(1) == targets).mean()
