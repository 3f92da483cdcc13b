from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from saccade.autosearch import description
from saccade.autosearch.description import describe_network, describe_recipe, score_range
from saccade.autosearch.features import FEATURES, HYPERPARAMETERS, DatasetDescription, features
from saccade.autosearch.portfolio import Portfolio
from saccade.errors import HyperparameterError, UnknownModelError
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Problem
from saccade.tasks.scorers import suitable_names

CPU = torch.device("cpu")


class Own(nn.Linear):
    """A user's network that counts its instances."""

    num_made = 0

    def __init__(self, num_classes: int) -> None:
        super().__init__(3, num_classes)
        Own.num_made += 1


class PickyMeta(type):
    __hash__ = None  # type: ignore[assignment]


class Picky(Own, metaclass=PickyMeta):
    """A metaclass without a hash."""


class SGDLike(torch.optim.SGD):
    pass


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"lr": 0.02, "batch_size": 8, "wd": 0.1}, {"lr": 0.02, "batch_size": 8, "weight_decay": 0.1}),
        ({}, {"layer_decay": 0.75, "frozen_part": 0.0, "amp": False, "augmentation": None, "sched": "cosine"}),
        ({"pretrained": False}, {"layer_decay": 1.0}),
        ({"layer_decay": 0.9, "pretrained": False}, {"layer_decay": 0.9}),
        ({"transfer_lr_mult": 0, "output_lr_mult": 10, "lr": 0.01}, {"frozen_part": 1.0, "lr": 0.1}),
        ({"transfer_lr_mult": 0, "output_lr_mult": 0, "lr": 0.01}, {"frozen_part": 1.0, "lr": 0.01}),
        ({"transfer_lr_mult": 0.1, "lr": 0.01}, {"frozen_part": 0.0, "lr": 0.001}),
        ({"mixup": 0.2, "cutmix": 1.0, "smoothing": 0.1}, {"mixup": 0.2, "cutmix": 1.0, "mix_prob": 1.0}),
        ({"drop": 0.3, "clip_grad": 5.0, "amp": True}, {"drop": 0.3, "clip_grad": 5.0, "amp": True}),
        ({"auto_augment": "rand-m9-n2"}, {"augmentation": "randaugment"}),
        ({"auto_augment": "trivialaugment"}, {"augmentation": "trivialaugment"}),
        ({"auto_augment": "autoaugment", "train_transform": nn.Identity()}, {"augmentation": None}),
        ({"sched": "step", "epochs": 30}, {"sched": "step", "decay_epochs": 10}),
        ({"sched": "poly"}, {"sched": "cosine"}),
        ({"sched": "constant"}, {"sched": "plateau", "decay_epochs": None}),
        ({"warmup_epochs": 5, "epochs": 4}, {"warmup_epochs": 1.0}),
        ({"opt": "Lookahead_AdamW"}, {"opt": "adamw"}),
        ({"opt": "sgd", "momentum": 0.8}, {"opt": "momentum", "momentum": 0.8}),
        ({"opt": SGDLike}, {"opt": "momentum"}),
        ({"opt": torch.optim.Adam}, {"opt": "adam"}),
        ({"opt": "adafactor"}, {"opt": "adamw"}),
    ],
)
def test_a_recipe_is_described_by_its_effect(given_: dict[str, Any], expected: dict[str, Any]) -> None:
    described = describe_recipe(given_, device=CPU).hyperparameters
    assert {name: described[name] for name in expected} == pytest.approx(expected)
    assert set(described) <= set(HYPERPARAMETERS)


def test_network_and_epochs_are_the_recipes() -> None:
    described = describe_recipe({"net": "resnet18_v1b", "epochs": 7, "img_size": 64, "pretrained": False})
    assert described.num_epochs == 7
    assert described.network == describe_network("resnet18", img_size=64, pretrained=False)


def test_weights_of_the_recipe_precede_those_of_the_task() -> None:
    described = [
        describe_recipe({"model": "resnet18", "weights": file}, weights="resnet18.laion.safetensors").network
        for file in (None, "resnet18.my_in21k.safetensors")
    ]
    assert [network.pretraining for network in described] == [2, 1]


@given(
    lr=st.floats(1e-6, 10),
    epochs=st.integers(1, 300),
    opt=st.sampled_from(["adamw", "sgd", "momentum", "lion", "rmsprop", "lamb", "muon", "lookahead_radam", SGDLike]),
    sched=st.sampled_from(["cosine", "step", "poly", "tanh", "constant"]),
    momentum=st.floats(0, 0.99),
    transfer_lr_mult=st.floats(0, 2),
    mixup=st.floats(0, 1),
    auto_augment=st.sampled_from([None, "randaugment", "augmix", "autoaugment"]),
)
@example(
    lr=0.5, epochs=1, opt="adamw", sched="cosine", momentum=0.0, transfer_lr_mult=5e-324, mixup=0.0, auto_augment=None
)
@settings(max_examples=60, deadline=None)
def test_every_recipe_has_finite_features(**config: Any) -> None:
    described = describe_recipe({"model": "resnet18", **config})
    row = features(described, DatasetDescription(1000, 10), 0.7)
    assert row.shape == (len(FEATURES),)
    assert np.isfinite(row).all()


def test_an_invalid_recipe_is_an_error() -> None:
    with pytest.raises(HyperparameterError, match="did you mean 'lr'"):
        describe_recipe({"lrr": 0.1})
    with pytest.raises(UnknownModelError):
        describe_recipe({"model": "no_such_network"})


