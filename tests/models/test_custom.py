from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

from saccade import Categorical
from saccade.errors import HyperparameterError
from saccade.models.network import CustomObject, build_custom_network, wrap_custom_objects
from saccade.space.base import canonical_key
from saccade.training.recipes.recipe import Recipe, recipe_space


class Net(nn.Module):
    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.norm(self.body(x)).mean((2, 3)))
        return out


def wide(num_classes: int) -> nn.Module:
    return Net(num_classes, 8)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (Net, "Net"),
        (Net(2), "Net"),
        (wide, "wide"),
        (functools.partial(Net, width=2), "Net"),
        (lambda n: n, "<lambda>"),
    ],
)
def test_custom_objects_print_as_a_short_name(part: Any, name: str) -> None:
    assert repr(CustomObject(part)) == name


def test_choices_of_custom_objects_print_as_short_names() -> None:
    space = recipe_space({"net": Categorical(Net, "test_resnet", wide), "optimizer": torch.optim.SGD})
    assert repr(space) == "Dict(model=Categorical(Net, 'test_resnet', wide), opt=SGD)"
    assert space.sample(0).keys() == {"model", "opt"}
    assert canonical_key(CustomObject(Net)) == canonical_key(CustomObject(Net)) != canonical_key(CustomObject(wide))


def test_only_callables_are_wrapped_and_only_once() -> None:
    wrapped = wrap_custom_objects({"model": Net, "opt": "sgd", "train_transform": None, "lr": 0.1})
    assert wrapped == {"model": CustomObject(Net), "opt": "sgd", "train_transform": None, "lr": 0.1}
    assert wrap_custom_objects(wrapped) == wrapped


@pytest.mark.parametrize("own", [Net, wide, functools.partial(Net, width=2)])
def test_a_factory_gets_the_number_of_outputs(own: Any) -> None:
    network = build_custom_network(CustomObject(own), 5, img_size=16)
    assert network.last.out_features == 5
    assert network.training
    assert not network.norm.running_mean.any()  # the black image left no trace


def test_a_module_is_copied_for_each_trial() -> None:
    net = Net(3)
    first, second = (build_custom_network(CustomObject(net), 3, img_size=16) for _ in range(2))
    assert first is not net
    with torch.no_grad():
        first.last.weight.zero_()
    assert torch.equal(second.last.weight, net.last.weight)
    assert net.last.weight.any()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (Net(7), r"custom network Net turns one image of 16 x 16 pixels into \(1, 7\); expected .* \(1, 3\)"),
        (nn.Conv2d(3, 3, 3), r"into \(1, 3, 14, 14\)"),
        (lambda num_classes: num_classes, r"made 3 of type int; expected a function f\(num_classes\)"),
    ],
)
def test_objects_that_do_not_make_a_network_of_these_outputs_are_errors(own: Any, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        build_custom_network(CustomObject(own), 3, img_size=16)


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"net": 5}, "expected a name, a torch.nn.Module, or a function"),
        ({"opt": torch.optim.SGD(Net(2).parameters())}, "a class, not an optimizer of some network"),
        ({"transform": "flip"}, "expected a transform"),
        ({"in_chans": 2}, "in_chans"),
        ({"in_chans": 4, "color_jitter": 0.3}, "fourth channel"),
        ({"class_weight": "balance"}, "expected 'balanced', a dict"),
        ({"class_weight": "balanced", "balanced_sampling": True}, "balance twice"),
    ],
)
def test_invalid_custom_objects_are_refused_before_training(hyperparameters: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        recipe_space(hyperparameters)


def test_a_custom_network_is_pretrained_only_if_declared() -> None:
    assert Recipe().starts_pretrained
    assert not Recipe.of({"net": Net}).starts_pretrained
    assert Recipe.of({"net": Net, "pretrained": True}).starts_pretrained
    assert not Recipe.of({"pretrained": False}).starts_pretrained
