from __future__ import annotations

import math

import numpy as np
import pytest

from saccade.errors import HyperparameterError
from saccade.inference import evaluation as module
from saccade.inference.evaluation import (
    classification_report,
    confusion_matrix,
    difference_p_value,
    evaluation,
    percentiles,
    resampled_scores,
)
from saccade.tasks.metrics import make_metric, summary_metrics
from saccade.tasks.problem import Binary, Multiclass, Multilabel, Problem, Regression

PROBLEMS = {
    "binary": Binary(("a", "b")),
    "multiclass": Multiclass(tuple("abcdefg")),
    "multilabel": Multilabel(("a", "b", "c")),
    "regression": Regression(mean=3.0, std=2.0),
}
METRICS = {"binary": "f1", "multiclass": "f1_macro", "multilabel": "f1_samples", "regression": "r2"}


def draw(problem: Problem, num: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if problem.type == "regression":
        targets = rng.normal(size=num).astype(np.float32)
        return targets, (targets + 0.5 * rng.normal(size=num))[:, None] * problem.std + problem.mean
    if problem.type == "multilabel":
        targets = rng.integers(0, 2, (num, 3)).astype(np.float32)
        return targets, np.clip(0.2 + 0.6 * targets + 0.3 * rng.normal(size=targets.shape), 0.01, 0.99)
    targets = rng.integers(0, problem.num_outputs, num)
    seen = np.where(rng.random(num) < 0.6, targets, 0)
    p = rng.dirichlet(np.ones(problem.num_outputs), num) + 0.15 * np.eye(problem.num_outputs)[seen]
    return targets, p / p.sum(1, keepdims=True)


@pytest.mark.parametrize("name", PROBLEMS)
def test_intervals_are_those_of_a_plain_bootstrap(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_RESAMPLES", 60)
    problem = PROBLEMS[name]
    targets, p = draw(problem)
    metric = make_metric(METRICS[name], problem)
    scores = evaluation(targets, p, p, problem, metric, detailed=True, interval=0.8)
    plain = evaluation(targets, p, p, problem, metric, detailed=True)
    assert {name: scores[name] for name in plain} == plain
    if problem.has_classes:  # of what is chance there is no interval
        assert plain.pop(module.BY_CHANCE) == scores.pop(module.BY_CHANCE) > 0
    assert list(scores) == [key for name in plain for key in (name, f"{name}_interval")]
    rng = np.random.default_rng(0)
    samples = [rng.integers(len(targets), size=len(targets)) for _ in range(60)]
    again = [evaluation(targets[s], p[s], p[s], problem, metric, detailed=True) for s in samples]
    for name in plain:
        expected = np.quantile([each[name] for each in again], [0.1, 0.9])
        np.testing.assert_allclose(scores[f"{name}_interval"], expected, rtol=1e-6)


def test_only_the_usual_metrics_are_returned_by_default() -> None:
    for problem in PROBLEMS.values():
        targets, p = draw(problem)
        assert evaluation(targets, p, p, problem) == summary_metrics(targets, p, problem)


def test_labels_are_scored_after_thresholds_and_probabilities_before() -> None:
    problem = PROBLEMS["binary"]
    targets, p = draw(problem)
    scores = evaluation(targets, p, p[:, ::-1], problem, detailed=True)
    assert scores["top1"] == (p.argmax(1) != targets).mean()
    assert scores["log_loss"] == problem.image_losses(p, targets).mean()


def test_95_percent_intervals_contain_the_true_value() -> None:
    problem, held = PROBLEMS["binary"], 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        targets = rng.integers(0, 2, 100)
        p = np.eye(2)[np.where(rng.random(100) < 0.8, targets, 1 - targets)]
        low, high = evaluation(targets, p, p, problem, interval=0.95)["top1_interval"]
        held += low <= 0.8 <= high
    assert held >= 50  # of 57 expected; fewer have a probability below .001


def test_accuracies_of_0_and_1_have_exact_intervals() -> None:
    problem = PROBLEMS["binary"]
    targets = np.arange(20) % 2
    right = np.eye(2)[targets]
    assert evaluation(targets, right, right, problem, interval=0.95)["top1_interval"] == pytest.approx(
        (0.8316, 1), abs=1e-4
    )
    wrong = evaluation(targets, right, right[:, ::-1], problem, interval=0.95)["top1_interval"]
    assert wrong == pytest.approx((0, 0.1684), abs=1e-4)


def test_samples_without_a_class_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_RESAMPLES", 50)
    problem = PROBLEMS["binary"]
    targets, p = draw(problem, 60)
    targets[:] = np.arange(60) == 7  # a sample has it in two of three cases
    scores = evaluation(targets, p, p, problem, make_metric("roc_auc", problem), interval=0.9)
    low, high = scores["roc_auc_interval"]
    assert 0 <= low <= scores["roc_auc"] <= high <= 1
    assert resampled_scores({"a": (make_metric("roc_auc", problem), p[:7])}, targets[:7], problem) == {}


def test_the_interval_of_an_undefined_metric_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "resampled_scores", lambda *_: {})
    problem = PROBLEMS["multiclass"]
    targets, p = draw(problem)
    assert all(math.isnan(end) for end in evaluation(targets, p, p, problem, interval=0.9)["top5_interval"])


@pytest.mark.parametrize("interval", [0, 1, 95, True, "0.95"])
def test_the_interval_must_be_a_fraction(interval: object) -> None:
    problem = PROBLEMS["binary"]
    with pytest.raises(HyperparameterError, match="interval was given"):
        evaluation(*draw(problem), draw(problem)[1], problem, interval=interval)


def test_given_metrics_replace_the_usual_ones() -> None:
    problem, targets = Binary(("a", "b")), np.array([0, 1, 1])
    probabilities, adjusted = np.array([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]]), np.array([[0.4, 0.6], [0, 1], [0.7, 0.3]])
    asked = [make_metric(name, problem) for name in ("f1", "roc_auc", "log_loss")]
    scores = evaluation(targets, probabilities, adjusted, problem, make_metric("acc", problem), metrics=asked)
    assert scores == pytest.approx(
        {
            "f1": 0.5,  # of labels as predict returns them: b, b, a
            "roc_auc": 0.5,
            "log_loss": -np.log([0.6, 0.8, 0.1]).mean(),  # of probabilities as predict_proba returns them
        }
    )
    assert "f1_interval" in evaluation(targets, probabilities, adjusted, problem, metrics=asked[:1], interval=0.9)


