"""Parts of a batch that are computed side by side give what one pass over the batch gives."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import DropPath
from torch import nn

from saccade.inference.classifier import features_of
from saccade.models.network import build_network
from saccade.numerics.device import Numerics
from saccade.numerics.streams import Forward, computes_by_image, nums_of_streams
from saccade.study.trial import Decision, Job
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.frozen import train_mode
from saccade.training.trial.trainer import Trainer

CPU = Numerics(torch.device("cpu"))
FINE_TUNED = {"pretrained": True, "linear_probe": False, "freeze_bn": True, "lr": 1e-3}


def network_and_batch(num_images: int) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    network[0].weight.requires_grad_(False)
    return network.eval(), torch.randn(num_images, 3, 8, 8)


def gradients(network: nn.Module, forward: Forward, x_BCHW: torch.Tensor) -> dict[str, torch.Tensor | None]:
    network.zero_grad()
    forward(x_BCHW).float().square().mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


@given(num_images=st.integers(1, 9), num_streams=st.integers(2, 5))
def test_outputs_and_gradients_are_those_of_one_stream(num_images: int, num_streams: int) -> None:
    network, x_BCHW = network_and_batch(num_images)
    whole, parts = Forward(network, CPU), Forward(network, replace(CPU, num_streams=num_streams))
    torch.testing.assert_close(parts(x_BCHW), whole(x_BCHW))
    expected, found, again = (gradients(network, forward, x_BCHW) for forward in (whole, parts, parts))
    for name, gradient in expected.items():
        if gradient is None:
            assert name == "0.weight"
            assert found[name] is None
        else:
            torch.testing.assert_close(found[name], gradient)
            assert torch.equal(found[name], again[name])  # type: ignore[arg-type]


def test_parameters_whose_gradient_is_the_same_tensor() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (self.first + self.second)

    network = Sum()
    Forward(network, replace(CPU, num_streams=3))(torch.ones(6, 3)).sum().backward()
    for parameter in network.parameters():
        torch.testing.assert_close(parameter.grad, torch.full((3,), 6.0))


def test_a_stream_is_in_the_mode_of_who_asked_and_in_its_numerics() -> None:
    told: list[tuple[bool, bool, torch.dtype, int]] = []

    class Telling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.linear(x)
            threads = torch.get_num_threads()
            told.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled(), outputs.dtype, threads))
            return outputs

    forward = Forward(Telling(), replace(CPU, dtype=torch.bfloat16, num_streams=2))
    share = max(1, torch.get_num_threads() // 2)
    with torch.inference_mode():
        assert forward(torch.ones(4, 2)).dtype is torch.bfloat16
    assert told == [(True, False, torch.bfloat16, share)] * 2
    told.clear()
    assert forward(torch.ones(4, 2)).requires_grad
    assert told == [(False, True, torch.bfloat16, share)] * 2


def test_other_threads_have_as_many_threads_as_before() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)  # a number that no other test has made streams of
        Forward(nn.Linear(2, 3), replace(CPU, num_streams=3))(torch.ones(6, 2))
        found: list[int] = [torch.get_num_threads()]
        later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert found == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_what_goes_wrong_in_a_stream_is_told() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Forward(nn.Linear(2, 3), replace(CPU, num_streams=2))(torch.ones(4, 5))


def test_images_do_not_depend_on_each_other_unless_statistics_or_chance_come_in() -> None:
    def computes(*modules: nn.Module, train: bool = True) -> bool:
        return computes_by_image(nn.Sequential(*modules).train(train))

    assert computes(nn.Conv2d(3, 4, 3), nn.LayerNorm(4), nn.Dropout(0.0))
    for module in (nn.BatchNorm2d(4), nn.Dropout(0.1), DropPath(0.1), nn.InstanceNorm2d(4, track_running_stats=True)):
        assert not computes(module)
        assert computes(module, train=False)
    assert not computes(nn.BatchNorm2d(4, track_running_stats=False), train=False)


def test_one_thread_is_not_divided() -> None:
    assert nums_of_streams(1) == []
    assert all(1 < num <= num_threads for num_threads in range(2, 40) for num in nums_of_streams(num_threads))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_networks_of_timm_are_fine_tuned_alike(name: str) -> None:
    torch.manual_seed(0)
    size = {"img_size": 32} if "vit" in name else {}
    network = build_network(name, 5, pretrained=False, **size)
    train_mode(network, Recipe(freeze_bn=True))
    x_BCHW = torch.randn(5, 3, 32, 32)
    expected = gradients(network, Forward(network, CPU), x_BCHW)
    found = gradients(network, Forward(network, replace(CPU, num_streams=2)), x_BCHW)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-3, atol=1e-5)


def trained(task: ImageTask, recipe: dict[str, Any], folder: Path, num_streams: int) -> Trainer:
    trainer = Trainer(task, Recipe.of(recipe), folder)
    numerics = replace(trainer.numerics, num_streams=num_streams)
    trainer._use(numerics, numerics)
    trainer.run(Job(0, recipe, str(folder)), lambda _: Decision.CONTINUE)
    return trainer


def test_a_training_in_streams_ends_where_one_without_does(
    make_task: Any, tiny_weights: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    task, recipe = make_task(weights=tiny_weights), {**tiny, **FINE_TUNED, "epochs": 2}
    whole, parts = (trained(task, recipe, tmp_path / str(num), num) for num in (1, 2))
    assert parts.numerics.num_streams == 2
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], tensor, rtol=1e-2, atol=1e-4)


def test_features_are_in_the_order_of_the_images(make_task: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    task = make_task()
    classifier = Trainer(task, Recipe.of(tiny), tmp_path).classifier
    batches = classifier.batches(task.store, task.train.indices, batch_size=7)
    whole = features_of(classifier, batches)
    numerics = replace(classifier.inference, num_streams=3)
    classifier.use(numerics, numerics)
    np.testing.assert_allclose(features_of(classifier, batches), whole, rtol=1e-3, atol=1e-5)
