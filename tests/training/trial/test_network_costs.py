from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from saccade.inference.classifier import Classifier, features_of
from saccade.numerics.device import Numerics, choose_device
from saccade.tasks.problem import Problem
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.trial.network_costs import network_costs


def classifier(img_size: int) -> Classifier:
    recipe = Recipe(model="test_resnet", pretrained=False, img_size=img_size)
    return new_classifier(recipe, Problem.of(["cat", "dog"]), Numerics(choose_device("cpu")))


def costs_of(classifier: Classifier, *names: str) -> dict[str, float]:
    side = classifier.blueprint.input.img_size
    photos = [np.zeros((side, side, 3), np.uint8)] * 3
    return network_costs(classifier, names, classifier.batches(photos, np.arange(3)))


@pytest.mark.parametrize("name", ["image_ms", "latency_ms"])
def test_larger_images_take_longer_and_a_network_is_measured_once(name: str) -> None:
    small, large = costs_of(classifier(32), name)[name], costs_of(classifier(512), name)[name]
    assert 0 < small < large
    assert costs_of(classifier(32), name)[name] == small


def test_the_pass_of_a_probe_measures_the_throughput() -> None:
    network = classifier(40)
    photos = [np.zeros((40, 40, 3), np.uint8)] * 80
    batches = network.batches(photos, np.arange(80))
    features_of(network, batches)
    assert network.image_s == math.inf  # batch norm is not folded, as in predictions
    network.fuse()
    features_of(network, batches)
    assert costs_of(network, "image_ms") == {"image_ms": 1000 * network.image_s}


def test_costs_are_returned_by_name() -> None:
    network = classifier(32)
    costs = costs_of(network, "num_bytes", "num_params")
    assert list(costs) == ["num_bytes", "num_params"]
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in network.network.buffers())
    assert costs["num_bytes"] == 4 * costs["num_params"] + buffers
    assert costs_of(network) == {}
    with pytest.raises(ValueError, match="unknown cost"):
        costs_of(network, "weight")


def test_latency_is_that_of_the_numerics_in_which_predictions_are_made() -> None:
    formats: list[torch.dtype] = []
    network = classifier(48)
    network.network.get_classifier().register_forward_hook(lambda *given: formats.append(given[2].dtype))
    half = Numerics(choose_device("cpu"), torch.bfloat16)
    for inference in (network.numerics, half):
        network.use(network.numerics, inference)
        costs_of(network, "latency_ms")
    assert set(formats) == {torch.float32, torch.bfloat16}
