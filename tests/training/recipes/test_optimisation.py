from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.models.network import build_network
from saccade.tasks.problem import Problem
from saccade.training.recipes.optimisation import LearningRate, Mixing, make_optimizer
from saccade.training.recipes.recipe import Recipe


def rates(**recipe: object) -> dict[str, set[float]]:
    network = build_network("test_resnet", 3, pretrained=False)
    optimizer = make_optimizer(network, Recipe.of({"lr": 1.0, "sched": "constant", "warmup_epochs": 0, **recipe}))
    LearningRate(optimizer, Recipe.of({"lr": 1.0, "sched": "constant", "warmup_epochs": 0, **recipe}), 4).step(0)
    head = {id(parameter) for parameter in network.get_classifier().parameters()}
    found: dict[str, set[float]] = {"head": set(), "body": set()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            found["head" if id(parameter) in head else "body"].add(round(group["lr"], 9))
    return found


def test_learning_rates_of_head_and_backbone_are_multiplied() -> None:
    assert rates(transfer_lr_mult=0.1, output_lr_mult=10, layer_decay=1.0) == {"head": {10.0}, "body": {0.1}}


def test_layers_decay_from_the_head_down_and_only_by_default_when_pretrained() -> None:
    decayed = rates(layer_decay=0.5)
    assert decayed["head"] == {1.0}
    assert max(decayed["body"]) <= 0.5
    assert len(decayed["body"]) > 3
    assert rates(pretrained=False) == {"head": {1.0}, "body": {1.0}}
    assert max(rates()["body"]) == 0.75


def test_layers_with_a_tiny_learning_rate_are_frozen_unless_the_user_sets_a_decay() -> None:
    def trained(**recipe: object) -> tuple[dict[str, float], set[str]]:
        network = build_network("mobilenetv3_small_050", 3, pretrained=False)
        optimizer = make_optimizer(network, Recipe.of(recipe))
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        factors = {names[id(each)]: group["lr_scale"] for group in optimizer.param_groups for each in group["params"]}
        return factors, {name for name, parameter in network.named_parameters() if parameter.requires_grad}

    factors, names = trained()
    assert names == factors.keys()
    every, all_names = trained(layer_decay_no_opt_scale=0)
    assert factors == {name: factor for name, factor in every.items() if factor >= 0.1}
    assert 0 < len(factors) < len(every) == len(all_names)
    assert len(trained(layer_decay=0.5)[0]) == len(trained(pretrained=False)[0]) == len(every)
    assert trained(layer_decay=0.5, layer_decay_no_opt_scale=0.2)[0].keys() == {
        name for name, factor in trained(layer_decay=0.5)[0].items() if factor >= 0.2
    }


@pytest.mark.parametrize("opt", ["sgd", "adamw", "lamb", "nadam", "lion", "lookahead_adam", "SGD"])
def test_optimizer_is_that_of_timm(opt: str) -> None:
    assert isinstance(
        make_optimizer(build_network("test_resnet", 2, pretrained=False), Recipe.of({"opt": opt})),
        torch.optim.Optimizer,
    ) or opt.startswith("lookahead")


def test_an_unknown_optimizer_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="'adamw'"):
        make_optimizer(build_network("test_resnet", 2, pretrained=False), Recipe.of({"opt": "adamww"}))


@pytest.mark.parametrize("sched", ["cosine", "step", "poly", "tanh", "constant"])
def test_rates_rise_first_and_never_exceed_the_given_one(sched: str) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    rate = LearningRate(optimizer, Recipe.of({"lr": 0.5, "sched": sched, "epochs": 4, "warmup_epochs": 1}), 10)
    seen = []
    for step in range(40):
        rate.step(step)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen[0] < 0.1
    assert max(seen) <= 0.5
    assert seen[5] < seen[9]
    if sched in ("cosine", "poly", "tanh"):
        assert seen[-1] < 0.05


