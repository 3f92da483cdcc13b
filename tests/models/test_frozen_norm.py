from __future__ import annotations

import copy

import pytest
import torch
from tests.models.test_batch_norm_folding import Shared, with_statistics
from torch import nn

from saccade.models.frozen_norm import leave_norms_to_convolutions
from saccade.models.network import build_network


def frozen(name: str) -> nn.Module:
    """A network in training whose normalisation does not learn statistics."""
    network = with_statistics(build_network(name, 3, pretrained=False)).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    x_BCHW, y = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    network.zero_grad()
    nn.functional.cross_entropy(network(x_BCHW), y).backward()
    return {
        name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None
    }


@pytest.mark.parametrize("name", ["resnet18", "tf_mobilenetv3_small_100", "regnetx_002"])
def test_all_parameters_get_the_same_gradients(name: str) -> None:
    network = frozen(name)
    expected, names, kinds = gradients(network), list(network.state_dict()), {type(m) for m in network.modules()}
    modes = [module.training for module in network.modules()]
    assert leave_norms_to_convolutions(network, 1000, 3, 64)
    assert {type(module) for module in network.modules()} != kinds
    assert [module.training for module in network.modules()] == modes
    assert list(network.state_dict()) == names
    found = gradients(network)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(found[key], gradient, rtol=5e-3, atol=5e-3 * size + 1e-5, msg=key)


def test_normalisation_that_learns_statistics_again_does_so() -> None:
    network, plain = frozen("resnet18"), frozen("resnet18")
    plain.load_state_dict(network.state_dict())
    assert leave_norms_to_convolutions(network, 1000, 3, 64)
    torch.manual_seed(0)
    x_BCHW = torch.randn(4, 3, 64, 64)
    expected, found = plain.train()(x_BCHW), network.train()(x_BCHW)
    torch.testing.assert_close(found, expected)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(network.state_dict()[key], value)
    assert not torch.equal(found, network.eval()(x_BCHW))
    torch.testing.assert_close(network(x_BCHW), plain.eval()(x_BCHW), rtol=1e-3, atol=1e-3)


def test_a_copy_is_one_by_itself() -> None:
    network = frozen("resnet18")
    assert leave_norms_to_convolutions(network, 1000, 3, 64)
    torch.manual_seed(0)
    x_BCHW = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected, copied = network(x_BCHW), copy.deepcopy(network)
        for parameter in network.parameters():
            parameter.zero_()
        torch.testing.assert_close(copied(x_BCHW), expected)


def test_what_learns_statistics_or_has_none_is_left_alone() -> None:
    assert not leave_norms_to_convolutions(build_network("resnet18", 3, pretrained=False).train(), 1000, 3, 64)
    assert not leave_norms_to_convolutions(build_network("test_vit", 3, pretrained=False).eval(), 1000, 3, 160)
    twice = frozen("resnet18")
    assert leave_norms_to_convolutions(twice, 1000, 3, 64)
    assert not leave_norms_to_convolutions(twice, 1000, 3, 64)  # there is nothing left to do


def test_where_there_is_more_to_scale_than_to_normalise_all_stays_as_it_is() -> None:
    network = frozen("resnet18")
    assert leave_norms_to_convolutions(network, 1, 3, 64)
    kinds = [type(module) for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert kinds[0] is not nn.BatchNorm2d  # of many pixels
    assert kinds[-1] is nn.BatchNorm2d  # of 2 by 2


def test_what_would_change_is_taken_back() -> None:
    network = with_statistics(Shared()).eval()
    x_BCHW = torch.randn(2, 3, 16, 16)
    expected, kinds = network(x_BCHW), [type(module) for module in network.modules()]
    assert not leave_norms_to_convolutions(network, 1000, 3, 16)
    assert [type(module) for module in network.modules()] == kinds
    assert torch.equal(network(x_BCHW), expected)
    assert "norm_after" not in vars(network.once)
