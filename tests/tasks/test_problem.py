from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from saccade.errors import DataError, HyperparameterError, UnknownNameError
from saccade.tasks.problem import Binary, Multiclass, Multilabel, Problem, Regression

KINDS = {
    "text": (st.text(max_size=5).filter(str.strip), ["object", "string", "category"]),
    "whole numbers": (st.integers(-(2**31), 2**31 - 1), ["int64", "int32", "Int64", "category", "object"]),
    "large numbers": (st.integers(-(2**80), 2**80), ["object"]),
    "floats": (st.floats(-1e6, 1e6, width=32), ["float64", "float32", "Float64", "category"]),
    "bools": (st.booleans(), ["bool", "boolean", "category", "object"]),
}


@st.composite
def columns_of_labels(draw: st.DrawFn) -> pd.Series:
    values, dtypes = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    labels = draw(st.lists(values, min_size=2, max_size=20).filter(lambda labels: len(set(labels)) > 1))
    return pd.Series(labels, dtype=draw(st.sampled_from(dtypes)))


def one_hot(targets: np.ndarray, num: int) -> np.ndarray:
    return np.eye(num, dtype=np.float32)[targets]


@settings(deadline=None)
@given(columns_of_labels())
def test_predicted_labels_have_the_form_of_the_given_ones(labels):
    problem = Problem.of(labels, "multiclass")
    restored = Problem.from_json(json.loads(json.dumps(problem.to_json())))
    for it in (problem, restored):
        decoded = it.decode(one_hot(it.encode(labels), it.num_outputs))
        assert decoded.tolist() == labels.tolist()
        assert [type(label) for label in decoded.tolist()] == [type(label) for label in labels.tolist()]


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (pd.Series([True, False], dtype="boolean"), "bool"),
        (pd.Series([3, 1], dtype="Int64"), "int64"),
        (pd.Series([1.0, 2.5]), "float64"),
        (pd.Series(["b", "a"], dtype="string"), "object"),
    ],
)
def test_predictions_have_the_dtype_of_the_labels_where_numpy_has_it(labels, dtype):
    problem = Problem.of(labels)
    assert problem.type == "binary"
    assert problem.decode(np.eye(2)).dtype == dtype
    assert type(problem.classes[0]) is type(labels.tolist()[0])


@settings(deadline=None)
@given(st.lists(st.sets(st.sampled_from("abcde")), min_size=2).filter(lambda rows: len(set().union(*rows)) > 1))
def test_lists_of_labels_come_back(rows):
    problem = Problem.of(rows)
    targets = problem.encode(rows)
    assert problem.type == "multilabel"
    assert targets.dtype == np.float32
    assert problem.decode(targets).tolist() == [sorted(row) for row in rows]


@pytest.mark.parametrize("dtype", ["int64", "bool", "Int64", "boolean", "float64"])
def test_columns_of_labels_come_back(dtype):
    frame = pd.DataFrame({"dog": [0, 1, 1], "cat": [0, 0, 1]}).astype(dtype)
    problem = Problem.of(frame)
    assert (problem.type, problem.classes) == ("multilabel", ("dog", "cat"))
    targets = problem.encode(frame[["cat", "dog"]])  # by name, in whatever order
    decoded = problem.decode(targets)
    assert decoded.dtype == ("bool" if dtype.startswith("bool") else "int64")
    assert decoded.tolist() == frame.to_numpy().tolist()
    assert Problem.from_json(json.loads(json.dumps(problem.to_json()))) == problem


def test_labels_of_equal_length_stay_lists():
    rows = [["a", "b"], ["b", "c"]]
    problem = Problem.of(rows)
    decoded = problem.decode(problem.encode(rows))
    assert decoded.shape == (2,)
    assert decoded.tolist() == rows


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2).filter(lambda numbers: np.std(numbers) > 1e-3))
def test_numbers_come_back_in_their_units(numbers):
    problem = Problem.of(numbers, "regression")
    targets = problem.encode(numbers)
    assert targets.dtype == np.float32
    predictions = problem.activate(torch.from_numpy(targets)[:, None]).numpy()
    assert problem.decode(predictions) == pytest.approx(numbers, abs=1e-5 * problem.std + 1e-6, rel=1e-6)


