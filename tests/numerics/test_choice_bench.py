from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from saccade.models.network import build_network
from saccade.numerics.choice import Bench, is_sound
from saccade.numerics.device import Numerics

CPU = torch.device("cpu")
PLAIN, HALF = Numerics(CPU), Numerics(CPU, torch.bfloat16)
SHAPE = (8, 3, 32, 32)
both = pytest.mark.parametrize("is_training", [True, False], ids=["training", "inference"])


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return PLAIN.place(build_network("test_resnet", 3, pretrained=False, drop_rate=0.5))


@both
def test_measuring_does_not_change_the_network(network: nn.Module, is_training: bool) -> None:
    before = copy.deepcopy(network)
    modes = [module.training for module in network.modules()]
    bench = Bench(network, is_training, SHAPE)
    for numerics in (PLAIN, HALF, replace(PLAIN, channels_last=False)):
        bench.step(numerics)
    bench.clear()
    assert modes == [module.training for module in network.modules()]
    assert all(parameter.grad is None for parameter in network.parameters())
    for (key, tensor), other in zip(network.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), key
        assert tensor.stride() == other.stride(), key


@both
def test_16_bits_and_channels_last_are_sound_for_common_networks(network: nn.Module, is_training: bool) -> None:
    network.train(is_training)
    bench = Bench(network, is_training, SHAPE)
    reference = bench.step(PLAIN)
    for numerics in (PLAIN, HALF, replace(PLAIN, channels_last=False), replace(HALF, channels_last=False)):
        assert is_sound(bench.step(numerics), reference), str(numerics)


class Cancelling(nn.Module):
    """Computes small differences of large numbers, for which 16 bits are too few."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, 4)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.fc(x_BCHW.flatten(1))
        return outputs + 3000.0 - 3000.0


class Overflowing(Cancelling):
    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return 1e-4 * (1e6 * super().forward(x_BCHW) + 1e6)


@both
@pytest.mark.parametrize(
    ("make", "dtype"), [(Cancelling, torch.bfloat16), (Overflowing, torch.float16)], ids=["cancelling", "overflowing"]
)
def test_wrong_results_are_not_sound(make: type[nn.Module], dtype: torch.dtype, is_training: bool) -> None:
    torch.manual_seed(0)
    bench = Bench(make(), is_training, SHAPE)
    reference = bench.step(PLAIN)
    assert is_sound(bench.step(PLAIN), reference)
    assert not is_sound(bench.step(Numerics(CPU, dtype)), reference)


def test_a_zero_head_is_replaced_so_that_backbone_errors_show(network: nn.Module) -> None:
    nn.init.zeros_(network.get_parameter("fc.weight"))
    assert Bench(network, False, SHAPE).step(PLAIN)[3].std() > 0
