from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saccade.portfolio import DatasetDescription, Portfolio
from saccade.training.description import describe_recipe, measure_log_speed, score_range
from saccade.training.metrics import make_metric
from saccade.training.problem import Problem


def test_a_recipe_is_described_with_what_it_means():
    described = describe_recipe(
        {"model": "resnet18", "lr": 0.02, "opt": "sgd", "epochs": 7, "auto_augment": "randaugment"}
    )
    assert described.num_epochs == 7
    assert described.network.top1 == 0.698
    assert described.hyperparameters["lr"] == 0.02
    assert described.hyperparameters["opt"] == "sgd"
    assert described.hyperparameters["augmentation"] == "randaugment"
    assert described.hyperparameters["layer_decay"] == 0.75
    assert describe_recipe({"pretrained": False}).hyperparameters["layer_decay"] == 1.0
    assert describe_recipe({"transfer_lr_mult": 0}).hyperparameters["head_only"]


@pytest.mark.parametrize("model", [nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), lambda num_classes: nn.Linear(4, 2)])
def test_networks_of_ones_own_are_described_too(model):
    described = describe_recipe({"model": model, "img_size": 32})
    scores = Portfolio.load().predict_scores([described], DatasetDescription(100, 2))
    assert described.network.input_size == 32
    assert np.isfinite(scores).all()


@given(
    labels=st.lists(st.integers(0, 6), min_size=10, max_size=60).filter(lambda labels: len(set(labels)) >= 2),
    metric=st.sampled_from(["accuracy", "log_loss", "f1_micro", "balanced_accuracy"]),
)
@settings(max_examples=30, deadline=None)
def test_guessing_is_below_the_best(labels, metric):
    problem = Problem.of(pd.Series(labels), None if len(set(labels)) == 2 else "multiclass")
    metric = make_metric(metric, problem)
    low, high = score_range(metric, problem, problem.encode(pd.Series(labels)))
    assert math.isfinite(low)
    assert low < high


def test_guessing_by_regression_is_the_spread_of_the_targets():
    labels = pd.Series([1.0, 2.0, 3.0, 4.0])
    problem = Problem.of(labels, "regression")
    targets = problem.encode(labels)
    low, high = score_range(make_metric("rmse", problem), problem, targets)
    assert low < -0.5
    assert high == 0


def test_a_metric_of_ones_own_that_refuses_guesses_has_a_range():
    labels = pd.Series([0, 1, 1, 0])
    problem = Problem.of(labels, "binary")

    def refuse(targets, predictions):
        raise ValueError("no")

    metric = make_metric(refuse, problem)
    assert score_range(metric, problem, problem.encode(labels)) == (0.0, 1.0)


def test_the_speed_is_a_finite_number_and_leaves_the_threads_alone():
    import torch

    before = torch.get_num_threads()
    assert math.isfinite(measure_log_speed("cpu", num_threads=1))
    assert torch.get_num_threads() == before
