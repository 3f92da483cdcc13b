from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from saccade.data.batches import Batches
from saccade.errors import DataError, HyperparameterError, UnknownNameError
from saccade.inference.classifier import Blueprint, Classifier
from saccade.insight.saliency import SaliencyMapper, target_numbers
from saccade.insight.spatial_layers import Layout, last_spatial_layer
from saccade.models.network import InputSpec
from saccade.numerics.device import Numerics
from saccade.tasks.problem import Problem

SIDE, PATCH = 32, 8
CHANCE = (PATCH / SIDE) ** 2

# One network for each way in which timm lays out its spatial layers, as small as its constructor allows, and its side.
FAMILIES: dict[str, tuple[int, dict[str, Any]]] = {
    "test_resnet": (SIDE, {}),
    "test_efficientnet": (SIDE, {}),
    "test_convnext": (SIDE, {}),
    "test_nfnet": (SIDE, {}),
    "test_mambaout": (SIDE, {}),
    "test_vit": (SIDE, {"img_size": SIDE, "patch_size": 4}),
    "swin_tiny_patch4_window7_224": (
        SIDE,
        {"img_size": SIDE, "patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": (1, 1), "num_heads": (2, 4)},
    ),
    "deit_tiny_distilled_patch16_224": (SIDE, {"img_size": SIDE, "patch_size": 4, "depth": 2, "embed_dim": 24}),
    "cait_xxs24_224": (SIDE, {"img_size": SIDE, "patch_size": 4, "depth": 1, "embed_dim": 24, "num_heads": 2}),
    "mobilenetv3_small_050": (64, {}),
    "pvt_v2_b0": (64, {"depths": (1, 1, 1, 1)}),
    "levit_128s": (64, {"img_size": 64, "depth": (1, 1, 1)}),
    "maxvit_rmlp_pico_rw_256": (64, {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dim": (32, 32, 32, 32)}),
    "densenet121": (64, {"block_config": (1, 1, 1, 1)}),
    "xcit_nano_12_p16_224": (64, {"img_size": 64, "depth": 2}),
    "edgenext_xx_small": (64, {}),
    "efficientformer_l1": (224, {"depths": (1, 1, 1, 2), "embed_dims": (8, 16, 24, 32)}),
    "mobilevit_xxs": (64, {}),
    "poolformer_s12": (64, {}),
    "eva02_tiny_patch14_224": (56, {"img_size": 56, "depth": 2}),
    "hiera_tiny_224": (64, {"img_size": (64, 64), "embed_dim": 24, "stages": (1, 1, 1, 1)}),
    "vgg11": (64, {"mlp_ratio": 1 / 64}),
}


def patches(num: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return noise images with a patch whose colour is the class, the classes, and the top left corners."""
    rng = np.random.default_rng(seed)
    classes, corners = rng.integers(2, size=num), rng.integers(SIDE - PATCH + 1, size=(num, 2))
    images = rng.integers(60, 120, (num, SIDE, SIDE, 3)).astype(np.uint8)
    for image, number, (top, left) in zip(images, classes, corners, strict=True):
        image[top : top + PATCH, left : left + PATCH] = (230, 60, 60) if number else (60, 60, 230)
    return images, classes, corners


def classifier_of(network: nn.Module, side: int = SIDE) -> Classifier:
    spec = InputSpec(side, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
    return Classifier(Blueprint("a_network", spec), Problem.of(["a", "b"]), network, Numerics(torch.device("cpu")))


def trained(network: nn.Module, lr: float, num_epochs: int = 5) -> Classifier:
    classifier = classifier_of(network)
    images, classes, _ = patches(320, seed=0)
    optimizer = torch.optim.AdamW(network.parameters(), lr)
    batches = classifier.batches(list(images), np.arange(len(images)), classes, batch_size=32)
    network.train()
    for _ in range(num_epochs):
        for x_BCHW, y in batches.in_order():
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x_BCHW), y).backward()
            optimizer.step()
    return classifier


def saliency_maps(
    classifier: Classifier, batches: Batches, targets: np.ndarray | None = None, method: str = "auto"
) -> np.ndarray:
    """Return the maps of all images, for the predicted classes by default."""
    mapper = SaliencyMapper(classifier.predict(batches).argmax(1) if targets is None else targets, method)
    return np.concatenate([mapper(classifier, x_BCHW) for x_BCHW, *_ in batches.in_order()])


def mass_on_patches(maps: np.ndarray, corners: np.ndarray) -> float:
    """Return the fraction of the maps on the patches, `CHANCE` for a uniform map."""
    on_patch = [
        map_HW[top : top + PATCH, left : left + PATCH].sum() for map_HW, (top, left) in zip(maps, corners, strict=True)
    ]
    return float(np.mean(on_patch / np.maximum(maps.sum((1, 2)), 1e-9)))


def multilayer_perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 32), nn.ReLU(), nn.Linear(32, 2))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "convolutions": (lambda: timm.create_model("test_resnet", num_classes=2), 3e-3),
    "transformer with a class token": (
        lambda: timm.create_model("test_vit", num_classes=2, img_size=SIDE, patch_size=4, depth=2), 1e-3,
    ),
    "transformer without": (
        lambda: timm.create_model(
            "test_vit", num_classes=2, img_size=SIDE, patch_size=4, depth=2, global_pool="avg", class_token=False
        ), 1e-3,
    ),
    "no spatial layer": (multilayer_perceptron, 1e-3),
}  # fmt: skip


@pytest.mark.parametrize("kind", NETWORKS)
def test_maps_cover_the_region_that_determines_the_class(kind: str) -> None:
    torch.manual_seed(0)
    make, lr = NETWORKS[kind]
    classifier = trained(make(), lr)
    images, classes, corners = patches(32, seed=1)
    batches = classifier.batches(list(images), np.arange(len(images)))
    predicted = classifier.predict(batches).argmax(1)
    assert (predicted == classes).mean() > 0.9
    maps = saliency_maps(classifier, batches)
    assert maps.shape == (32, SIDE, SIDE)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() == 1
    assert mass_on_patches(maps, corners) > 3 * CHANCE


def run_all_methods(network: nn.Module, side: int) -> None:
    """Check that each method gives maps that are not empty, after a prediction has filled the caches."""
    classifier = classifier_of(network, side)
    if isinstance(classifier.head, nn.Linear):
        nn.init.normal_(classifier.head.weight, std=0.1)  # zero in some families
    images = np.random.default_rng(0).integers(0, 255, (2, side, side, 3)).astype(np.uint8)
    batches = classifier.batches(list(images), np.arange(2))
    before = classifier.predict(batches)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    averaged = saliency_maps(classifier, batches, method="grad_cam")  # 0 where the mean gradients are negative
    for method in ("hires_cam", "auto"):
        maps = saliency_maps(classifier, batches, method=method)
        assert maps.shape == averaged.shape == (2, side, side)
        assert np.isfinite(maps).all()
        assert (maps.max((1, 2)) == 1).all() or (method != "hires_cam" and np.array_equal(maps, averaged))
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert np.array_equal(classifier.predict(batches), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_methods_work_for_each_layout(name: str) -> None:
    torch.manual_seed(0)
    side, arguments = FAMILIES[name]
    run_all_methods(timm.create_model(name, num_classes=2, **arguments), side)


def test_the_last_spatial_layer_is_not_bypassed() -> None:
    """A convolution in a residual branch is bypassed by the skip connection."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
            self.head = nn.Linear(8, 2)

        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            x_BCHW = self.stem(x_BCHW)
            return self.head((x_BCHW + self.branch(x_BCHW)).mean((2, 3)))

    torch.manual_seed(0)
    layer = last_spatial_layer(Residual().eval(), torch.rand(1, 3, SIDE, SIDE), lambda outputs: outputs[:, 0])
    assert layer is not None
    assert layer.name == "stem"


def test_maps_depend_on_the_target() -> None:
    torch.manual_seed(0)
    classifier = classifier_of(timm.create_model("test_resnet", num_classes=2))
    images, *_ = patches(3, seed=0)
    batches = classifier.batches(list(images), np.arange(3), batch_size=2)
    for_a, for_b = (saliency_maps(classifier, batches, np.full(3, number)) for number in (0, 1))
    assert not np.allclose(for_a, for_b)
    mixed = saliency_maps(classifier, batches, np.array([0, 0, 1]), "hires_cam")
    whole = [saliency_maps(classifier, batches, np.full(3, number), "hires_cam") for number in (0, 1)]
    assert np.allclose(mixed[:2], whole[0][:2], atol=1e-5)
    assert np.allclose(mixed[2], whole[1][2], atol=1e-5)


def test_a_network_without_spatial_layer_supports_only_smooth_grad() -> None:
    classifier = classifier_of(multilayer_perceptron())
    images, *_ = patches(2, seed=0)
    batches = classifier.batches(list(images), np.arange(2))
    with pytest.raises(HyperparameterError, match="use method='smooth_grad'"):
        saliency_maps(classifier, batches, method="grad_cam")
    with pytest.raises(UnknownNameError, match="Did you mean 'grad_cam'"):
        saliency_maps(classifier, batches, method="gradcam")


def test_targets_are_labels_or_names_for_all_or_for_each() -> None:
    problem = Problem.of([3, 5, 7])
    names = ["cat", "cow", "dog"]
    assert target_numbers(None, problem, names, 2) is None
    for target in (5, "cow", [5, 5], np.array([5, 5]), ["cow", 5]):
        found = target_numbers(target, problem, names, 2)
        assert found is not None
        assert found.tolist() == [1, 1]
    with pytest.raises(UnknownNameError, match="Did you mean 'cow'"):
        target_numbers("cows", problem, names, 2)
    with pytest.raises(DataError, match="3 targets were given for 2 images"):
        target_numbers([5, 5, 5], problem, names, 2)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [(Layout("NCHW", 3), (2, 5, 3, 3)), (Layout("NHWC", 3), (2, 3, 3, 5)), (Layout("tokens", 3, 2), (2, 11, 5))],
)
def test_layouts_give_equal_maps(layout: Layout, shape: tuple[int, ...]) -> None:
    assert Layout.of(shape, 2, num_prefix=layout.num_prefix) == layout
    expected = torch.rand(2, 5, 3, 3)
    tensor = {
        "NCHW": expected,
        "NHWC": expected.permute(0, 2, 3, 1),
        "tokens": torch.cat([torch.zeros(2, 2, 5), expected.flatten(2).transpose(1, 2)], 1),
    }[layout.kind]
    assert torch.equal(layout.as_maps(tensor), expected)