def test_numbers_that_vary_little_around_a_large_mean_are_kept_apart():
    numbers = [1e9, 1e9 + 1, 1e9 + 2]
    problem = Problem.of(numbers, "regression")
    predictions = problem.activate(torch.from_numpy(problem.encode(numbers))[:, None]).numpy()
    assert problem.decode(predictions) == pytest.approx(numbers, abs=1e-3, rel=0)


@pytest.mark.parametrize(
    ("labels", "problem_type", "message"),
    [
        (["cat", "cat"], None, "1 class: "),
        ([], None, "0 classes"),
        (["a", "b", "c"], "binary", "requires two classes; the labels hold 3"),
        (["a", None, "b"], "multiclass", "1 of 3 labels are missing"),
        (["a", "b"], "regression", "requires numbers"),
        ([1.0, float("nan")], "regression", "1 of 2 labels are missing"),
        (pd.Series([1, None], dtype="Int64"), "regression", "1 of 2 labels are missing"),
        ([1.0, float("inf")], "regression", "some are infinite"),
        ([2, 2], "regression", "all labels are 2.0"),
        ([], "regression", "no labels"),
        ([["a"], ["b"]], "multiclass", "lists of labels require problem_type='multilabel'"),
        ([["a"], ["b"]], "regression", "lists of labels require problem_type='multilabel'"),
        (pd.DataFrame({"a": [0, 1], "b": [1, 0]}), "binary", "several columns of labels require"),
        (["a b", "c"], "multilabel", "requires a list of labels"),
        ([["a"], []], None, "1 label: .*binary problem"),
        (pd.DataFrame({"a": [0, 1]}), None, "at least two"),
        (pd.DataFrame([[0, 1]], columns=["a", "a"]), None, "different names"),
    ],
)
def test_invalid_labels_are_refused(labels, problem_type, message):
    with pytest.raises(DataError, match=message):
        Problem.of(labels, problem_type)


def test_a_misspelt_problem_type_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="Did you mean 'multilabel'"):
        Problem.of(["a", "b"], "multilable")


@pytest.mark.parametrize(
    ("given_labels", "strangers", "message"),
    [
        (["a", "b"], ["a", "z"], r"labels \['z'\] are not among .*\['a', 'b'\]"),
        ([["a"], ["b"]], [["a", "z"]], r"labels \['z'\] are not among"),
        (pd.DataFrame({"a": [0, 1], "b": [1, 0]}), pd.DataFrame({"b": [1]}), r"columns \['a'\] of labels are missing"),
        ([1, 2], ["1", "2"], r"\['1', '2'\] are not among .*\[1, 2\]"),
        (["a", "b"], [["a"], ["b"]], "lists of labels require"),
    ],
)
def test_labels_that_were_not_trained_are_refused(given_labels, strangers, message):
    with pytest.raises(DataError, match=message):
        Problem.of(given_labels).encode(strangers)


def outputs_of(problem: Problem, num: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, problem.num_outputs, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.5]))
def test_the_loss_of_classes_equals_torch(seed, smoothing):
    problem = Problem.of(["a", "b", "c"])
    outputs, targets = outputs_of(problem, seed=seed), torch.tensor([0, 1, 2, 0, 1, 0])
    expected = functional.cross_entropy(outputs, targets, label_smoothing=smoothing)
    torch.testing.assert_close(problem.loss(outputs, targets, smoothing), expected)
    torch.testing.assert_close(problem.loss(outputs, problem.soft_targets(targets, smoothing)), expected)
    weights = torch.tensor([0.5, 1.0, 2.0])
    expected = functional.cross_entropy(outputs, targets, weights, label_smoothing=smoothing, reduction="sum") / 6
    torch.testing.assert_close(problem.loss(outputs, targets, smoothing, weights), expected)
    torch.testing.assert_close(
        problem.loss(outputs, problem.soft_targets(targets, smoothing), class_weights=weights), expected
    )