def rates_over(num_steps: int, possible: Callable[[int], float]) -> list[float]:
    """Return the rates of as many of 40 steps, whose schedule is a cosine."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    rate = LearningRate(optimizer, Recipe.of({"lr": 0.5, "epochs": 4, "warmup_epochs": 0}), 10)
    seen = []
    for step in range(num_steps):
        rate.step(step, possible(step))
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def test_a_distant_deadline_does_not_change_the_schedule() -> None:
    assert rates_over(40, lambda step: 60.0 - step) == rates_over(40, lambda _: math.inf)


@given(num_steps=st.integers(3, 39), known_after=st.integers(0, 10))
def test_the_schedule_ends_early_if_the_deadline_is_near(num_steps: int, known_after: int) -> None:
    seen = rates_over(num_steps, lambda step: num_steps - step if step >= min(known_after, num_steps - 3) else math.inf)
    assert seen[0] > 0.4
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.25 * seen[0]


def test_additional_time_is_used_at_lower_rates() -> None:
    seen = rates_over(40, lambda step: 10.0 if step < 5 else 100.0)
    assert seen == sorted(seen, reverse=True)
    assert seen[20] < rates_over(40, lambda _: math.inf)[20]
    assert seen[-1] < 0.01


@given(num=st.integers(1, 9), mixup=st.sampled_from([0.0, 0.1, 0.4, 1.0]), seed=st.integers(0, 99))
def test_mixed_targets_are_probabilities_for_batches_of_any_size(num: int, mixup: float, seed: int) -> None:
    np.random.seed(seed)  # noqa: NPY002  timm's mixup draws from it
    mixing = Mixing(
        Recipe.of({"mixup": mixup, "cutmix": 0.5, "smoothing": 0.1}), Problem.of([0, 1, 2, 3], "multiclass")
    )
    x, y, weights = mixing(torch.rand(num, 3, 8, 8), torch.arange(num) % 4, torch.ones(num))
    assert x.shape == (num, 3, 8, 8)
    assert y.shape == (num, 4)
    assert torch.allclose(y.sum(1), torch.ones(num), atol=1e-5)
    assert torch.allclose(weights, torch.ones(num), atol=1e-5)


def test_mixed_images_have_the_weights_of_their_parts() -> None:
    np.random.seed(0)  # noqa: NPY002
    mixing = Mixing(Recipe.of({"mixup": 1.0}), Problem.of([0, 1]))
    # Each image shows its weight, and so the mixture shows what its weight should be.
    images = torch.tensor([1.0, 3.0, 5.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    x, _, weights = mixing(images, torch.tensor([0, 1, 1]), torch.tensor([1.0, 3.0, 5.0]))
    assert torch.allclose(x[:, 0, 0, 0], weights, atol=1e-5)


class Recording(torch.optim.SGD):
    def __init__(self, params: Any, lr: float, **more: Any) -> None:
        self.more = more
        super().__init__(params, lr, **more)


@pytest.mark.parametrize("opt", [torch.optim.RMSprop, torch.optim.Rprop, Recording])
def test_a_custom_optimizer_receives_the_arguments_that_it_accepts(opt: type[torch.optim.Optimizer]) -> None:
    network = build_network("test_resnet", 3, pretrained=False)
    recipe = Recipe.of({"opt": opt, "lr": 0.5, "weight_decay": 0.25, "output_lr_mult": 2.0})
    optimizer = make_optimizer(network, recipe)
    assert type(optimizer) is opt
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.25}
    assert {group["lr_scale"] for group in optimizer.param_groups} == {1.0, 2.0} or recipe.starts_pretrained
    if opt is torch.optim.RMSprop:
        assert optimizer.param_groups[0]["momentum"] == 0.9


def test_a_class_that_is_not_an_optimizer_is_refused() -> None:
    network = build_network("test_resnet", 3, pretrained=False)
    with pytest.raises(HyperparameterError, match="made 5 of type int"):
        make_optimizer(network, Recipe.of({"opt": lambda groups: 5}))


def test_learning_rate_factors_require_a_known_classifier_layer() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    recipe = {"net": network, "pretrained": True}
    assert {group["lr_scale"] for group in make_optimizer(network, Recipe.of(recipe)).param_groups} == {1.0}
    with pytest.raises(HyperparameterError, match="custom network Sequential"):
        make_optimizer(network, Recipe.of({**recipe, "transfer_lr_mult": 0.1}))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "momentum", "adagrad", "lookahead_adamw"])
def test_fused_steps_change_weights_as_unfused_ones(name: str) -> None:
    torch.manual_seed(0)
    network = build_network("test_resnet", 3, pretrained=False).train()
    other = copy.deepcopy(network)
    optimizer, plain = (
        make_optimizer(network, Recipe.of({"opt": name})),
        make_optimizer(other, Recipe.of({"opt": name})),
    )
    assert all(group["fused"] for group in plain.param_groups)
    for group in plain.param_groups:
        group["fused"] = False
    x_BCHW = torch.randn(4, 3, 32, 32)
    for _ in range(3):
        for one, each in ((network, optimizer), (other, plain)):
            each.zero_grad()
            one(x_BCHW).square().sum().backward()
            each.step()
    for parameter, like in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, like, rtol=1e-3, atol=1e-5)


def test_optimizers_without_a_fused_step_are_made() -> None:
    network = build_network("test_resnet", 3, pretrained=False)
    assert "fused" not in make_optimizer(network, Recipe.of({"opt": "lamb"})).defaults
