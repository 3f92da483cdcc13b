from __future__ import annotations

import pytest
import torch

from saccade.inference.classifier import Classifier
from saccade.numerics.device import Numerics, choose_device
from saccade.tasks.problem import Problem
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.trial.network_costs import latency_ms, network_costs


def classifier(img_size: int) -> Classifier:
    recipe = Recipe(model="test_resnet", pretrained=False, img_size=img_size)
    return new_classifier(recipe, Problem.of(["cat", "dog"]), Numerics(choose_device("cpu")))


def test_larger_images_take_longer_and_a_network_is_measured_once() -> None:
    small, large = latency_ms(classifier(32)), latency_ms(classifier(512))
    assert 0 < small < large
    assert latency_ms(classifier(32)) == small


def test_costs_are_returned_by_name() -> None:
    network = classifier(32)
    costs = network_costs(network, ["num_bytes", "num_params"])
    assert list(costs) == ["num_bytes", "num_params"]
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in network.network.buffers())
    assert costs["num_bytes"] == 4 * costs["num_params"] + buffers
    assert network_costs(network, []) == {}
    with pytest.raises(ValueError, match="unknown cost"):
        network_costs(network, ["weight"])


def test_latency_is_that_of_the_numerics_in_which_predictions_are_made() -> None:
    formats: list[torch.dtype] = []
    network = classifier(48)
    network.network.get_classifier().register_forward_hook(lambda *given: formats.append(given[2].dtype))
    half = Numerics(choose_device("cpu"), torch.bfloat16)
    for inference in (network.numerics, half):
        network.use(network.numerics, inference)
        latency_ms(network)
    assert set(formats) == {torch.float32, torch.bfloat16}