@pytest.mark.parametrize("model", [Own, Own(4), lambda num_classes: Own(num_classes), Picky])
def test_own_networks_are_described(model: Any) -> None:
    described = describe_recipe({"model": model, "img_size": 32})
    assert described.network.num_params in (4 * 4, 4 * 10)
    assert (described.network.input_size, described.network.top1) == (32, None)
    assert described.hyperparameters["layer_decay"] == 1.0
    assert np.isfinite(Portfolio.load().predict_scores([described], DatasetDescription(100, 2))).all()


def test_an_own_network_is_built_once_and_leaves_random_numbers_alone() -> None:
    description._describe_own.cache_clear()
    Own.num_made, state = 0, torch.get_rng_state()
    for lr in (0.1, 0.2, 0.3):
        describe_recipe({"model": Own, "lr": lr})
    assert Own.num_made == 1
    assert torch.equal(state, torch.get_rng_state())


def problem_of(problem_type: str, num: int, seed: int) -> tuple[Problem, np.ndarray]:
    rng = np.random.default_rng(seed)
    if problem_type == "regression":
        labels = rng.normal(50, 7, num) + 100
        problem = Problem.of(labels, "regression")
    elif problem_type == "multilabel":
        labels = [["a"], ["b", "c"], [], *([c for c in "abc" if rng.random() < 0.4] for _ in range(num))]
        problem = Problem.of(labels)
    else:
        classes = ["no", "yes"] if problem_type == "binary" else [f"class {i}" for i in range(7)]
        labels = [*classes, *rng.choice(classes, num)]
        problem = Problem.of(labels, problem_type)
    return problem, problem.encode(labels)


@pytest.mark.parametrize("problem_type", ["binary", "multiclass", "multilabel", "regression"])
def test_every_metric_has_a_range(problem_type: str) -> None:
    problem, targets = problem_of(problem_type, 60, seed=1)
    names = suitable_names(problem)
    assert len(names) > 9
    for name in names:
        metric = make_metric(name, problem)
        low, high = score_range(metric, problem, targets)
        assert math.isfinite(low)
        assert math.isfinite(high)
        assert low < high, name
        is_cost = not metric.greater_is_better or name.startswith("neg_")
        if "samples" in name:  # images without labels always count as wrong there
            assert 0.5 < high <= 1
        else:
            assert high == pytest.approx(0.0 if is_cost else 1.0, abs=1e-6), name


@given(
    problem_type=st.sampled_from(["binary", "multiclass", "multilabel", "regression"]),
    num=st.integers(3, 60),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_constant_predictions_score_below_the_best(problem_type: str, num: int, seed: int) -> None:
    problem, targets = problem_of(problem_type, num, seed)
    for name in (None, *{"regression": ["mae", "r2"]}.get(problem_type, ["log_loss", "accuracy", "f1_macro"])):
        low, high = score_range(make_metric(name, problem), problem, targets)
        assert -math.inf < low < high < math.inf


def test_the_range_of_accuracy_begins_at_the_most_frequent_class() -> None:
    problem = Problem.of(list("abcd"))
    even, odd = np.array([0, 1, 2, 3]), np.array([0, 0, 0, 1, 2, 3])
    assert score_range(make_metric("accuracy", problem), problem, even) == (0.25, 1.0)
    assert score_range(make_metric("accuracy", problem), problem, odd) == (0.5, 1.0)
    low, high = score_range(make_metric("log_loss", problem), problem, even)
    assert low == pytest.approx(-math.log(4))
    assert high == pytest.approx(0, abs=1e-12)


@given(mean=st.floats(-1e3, 1e3), std=st.floats(1e-2, 1e3))
@settings(max_examples=40, deadline=None)
def test_the_constant_prediction_of_numbers_errs_by_their_deviation(mean: float, std: float) -> None:
    labels = mean + std * np.array([-1.0, 1.0] * 20)
    problem = Problem.of(labels, "regression")
    low, high = score_range(make_metric("rmse", problem), problem, problem.encode(labels))
    assert low == pytest.approx(-labels.std(), rel=1e-3)
    assert high == pytest.approx(0.0, abs=1e-3 * std)
    assert score_range(make_metric("r2", problem), problem, problem.encode(labels)) == pytest.approx((0, 1), abs=1e-5)


def test_a_subset_of_many_images_has_every_class() -> None:
    problem = Problem.of([str(number) for number in range(9)])
    targets = np.concatenate([np.zeros(50_000, np.int64), np.arange(9)])
    seen = []

    def remember(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        seen.append(y_true)
        return float((y_true == y_pred).mean())

    low, high = score_range(make_metric(remember, problem), problem, targets)
    assert 0.98 < low < high == 1.0
    assert all(len(labels) < 5000 and len(set(labels)) == 9 for labels in seen)


def test_an_own_metric_that_fails_has_a_range() -> None:
    def refuse(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        raise ValueError("no")

    problem = Problem.of([0, 1], "binary")
    assert score_range(make_metric(refuse, problem), problem, np.array([0, 1, 1])) == (0.0, 1.0)


def test_a_metric_that_constant_predictions_maximise_has_a_range() -> None:
    problem = Problem.of([0, 1], "binary")
    low, high = score_range(make_metric(lambda y_true, y_pred: 3.0, problem), problem, np.array([0, 1, 1]))
    assert (low, high) == (2.0, 3.0)
