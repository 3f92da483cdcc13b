from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from saccade.models.network import build_network
from saccade.numerics.bench import Bench, Workload, is_sound
from saccade.numerics.device import Numerics

CPU = torch.device("cpu")
PLAIN, HALF = Numerics(CPU), Numerics(CPU, torch.bfloat16)
TRAINING = Workload("training", "test_resnet", (8, 3, 32, 32))
INFERENCE = replace(TRAINING, purpose="inference")


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return PLAIN.place(build_network("test_resnet", 3, pretrained=False, drop_rate=0.5))


@pytest.mark.parametrize("workload", [TRAINING, INFERENCE], ids=["training", "inference"])
def test_measuring_changes_nothing_of_the_network(network: nn.Module, workload: Workload) -> None:
    before = copy.deepcopy(network)
    modes = [module.training for module in network.modules()]
    bench = Bench(network, workload)
    for numerics in (PLAIN, HALF, replace(PLAIN, channels_last=False)):
        bench.step(numerics)
    bench.clear()
    assert modes == [module.training for module in network.modules()]
    assert all(parameter.grad is None for parameter in network.parameters())
    for (key, tensor), other in zip(network.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), key
        assert tensor.stride() == other.stride(), key


@pytest.mark.parametrize("workload", [TRAINING, INFERENCE], ids=["training", "inference"])
def test_16_bits_and_other_orders_are_sound_for_a_usual_network(network: nn.Module, workload: Workload) -> None:
    network.train(workload is TRAINING)
    bench = Bench(network, workload)
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


@pytest.mark.parametrize("workload", [TRAINING, INFERENCE], ids=["training", "inference"])
@pytest.mark.parametrize(
    ("make", "dtype"), [(Cancelling, torch.bfloat16), (Overflowing, torch.float16)], ids=["cancelling", "overflowing"]
)
def test_what_loses_the_result_is_not_sound(make: type[nn.Module], dtype: torch.dtype, workload: Workload) -> None:
    torch.manual_seed(0)
    bench = Bench(make(), workload)
    reference = bench.step(PLAIN)
    assert is_sound(bench.step(PLAIN), reference)
    assert not is_sound(bench.step(Numerics(CPU, dtype)), reference)


def test_a_head_of_zeros_does_not_hide_what_the_body_computes(network: nn.Module) -> None:
    nn.init.zeros_(network.get_parameter("fc.weight"))
    assert Bench(network, INFERENCE).step(PLAIN)[3].std() > 0


def test_a_part_of_a_batch_has_at_least_two_images_where_the_batch_has(network: nn.Module) -> None:
    network.eval()
    for part, num in ((1.0, 8), (0.5, 4), (0.25, 2), (0.01, 2)):
        assert len(Bench(network, INFERENCE, part).step(PLAIN)[3]) == num
    assert len(Bench(network, replace(INFERENCE, shape=(1, 3, 32, 32)), 0.25).step(PLAIN)[3]) == 1


def test_a_small_batch_can_be_measured_by_part_with_batch_statistics() -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten())
    assert Bench(pooled, replace(TRAINING, shape=(4, 3, 32, 32)), 0.25).step(PLAIN)[2] > 0


def test_a_compiled_network_is_measured_as_such_and_others_are_not(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def compile_(self: nn.Module) -> None:
        self._compiled_call_impl = lambda x: calls.append("compiled") or self.forward(x)

    monkeypatch.setattr(nn.Module, "compile", compile_)
    bench = Bench(network, INFERENCE)
    for numerics in (PLAIN, replace(PLAIN, compiled=True), PLAIN):
        calls.append(str(numerics.compiled))
        bench.step(numerics)
    assert calls == ["False", "True", "compiled", "False"]


def test_what_is_asked_of_the_memory_names_all_that_matters() -> None:
    keys = {
        workload.key(among)
        for workload in (
            TRAINING,
            INFERENCE,
            replace(TRAINING, network="other"),
            replace(TRAINING, shape=(4, 3, 32, 32)),
        )
        for among in ([PLAIN], [PLAIN, HALF])
    }
    assert len(keys) == 8
