from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from saccade import ImagePredictor
from saccade.errors import HyperparameterError
from saccade.tasks.problem import Problem
from saccade.training.probes.heads import AUTO_Q, belief_weights, fit_robust_heads

DIGITS = Problem.of(list(range(10)))


def noisy_digits(share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return pixels and labels for training, a share of them wrong, and pixels and right labels for a test."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    train, test = order[:800], order[800:]
    given = labels[train].copy()
    wrong = rng.random(len(given)) < share
    given[wrong] = (given[wrong] + rng.integers(1, 10, wrong.sum())) % 10
    return images[train].astype(np.float32) / 16, given, images[test].astype(np.float32) / 16, labels[test]


def test_robust_loss_improves_a_network_trained_on_wrong_labels() -> None:
    x, y, x_test, y_test = (torch.as_tensor(each) for each in noisy_digits(0.4))

    def accuracy(q: float) -> float:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
        optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
        for _ in range(60):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                DIGITS.loss(network(x[rows]), y[rows], q=q).backward()
                optimizer.step()
        return float((network(x_test).argmax(1) == y_test).float().mean())

    assert accuracy(0.7) > accuracy(0.0) + 0.1


def test_robust_loss_improves_a_head_fitted_to_wrong_labels() -> None:
    x, y, x_test, y_test = noisy_digits(0.4)
    hidden = np.random.default_rng(0).normal(size=(64, 400)).astype(np.float32)  # enough to learn labels by heart
    x, x_test = np.maximum(x @ hidden, 0), np.maximum(x_test @ hidden, 0)
    heads = [fit_robust_heads(x, y, DIGITS, q)[0] for q in (0.0, 0.7)]
    right = [float(((x_test @ head.weight.T + head.bias).argmax(1) == y_test).mean()) for head in heads]
    assert right[1] > right[0] + 0.02, right


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.3, AUTO_Q)])
def test_wrong_labels_are_detected(share: float, expected: float) -> None:
    x, y, x_test, y_test = noisy_digits(share)
    head, q = fit_robust_heads(x, y, DIGITS, None)
    assert q == expected
    assert ((x_test @ head.weight.T + head.bias).argmax(1) == y_test).mean() > 0.88


@pytest.mark.parametrize(
    ("labels", "q"),
    [([["a"], ["a", "b"], []] * 8, None), ([["a"], ["a", "b"], []] * 8, 0.5), ([0.5, 1.5, 3.0] * 8, None)],
)
def test_robust_loss_without_single_labels_is_used_only_if_requested(labels: list[Any], q: float | None) -> None:
    problem = Problem.of(labels, "regression" if isinstance(labels[0], float) else None)
    features = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    head, found = fit_robust_heads(features, problem.encode(labels), problem, q)
    assert found == (q or 0.0)
    assert head.weight.shape == (problem.num_outputs, 5)


@pytest.mark.parametrize("labels", [["a", "b", "c"], [["a"], ["a", "b"], []]])
def test_robust_loss_with_q_near_0_is_cross_entropy(labels: list[Any]) -> None:
    problem = Problem.of(labels)
    targets = torch.as_tensor(problem.encode(labels))
    torch.manual_seed(0)
    outputs, by_class = torch.randn(3, problem.num_outputs), torch.rand(problem.num_outputs)
    arguments = (0.1, by_class, torch.tensor([1.0, 2.0, 0.5]))
    exact = problem.loss(outputs, targets, *arguments)
    assert problem.loss(outputs, targets, *arguments, q=0.0) == exact
    assert problem.loss(outputs, targets, *arguments, q=1e-4).item() == pytest.approx(exact.item(), rel=1e-3)


def test_robust_gradient_is_cross_entropy_times_a_power_of_the_probability() -> None:
    outputs, targets = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    problem = Problem.of(["a", "b", "c"])

    def gradient(q: float) -> torch.Tensor:
        given = outputs.clone().requires_grad_()
        problem.loss(given, targets, q=q).backward()
        assert given.grad is not None
        return given.grad

    probabilities = outputs.softmax(1)[torch.arange(5), targets]
    assert torch.allclose(gradient(0.7), gradient(0.0) * probabilities[:, None] ** 0.7, atol=1e-6)


def test_robust_loss_of_mixed_targets_is_that_of_their_parts() -> None:
    outputs = torch.tensor([[1.0, -1.0]])
    problem = Problem.of(["a", "b"])
    first, second = (problem.loss(outputs, torch.tensor([number]), q=0.5).item() for number in (0, 1))
    mixed = problem.loss(outputs, torch.tensor([[0.3, 0.7]]), q=0.5).item()
    assert mixed == pytest.approx(0.3 * first + 0.7 * second)


def test_multilabel_belief_weights_are_per_label() -> None:
    problem = Problem.of([["a"], ["b"]])
    weights = belief_weights(np.array([[3.0, 3.0]]), np.array([[1.0, 0.0]], np.float32), problem, 1.0)
    assert weights[0, 0] > 10 * weights[0, 1]


def test_robust_loss_is_refused_for_regression(make_colours: Callable[..., Any]) -> None:
    frame = make_colours(4).assign(label=[0.5 + number for number in range(8)])
    with pytest.raises(HyperparameterError, match="robust_loss requires classes"):
        ImagePredictor(problem_type="regression").fit(
            frame, hyperparameters={"model": "test_resnet", "pretrained": False, "robust_loss": 0.7}
        )
