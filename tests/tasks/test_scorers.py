from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.metrics import get_scorer_names

from saccade.errors import DataError, UnknownNameError
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Problem
from saccade.tasks.scorers import CLUSTERING, REGRESSION, scorer_names

PROBLEMS = {
    "binary": Problem.of(["cat", "dog"]),
    "multiclass": Problem.of(["cat", "cow", "dog"]),
    "multilabel": Problem.of([["cat"], ["cow"], ["dog"]]),
    "regression": Problem.of([10.5, 12.0, 14.75, 11.0]),
}
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.1, 0.3, 0.6], [0.5, 0.4, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]]
)
CLASSES = np.array([0, 1, 2, 1, 1, 0])
IN_LISTS = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0]], np.float32)
LISTED = np.array(
    [[0.9, 0.2, 0.7], [0.3, 0.4, 0.6], [0.1, 0.3, 0.6], [0.8, 0.9, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]]
)
TWO = np.stack([1 - PROBABILITIES[:, 0], PROBABILITIES[:, 0]], 1)
IS_DOG = np.array([1, 0, 0, 1, 1, 0])
NUMBERS, GUESSES = np.array([11.0, 12.5, 14.0, 10.0]), np.array([11.5, 12.0, 13.0, 10.5])


def figure(name: str, problem_type: str) -> float:
    problem = PROBLEMS[problem_type]
    targets, predictions = {
        "binary": (IS_DOG, TWO),
        "multiclass": (CLASSES, PROBABILITIES),
        "multilabel": (IN_LISTS, LISTED),
        "regression": (problem.encode(NUMBERS), GUESSES[:, None]) if problem_type == "regression" else (None, None),
    }[problem_type]
    return make_metric(name, problem)(targets, predictions.astype(np.float32), problem)


LIKELIEST = PROBABILITIES.argmax(1)
LABELLED = LISTED >= 0.5


@pytest.mark.parametrize(
    ("name", "problem_type", "expected"),
    [
        ("acc", "binary", sk.accuracy_score(IS_DOG, TWO.argmax(1))),
        ("f1", "binary", sk.f1_score(IS_DOG, TWO.argmax(1))),
        ("recall", "binary", sk.recall_score(IS_DOG, TWO.argmax(1))),
        ("roc_auc", "binary", sk.roc_auc_score(IS_DOG, TWO[:, 1])),
        ("roc_auc_ovr", "binary", sk.roc_auc_score(IS_DOG, TWO[:, 1])),
        ("average_precision", "binary", sk.average_precision_score(IS_DOG, TWO[:, 1])),
        ("neg_brier_score", "binary", -sk.brier_score_loss(IS_DOG, TWO[:, 1])),
        ("mcc", "binary", sk.matthews_corrcoef(IS_DOG, TWO.argmax(1))),
        ("balanced_accuracy", "multiclass", sk.balanced_accuracy_score(CLASSES, LIKELIEST)),
        ("f1_macro", "multiclass", sk.f1_score(CLASSES, LIKELIEST, average="macro")),
        ("roc_auc_ovr", "multiclass", sk.roc_auc_score(CLASSES, PROBABILITIES, multi_class="ovr")),
        ("roc_auc_ovo", "multiclass", sk.roc_auc_score(CLASSES, PROBABILITIES, multi_class="ovo")),
        ("top_k_accuracy", "multiclass", sk.top_k_accuracy_score(CLASSES, PROBABILITIES)),
        ("quadratic_kappa", "multiclass", sk.cohen_kappa_score(CLASSES, LIKELIEST, weights="quadratic")),
        ("f1_samples", "multilabel", sk.f1_score(IN_LISTS, LABELLED, average="samples")),
        ("accuracy", "multilabel", sk.accuracy_score(IN_LISTS, LABELLED)),
        ("roc_auc", "multilabel", sk.roc_auc_score(IN_LISTS, LISTED)),
        ("average_precision", "multilabel", sk.average_precision_score(IN_LISTS, LISTED)),
        ("r2", "regression", sk.r2_score(NUMBERS, GUESSES)),
        ("mae", "regression", sk.mean_absolute_error(NUMBERS, GUESSES)),
        ("mean_absolute_error", "regression", sk.mean_absolute_error(NUMBERS, GUESSES)),
        ("neg_mean_absolute_error", "regression", -sk.mean_absolute_error(NUMBERS, GUESSES)),
        ("mse", "regression", sk.mean_squared_error(NUMBERS, GUESSES)),
        ("root_mean_squared_error", "regression", sk.root_mean_squared_error(NUMBERS, GUESSES)),
        ("mape", "regression", sk.mean_absolute_percentage_error(NUMBERS, GUESSES)),
    ],
)
def test_named_metrics_equal_the_functions_of_scikit_learn(name, problem_type, expected):
    assert figure(name, problem_type) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["mae", "mean_squared_error", "rmse", "max_error"])
