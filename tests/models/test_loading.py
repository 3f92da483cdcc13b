from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from saccade.models import network as network_module
from saccade.models.loading import MAX_CALLS, RandomValuesNeededError, SkipInit
from saccade.models.network import build_network, classifier_parameters

NETWORKS = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"]


DRAWS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    nn.init.normal_, nn.init.uniform_, nn.init.trunc_normal_, nn.init.kaiming_normal_, nn.init.kaiming_uniform_,
    nn.init.xavier_uniform_, timm.layers.trunc_normal_, timm.layers.lecun_normal_, torch.Tensor.normal_,
]  # fmt: skip


@given(draw=st.sampled_from(DRAWS))
def test_random_initialisation_gives_zeros_and_draws_no_random_numbers(
    draw: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    weight = nn.Parameter(torch.ones(3, 4))
    state = torch.get_rng_state()
    with SkipInit() as skipped, torch.no_grad():
        draw(weight)
    assert not weight.any()
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(RandomValuesNeededError, match="weight"):
        skipped.check([("weight", weight)])


def test_other_functions_and_other_threads_are_unchanged() -> None:
    with SkipInit() as skipped:
        kept = [nn.init.ones_(torch.empty(2)), nn.init.constant_(torch.empty(2), 3.0), nn.init.eye_(torch.empty(2, 2))]
        kept.append(torch.randn(2))
        thread = threading.Thread(target=lambda: kept.append(torch.zeros(2).uniform_(1, 2)))
        thread.start()
        thread.join()
    assert all(tensor.any() for tensor in kept)
    skipped.check(("kept", tensor) for tensor in kept)
    assert torch.zeros(2).uniform_(1, 2).all()


def test_rejection_sampling_raises_an_error() -> None:
    def wait(tensor: torch.Tensor) -> None:
        for _ in range(MAX_CALLS + 1):
            tensor.normal_()

    with pytest.raises(RandomValuesNeededError, match="draws until"), SkipInit():
        wait(torch.empty(2))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pretrained_network_is_the_same_but_for_its_head_which_is_zero(
    name: str, write_weights: Callable[..., Path]
) -> None:
    file = write_weights(name)
    drawn = build_network(name, 3, weights_file=file)
    quick = build_network(name, 3, weights_file=file, random_start=False)
    head = classifier_parameters(quick)
    plain = dict(drawn.state_dict())
    for key, tensor in quick.state_dict().items():
        assert torch.equal(tensor, torch.zeros_like(tensor) if key in head else plain[key]), key
    for (key, buffer), (_, other) in zip(quick.named_buffers(), drawn.named_buffers(), strict=True):
        assert torch.equal(buffer, other), key
    assert quick.training


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_is_loaded_afterwards_has_the_right_outputs(name: str) -> None:
    drawn = build_network(name, 3, pretrained=False)
    quick = build_network(name, 3, pretrained=False, random_start=False)
    quick.load_state_dict(drawn.state_dict())
    images = torch.randn(2, 3, 160, 160)
    assert torch.equal(quick.eval()(images), drawn.eval()(images))


class WithRandomBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.register_buffer("noise", torch.empty(8).normal_(), persistent=False)
        self.pretrained_cfg = {"classifier": "fc"}

    def get_classifier(self) -> nn.Module:
        return self.fc


def test_a_network_with_random_buffers_outside_its_state_is_built_with_random_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network_module, "_create", lambda *_, **__: WithRandomBuffer())
    network = build_network("test_resnet", 3, pretrained=False, random_start=False)
    assert network.get_buffer("noise").any()
    assert network.get_parameter("fc.weight").any()
