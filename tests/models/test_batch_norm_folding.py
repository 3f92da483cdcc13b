from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from saccade.models.batch_norm_folding import fold_batch_norm
from saccade.models.network import build_network


def with_statistics(network: nn.Module) -> nn.Module:
    """Give each normalisation statistics and factors that matter."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            assert module.running_mean is not None
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_()
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return network


def num_normalisations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", ["resnet18", "tf_mobilenetv3_small_100", "regnetx_002", "efficientnet_b0"])
def test_a_folded_network_has_the_same_outputs_and_no_batch_norm(name: str) -> None:
    network = with_statistics(build_network(name, 3, pretrained=False))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    made = fold_batch_norm(network, 3, 64)
    assert made is not None
    assert num_normalisations(made) == 0 < num_normalisations(network)
    x_BCHW = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        expected, found = network(x_BCHW), made(x_BCHW)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    after = network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_network_without_batch_norm_is_not_folded() -> None:
    assert fold_batch_norm(build_network("test_vit", 3, pretrained=False), 3, 160) is None


class Shared(nn.Module):
    """A convolution whose outputs are normalised twice, and one that is used with them and without."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.once = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(4), BatchNormAct2d(4), nn.BatchNorm2d(4)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        made = self.bn1(self.twice(x_BCHW)) + self.bn2(self.twice(x_BCHW.flip(3)))
        here = self.once(made)
        outputs: torch.Tensor = (self.bn3(here) + here).mean((2, 3))
        return outputs


def test_layers_with_other_uses_are_not_folded() -> None:
    assert fold_batch_norm(with_statistics(Shared()), 3, 16) is None


class Looks(nn.Sequential):
    """A network whose forward pass reads an attribute of a layer."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = super().forward(x_BCHW).mean((2, 3)) * self[1].eps
        return outputs


def test_a_network_that_requires_its_layers_is_not_folded() -> None:
    network = with_statistics(Looks(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    assert fold_batch_norm(network, 3, 16) is None
    assert network(torch.zeros(1, 3, 16, 16)).shape == (1, 4)


def test_folding_does_not_change_the_global_random_state() -> None:
    network = build_network("test_resnet", 2, pretrained=False, in_chans=1)
    state = torch.get_rng_state()
    assert fold_batch_norm(network, 1, 32) is not None
    assert torch.equal(torch.get_rng_state(), state)  # what a trial draws does not depend on it
