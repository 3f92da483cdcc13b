from __future__ import annotations

import functools
import math
import pickle
import subprocess
import sys

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from saccade.errors import DataError, HyperparameterError, UnknownNameError
from saccade.tasks.metrics import Metric, is_metric_name, make_metric, summary_metrics
from saccade.tasks.problem import Problem

BINARY = Problem.of(["cat", "dog"])
CLASSES = Problem.of(["cat", "cow", "dog"])
MANY = Problem.of(list("abcdefgh"))
LISTS = Problem.of([["cat"], ["cow"], ["dog"]])
NUMBERS = Problem.of([10.5, 12.0, 14.75, 11.0])


def example(problem: Problem, num: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets and predictions that are often right."""
    rng = np.random.default_rng(seed)
    if problem.type == "regression":
        targets = problem.encode(rng.uniform(10, 15, num))
        return targets, problem.mean + problem.std * (targets[:, None] + rng.normal(0, 0.3, (num, 1)))
    if problem.type == "multilabel":
        targets = rng.integers(0, 2, (num, len(problem.classes))).astype(np.float32)
        logits = 2 * targets - 1 + rng.normal(0, 1, targets.shape)
        return targets, 1 / (1 + np.exp(-logits)).astype(np.float32)
    targets = rng.integers(0, len(problem.classes), num)
    exponentials = np.exp(rng.normal(0, 1, (num, len(problem.classes))) + 1.5 * np.eye(len(problem.classes))[targets])
    return targets, (exponentials / exponentials.sum(1, keepdims=True)).astype(np.float32)


def figure(eval_metric, problem: Problem, seed: int = 0) -> float:
    targets, predictions = example(problem, seed=seed)
    return make_metric(eval_metric, problem)(targets, predictions, problem)


@pytest.mark.parametrize(
    ("problem", "name"), [(BINARY, "accuracy"), (CLASSES, "accuracy"), (LISTS, "f1_micro"), (NUMBERS, "rmse")]
)
def test_every_problem_has_a_default(problem, name):
    metric = make_metric(None, problem)
    assert metric.name == name
    assert metric.greater_is_better == (name != "rmse")


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_built_in_metrics_equal_scikit_learn(seed):
    y, p = example(CLASSES, seed=seed)
    assert figure("accuracy", CLASSES, seed) == pytest.approx(sk.accuracy_score(y, p.argmax(1)))
    exact = p.astype(float) / p.astype(float).sum(1, keepdims=True)
    assert figure("log_loss", CLASSES, seed) == pytest.approx(sk.log_loss(y, exact, labels=[0, 1, 2]), rel=1e-5)
    assert figure("neg_log_loss", CLASSES, seed) == -figure("log_loss", CLASSES, seed)
    y, p = example(MANY, seed=seed)
    assert figure("top5", MANY, seed) == pytest.approx(sk.top_k_accuracy_score(y, p, k=5, labels=np.arange(8)))
    y, p = example(LISTS, seed=seed)
    assert figure("f1_micro", LISTS, seed) == pytest.approx(sk.f1_score(y, p >= 0.5, average="micro"))
    assert figure("accuracy", LISTS, seed) == pytest.approx(sk.accuracy_score(y, p >= 0.5))
    each = [sk.log_loss(y[:, label], p[:, label].astype(float), labels=[0, 1]) for label in range(3)]
    assert figure("log_loss", LISTS, seed) == pytest.approx(np.mean(each), rel=1e-5)
    y, p = example(NUMBERS, seed=seed)
    expected = sk.root_mean_squared_error(y * NUMBERS.std + NUMBERS.mean, p[:, 0])
    assert figure("rmse", NUMBERS, seed) == pytest.approx(expected, rel=1e-4)


def test_no_labels_where_there_are_none_score_0():
    assert make_metric("f1_micro", LISTS)(np.zeros((2, 3)), np.zeros((2, 3)), LISTS) == 0


@pytest.mark.parametrize(
    ("problem", "names"),
    [
        (BINARY, {"top1"}),
        (CLASSES, {"top1"}),
        (MANY, {"top1", "top5"}),
        (LISTS, {"f1_micro", "subset_accuracy"}),
        (NUMBERS, {"rmse"}),
    ],
)
def test_every_problem_has_summary_metrics(problem, names):
    targets, predictions = example(problem)
    held_out = summary_metrics(targets, predictions, problem)
    assert set(held_out) == names
    assert all(0 < value < 1 for value in held_out.values())


def test_a_score_is_higher_when_better():
    assert make_metric("rmse", NUMBERS).score(2.0) == -2.0
    assert make_metric("accuracy", CLASSES).score(0.5) == 0.5


def test_a_user_defined_metric_gets_labels_as_they_were_given():
    seen = []

    def my_metric(y_true, y_pred):
        seen.append((y_true.tolist(), y_pred.tolist()))
        return 0.25

    metric = make_metric(my_metric, CLASSES)
    assert (metric.name, metric.greater_is_better) == ("my_metric", True)
    assert metric(np.array([0, 2]), np.eye(3)[[1, 2]], CLASSES) == 0.25
    make_metric(my_metric, LISTS)(np.array([[1.0, 0, 0]]), np.array([[0.9, 0.6, 0.1]]), LISTS)
    make_metric(my_metric, NUMBERS)(NUMBERS.encode([12.0]), np.array([[13.5]]), NUMBERS)
    assert seen[0] == (["cat", "dog"], ["cow", "dog"])
    assert seen[1] == ([[1, 0, 0]], [[1, 1, 0]])
    assert seen[2] == (pytest.approx([12.0]), [13.5])


@pytest.mark.parametrize(
    ("function", "problem", "name", "greater_is_better"),
    [
        (sk.accuracy_score, CLASSES, "accuracy_score", True),
        (sk.hamming_loss, LISTS, "hamming_loss", False),
        (sk.median_absolute_error, NUMBERS, "own_median_absolute_error", False),
        (functools.partial(sk.fbeta_score, beta=2, average="macro"), CLASSES, "fbeta_score", True),
        (functools.partial(sk.mean_pinball_loss, alpha=0.9), NUMBERS, "mean_pinball_loss", False),
        (sk.make_scorer(sk.f1_score, pos_label="cat"), BINARY, "f1_score", True),
        (lambda y_true, y_pred: 0.5, CLASSES, "metric", True),
    ],
)
def test_functions_have_readable_names_and_a_direction(function, problem, name, greater_is_better):
    metric = make_metric(function, problem)
    assert (metric.name, metric.greater_is_better) == (name, greater_is_better)
    assert math.isfinite(figure(function, problem))


@pytest.mark.parametrize("name", ["accuracy", "top1", "f1_macro", "rmse"])
def test_a_function_does_not_get_the_name_of_a_known_metric(name):
    def function(y_true, y_pred):
        return 0.5

    function.__name__ = name
    metric = make_metric(function, CLASSES)
    assert metric.name == f"own_{name}"
    assert not is_metric_name(metric.name, CLASSES)


def test_is_metric_name():
    assert is_metric_name("accuracy", CLASSES)
    assert is_metric_name("roc_auc_ovr", CLASSES)
    assert is_metric_name("mae", NUMBERS)
    assert not is_metric_name("my_metric", CLASSES)


def test_functions_are_called_as_their_parameters_say():
    def scorer(estimator, X, y):
        return float((estimator.predict_proba(X).argmax(1) == np.unique(y, return_inverse=True)[1]).mean())

    assert figure(scorer, CLASSES) == figure("accuracy", CLASSES)
    with pytest.raises(HyperparameterError, match=r"alone must be called with \(y_true, y_pred\).*it takes \(y_true\)"):
        make_metric(_alone, CLASSES)
    with pytest.raises(HyperparameterError, match="was given 5; expected a metric's name"):
        make_metric(5, CLASSES)


def _alone(y_true):
    return 1.0


def test_metrics_can_be_pickled():
    def my_metric(y_true, y_pred):
        return float((y_true == y_pred).mean())

    from_function = sk.make_scorer(sk.f1_score, average="macro", pos_label=None)
    for eval_metric in (None, "f1_macro", "quadratic_kappa", my_metric, from_function):
        metric = make_metric(eval_metric, CLASSES)
        copy = pickle.loads(cloudpickle.dumps(metric))
        assert copy.name == metric.name
        assert copy(*example(CLASSES), CLASSES) == metric(*example(CLASSES), CLASSES)


def test_a_function_that_fails_is_named_with_its_error():
    def broken(y_true, y_pred):
        raise KeyError("cat")

    with pytest.raises(
        DataError, match=r"'broken' cannot be computed on these 40 images \(KeyError: 'cat'\)"
    ) as caught:
        figure(broken, CLASSES)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(DataError, match="TypeError"):
        figure(lambda y_true, y_pred: None, CLASSES)
    with pytest.raises(DataError, match="it is nan"):
        figure(lambda y_true, y_pred: float("nan"), CLASSES)


def test_predictions_that_are_not_finite_score_nan():
    targets, predictions = example(CLASSES)
    predictions[3] = np.nan
    assert math.isnan(make_metric("accuracy", CLASSES)(targets, predictions, CLASSES))


def test_no_images_are_an_error():
    with pytest.raises(DataError, match="no images to compute accuracy on"):
        make_metric(None, CLASSES)(np.zeros(0, np.int64), np.zeros((0, 3)), CLASSES)


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match=r"for multiclass problems 'acuracy'\. Did you mean .*'accuracy'"):
        make_metric("acuracy", CLASSES)


def test_common_metrics_do_not_import_scikit_learn():
    program = "import sys, saccade.tasks.metrics; print('sklearn' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


def test_a_metric_calls_its_function():
    metric = Metric("half", lambda targets, predictions, problem: 0.5)
    assert metric(*example(CLASSES), CLASSES) == 0.5