def test_the_loss_of_label_lists_equals_torch():
    problem = Problem.of([["a"], ["b", "c"]])
    outputs, targets = outputs_of(problem, 2), torch.from_numpy(problem.encode([["a"], ["b", "c"]]))
    expected = functional.binary_cross_entropy_with_logits(outputs, targets)
    torch.testing.assert_close(problem.loss(outputs, targets), expected)
    weights = torch.tensor([3.0, 1.0, 0.5])
    expected = functional.binary_cross_entropy_with_logits(outputs, targets * 0.8 + 0.1, pos_weight=weights)
    torch.testing.assert_close(problem.loss(outputs, targets, 0.2, weights), expected)


def test_the_loss_of_numbers_equals_torch():
    problem = Problem.of([0.5, 1.0, 1.25])
    outputs, targets = outputs_of(problem), torch.linspace(-1, 1, 6)
    torch.testing.assert_close(problem.loss(outputs, targets), functional.mse_loss(outputs[:, 0], targets))


@pytest.mark.parametrize("labels", [["a", "b", "c"], [["a"], ["b"], ["a", "b"]], [0.5, 1.0, 1.25]])
def test_an_image_of_weight_2_counts_as_two_images(labels):
    problem = Problem.of(labels)
    outputs, targets = outputs_of(problem, 3), torch.from_numpy(problem.encode(labels))
    twice = torch.tensor([0, 1, 2, 2])
    torch.testing.assert_close(
        problem.loss(outputs, targets, sample_weights=torch.tensor([0.75, 0.75, 1.5])),
        problem.loss(outputs[twice], targets[twice]),
    )


def test_a_class_weight_counts_in_a_batch_of_one():
    problem = Problem.of(["a", "b"])
    outputs, targets = outputs_of(problem, 1), torch.tensor([1])
    weighted = problem.loss(outputs, targets, class_weights=torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(weighted, 3 * problem.loss(outputs, targets))


def test_right_images_are_counted():
    classes = Problem.of(["a", "b", "c"])
    assert classes.num_right(torch.eye(3), torch.tensor([0, 1, 0])) == 2
    lists = Problem.of([["a"], ["b"]])
    outputs = torch.tensor([[2.0, -1.0], [2.0, 1.0]])
    assert lists.num_right(outputs, torch.tensor([[1.0, 0.0], [1.0, 0.0]])) == 1
    assert Problem.of([0.5, 1.0, 1.25]).num_right(torch.zeros(2, 1), torch.zeros(2)) == 0


def test_probabilities_sum_to_1_only_where_an_image_has_one_class():
    outputs = outputs_of(Problem.of(["a", "b", "c"]))
    torch.testing.assert_close(Problem.of(["a", "b", "c"]).activate(outputs).sum(1), torch.ones(6))
    torch.testing.assert_close(Problem.of([["a"], ["b", "c"]]).activate(outputs), outputs.sigmoid())


def test_strata_are_classes_or_rarest_labels():
    assert Problem.of(["a", "b", "c"]).strata(np.array([2, 0])).tolist() == [2, 0]
    rows = [["a"], ["a", "b"], ["a"], []]
    lists = Problem.of(rows)
    assert lists.strata(lists.encode(rows)).tolist() == [0, 1, 0, 2]
    assert Problem.of([0.5, 1.0, 1.25]).strata(np.array([0.5, -0.5])).tolist() == [0, 0]


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1))
def test_the_rarest_label_is_one_that_the_image_has(rows):
    targets = np.array(rows, np.float32)
    counts = targets.sum(0)
    for row, rarest in zip(targets, Multilabel(("a", "b", "c")).strata(targets), strict=True):
        if row.any():
            assert row[rarest] == 1
            assert counts[rarest] == counts[row > 0].min()
        else:
            assert rarest == 3