def test_tables_of_classes() -> None:
    targets, names = np.array([0, 2, 2, 1]), ("cat", "dog", "cow")
    adjusted = np.eye(3)[[0, 2, 0, 0]]
    matrix = confusion_matrix(targets, adjusted, Multiclass((0, 1, 2)), names)
    assert matrix.loc["cow"].to_dict() == {"cat": 1, "dog": 0, "cow": 1}
    assert (matrix.to_numpy().sum(), matrix.index.name, matrix.columns.name) == (4, "true", "predicted")
    report = classification_report(targets, adjusted, Multiclass((0, 1, 2)), names)
    assert report.loc["cow"].tolist() == pytest.approx([1, 0.5, 2 / 3, 2])
    assert report.loc["dog"].tolist() == [0, 0, 0, 1]
    several = Problem.of([["a"], ["b"], ["a", "b"]])
    matrix = confusion_matrix(np.array([[1.0, 0], [0, 1], [1, 1]]), np.array([[1.0, 1], [0, 0], [1, 1]]), several, "ab")
    assert matrix.loc["b"].to_dict() == {"tn": 0, "fp": 1, "fn": 1, "tp": 1}
    assert classification_report(np.eye(2), np.eye(2), several, "ab").loc["a", "recall"] == 1
    with pytest.raises(HyperparameterError, match="confusion_matrix requires classes"):
        confusion_matrix(np.zeros(2), np.zeros((2, 1)), Regression(), ())


def test_p_values_agree_with_the_interval_of_a_difference() -> None:
    rng, num_below = np.random.default_rng(0), 0
    for _ in range(300):
        samples = rng.normal(rng.normal(0, 2), 1, size=1000)
        low, high = percentiles(samples, 0.95)
        p = difference_p_value(samples)
        assert 2 / 1001 <= p <= 1
        if not 0.04 < p < 0.06:
            assert (p < 0.05) == (low > 0 or high < 0)
            num_below += p < 0.05
        assert p == difference_p_value(-samples)
    assert 0 < num_below < 300
    assert difference_p_value(np.zeros(1000)) == 1  # equal predictions


def test_paired_samples_are_of_the_same_images() -> None:
    problem = PROBLEMS["regression"]
    targets, p = draw(problem)
    samples = resampled_scores(
        {name: (make_metric("rmse", problem), values) for name, values in {"a": p, "b": p, "c": p + 1}.items()},
        targets,
        problem,
    )
    assert len(samples["a"]) == module.NUM_RESAMPLES
    assert (samples["a"] == samples["b"]).all()
    assert (samples["a"] != samples["c"]).all()