def test_without_neg_less_is_better(name):
    metric = make_metric(name, PROBLEMS["regression"])
    assert metric.name == name
    assert metric.score(2.0) == -2.0


@pytest.mark.parametrize("name", sorted(set(scorer_names()) - CLUSTERING))
def test_every_metric_is_defined_for_some_problem(name):
    suited = []
    for problem_type, problem in PROBLEMS.items():
        try:
            make_metric(name, problem)
        except UnknownNameError:
            continue
        suited.append(problem_type)
    evaluates_numbers = bool({name, f"neg_{name}"} & REGRESSION) or name in ("mae", "mse", "mape", "rmse")
    assert suited == ["regression"] if evaluates_numbers else "regression" not in suited
    assert suited


def test_metrics_of_clusterings_are_refused():
    names = sorted(CLUSTERING & set(get_scorer_names()))
    for name, problem in zip(names, [*PROBLEMS.values()] * len(names), strict=False):  # an error lists what is suitable
        with pytest.raises(UnknownNameError, match="it evaluates clusterings"):
            make_metric(name, problem)


@pytest.mark.parametrize(
    ("name", "problem_type", "message"),
    [
        ("roc_auc", "multiclass", r"does not suit multiclass problems \(multi_class must be.*'roc_auc_ovr'"),
        ("f1", "multiclass", r"Target is multiclass but average='binary'\); did you mean 'f1_macro' or 'f1_micro'"),
        ("f1_samples", "multiclass", "did you mean .*'f1_macro'"),
        ("r2", "binary", r"it evaluates numbers\); try accuracy, balanced_accuracy"),
        ("accuracy", "regression", r"it evaluates classes\); try rmse, mae"),
        ("top_k_accuracy", "binary", "two likeliest"),
        ("neg_brier_score", "multilabel", "sum to 1"),
        ("balanced_acuracy", "multiclass", "Did you mean 'balanced_accuracy'"),
        ("mean_absolut_error", "regression", "Did you mean .*'mean_absolute_error'"),
        ("xyzzy", "multilabel", r"Unknown eval_metric for multilabel problems 'xyzzy'.*Common ones: f1_micro"),
    ],
)
def test_unsuitable_and_unknown_names_get_suggestions(name, problem_type, message):
    with pytest.raises(UnknownNameError, match=message):
        make_metric(name, PROBLEMS[problem_type])


def test_scorers_get_labels_as_they_were_given():
    problem = PROBLEMS["binary"]
    metric = make_metric(sk.make_scorer(sk.recall_score, pos_label="cat"), problem)
    assert metric(IS_DOG, TWO, problem) == pytest.approx(sk.recall_score(IS_DOG, TWO.argmax(1), pos_label=0))


@pytest.mark.parametrize("method", ["predict_proba", "decision_function"])
@pytest.mark.parametrize("problem_type", ["binary", "multilabel"])
def test_scorers_get_probabilities_or_scores(method, problem_type):
    problem = PROBLEMS[problem_type]
    metric = make_metric(sk.make_scorer(sk.roc_auc_score, response_method=method), problem)
    targets, predictions = (IS_DOG, TWO) if problem_type == "binary" else (IN_LISTS, LISTED)
    assert metric(targets, predictions, problem) == pytest.approx(figure("roc_auc", problem_type))


@pytest.mark.parametrize("name", ["log_loss", "top_k_accuracy", "quadratic_kappa", "brier_score", "f1_macro"])
def test_classes_without_images_do_not_matter_if_the_metric_is_defined(name):
    problem = PROBLEMS["multiclass"]
    value = make_metric(name, problem)(CLASSES[:2], PROBABILITIES[:2], problem)
    assert np.isfinite(value)


def test_the_error_of_an_undefined_metric_names_classes_without_images():
    problem = PROBLEMS["multiclass"]
    with pytest.raises(
        DataError, match=r"'roc_auc_ovr' cannot be .* 2 images .*none of them is of the classes \['dog'\]"
    ):
        make_metric("roc_auc_ovr", problem)(CLASSES[:2], PROBABILITIES[:2], problem)
    problem = PROBLEMS["binary"]
    with pytest.raises(DataError, match=r"Only one class.*\['dog'\]; give more validation images"):
        make_metric("roc_auc", problem)(np.zeros(3, np.int64), TWO[:3], problem)
    problem = PROBLEMS["multilabel"]
    with pytest.raises(DataError, match=r"none or all of them have the labels \['cow', 'dog'\]"):
        make_metric("roc_auc", problem)(IN_LISTS[[0, 2]] * [1, 0, 1], LISTED[[0, 2]], problem)