@pytest.mark.parametrize("problem", [Multiclass(("a", "b", "c")), Multilabel(("a", "b", "c")), Regression(4.0, 2.0)])
@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 3.0, 40.0]))
def test_mean_outputs_give_the_mean_prediction(problem: Problem, num: int, seed: int, scale: float) -> None:
    outputs = scale * torch.randn(num, 5, problem.num_outputs, generator=torch.Generator().manual_seed(seed))
    expected = torch.stack([problem.activate(each) for each in outputs]).mean(0)
    torch.testing.assert_close(problem.activate(problem.mean_outputs(*outputs)), expected, rtol=1e-4, atol=1e-5)


PROBLEMS = [
    Binary(("a", "b")),
    Multiclass(("a", "b", "c")),
    Multilabel(("a", "b", "c"), "int64"),
    Regression(4.0, 2.0),
]


def targets_of(problem: Problem, num: int = 30) -> np.ndarray:
    rng = np.random.default_rng(0)
    if not problem.has_classes:
        return rng.normal(size=num).astype(np.float32)
    if not problem.has_one_class:
        return rng.integers(0, 2, (num, len(problem.classes))).astype(np.float32)
    return rng.integers(0, len(problem.classes), num)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.type)
def test_a_problem_is_restored_from_json_of_any_version(problem: Problem) -> None:
    record = json.loads(json.dumps(problem.to_json()))
    assert Problem.from_json(record) == problem
    of_all_types = {"classes": [], "mean": 0.0, "std": 1.0, "column_dtype": None}  # as it was saved before
    assert Problem.from_json({**of_all_types, **record}) == problem


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.type)
def test_perfect_predictions_are_right_and_have_no_loss(problem: Problem) -> None:
    targets = targets_of(problem)
    perfect = problem.perfect_predictions(targets)
    assert problem.are_right(perfect, targets).all()
    assert problem.image_losses(perfect, targets) == pytest.approx(0, abs=1e-12)
    assert problem.true_labels(targets).tolist() == problem.predicted_labels(perfect).tolist()


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.type)
def test_the_gradient_is_proportional_to_that_of_the_loss(problem: Problem) -> None:
    soft = problem.soft_targets(torch.from_numpy(targets_of(problem)))
    outputs = outputs_of(problem, len(soft)).requires_grad_()
    problem.output_losses(outputs, soft).sum().backward()
    assert outputs.grad is not None
    factor = 1 if problem.has_classes else 2  # the derivative of a square
    torch.testing.assert_close(outputs.grad, factor * problem.output_gradient(outputs.detach(), soft))


@pytest.mark.parametrize("problem", PROBLEMS[:3], ids=lambda problem: problem.type)
def test_logits_give_the_probabilities_back(problem: Problem) -> None:
    probabilities = problem.activate(5 * outputs_of(problem)).numpy()
    assert problem.probabilities(problem.logits(torch.from_numpy(probabilities))).numpy() == pytest.approx(
        probabilities, abs=1e-6
    )
    extreme = problem.perfect_predictions(targets_of(problem))
    assert problem.logits(torch.from_numpy(extreme)).isfinite().all()


def test_what_requires_classes_is_refused_where_there_are_none() -> None:
    for problem in PROBLEMS[:3]:
        problem.require_classes("mixup")
    with pytest.raises(HyperparameterError, match="mixup requires classes, but this is a regression problem"):
        PROBLEMS[3].require_classes("mixup")
    for problem in PROBLEMS[2:]:
        with pytest.raises(HyperparameterError, match="exactly one class per image"):
            problem.require_one_class("a set of labels")
