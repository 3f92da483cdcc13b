from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from saccade.errors import HyperparameterError
from saccade.study.trial import Decision, Job
from saccade.study.trial_files import LocalTrialFiles
from saccade.training.recipes.lora import add_updates, merged_weights
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.trainer import Trainer
from saccade.training.trial_files import BEST


def test_only_updates_and_the_classifier_layer_are_trained() -> None:
    plain = timm.create_model("test_vit", num_classes=3).eval()
    network = copy.deepcopy(plain)
    add_updates(network, rank=2)
    x_BCHW = torch.rand(2, 3, 160, 160)
    assert torch.equal(network(x_BCHW), plain(x_BCHW))
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if "parametrizations" not in name} == {"head.weight", "head.bias"}
    assert sum(network.get_parameter(name).numel() for name in trained) < 0.1 * sum(
        parameter.numel() for parameter in plain.parameters()
    )

    optimizer = torch.optim.SGD([parameter for parameter in network.parameters() if parameter.requires_grad], lr=0.5)
    for _ in range(2):  # `up` starts at 0, so `down` has a gradient from the second step on
        optimizer.zero_grad()
        network(x_BCHW)[:, 0].sum().backward()
        optimizer.step()
    merged = merged_weights(network)
    assert list(merged.keys() ^ plain.state_dict().keys()) == []
    assert not torch.equal(merged["blocks.0.attn.qkv.weight"], plain.state_dict()["blocks.0.attn.qkv.weight"])
    plain.load_state_dict(merged)
    assert torch.equal(plain(x_BCHW), network(x_BCHW))


def test_weights_without_updates_are_those_of_the_network() -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    assert merged_weights(network).keys() == network.state_dict().keys()


def test_networks_without_linear_layers_are_refused() -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    with pytest.raises(HyperparameterError, match=r"lora_rank=4 .* resnet18 has none besides its classifier layer"):
        add_updates(network, 4, "resnet18")


def test_a_trial_saves_the_weights_of_the_plain_network(make_task: Callable[..., ImageTask], tmp_path: Path) -> None:
    task = make_task(costs=["num_params", "num_bytes"])
    recipe = Recipe.of(
        {"model": "test_vit", "pretrained": False, "img_size": 160, "epochs": 1, "lr": 1e-2, "lora_rank": 64}
    )
    trainer = Trainer(task, recipe, LocalTrialFiles(tmp_path))
    reports = []
    trainer.run(Job(0, {}), lambda event: reports.append(event) or Decision.CONTINUE)
    plain = timm.create_model("test_vit", num_classes=task.problem.num_outputs)
    path = LocalTrialFiles(tmp_path).get(0, BEST, 1)
    plain.load_state_dict(load_file(path))
    sizes = [parameter.numel() for parameter in plain.parameters()]
    assert reports[0].metrics["num_params"] == sum(sizes)
    assert reports[0].metrics["num_bytes"] == 4 * sum(sizes)
