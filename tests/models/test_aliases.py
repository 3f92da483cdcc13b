from __future__ import annotations

import pytest
import timm
import torch

from saccade.models.catalogue import ALIASES, UNAVAILABLE


@pytest.mark.parametrize("old_name", sorted(ALIASES))
def test_every_alias_means_an_architecture_of_timm(old_name: str) -> None:
    assert ALIASES[old_name] in timm.list_models()


@pytest.mark.parametrize("old_name", sorted(UNAVAILABLE))
def test_networks_near_an_unavailable_one_are_in_timm(old_name: str) -> None:
    assert UNAVAILABLE[old_name]
    assert set(UNAVAILABLE[old_name]) <= set(timm.list_models())


def test_old_names_are_unambiguous_and_hide_no_network_of_timm() -> None:
    assert not ALIASES.keys() & UNAVAILABLE.keys()
    assert not (ALIASES.keys() | UNAVAILABLE.keys()) & set(timm.list_models())


def test_names_are_lower_case() -> None:
    names = [*ALIASES, *UNAVAILABLE]
    assert names == [name.lower() for name in names]


def build_without_memory(old_name: str) -> torch.nn.Module:
    with torch.device("meta"):
        network: torch.nn.Module = timm.create_model(ALIASES.get(old_name, old_name))
    return network


@pytest.mark.parametrize("old_name", ["resnet50_v1b", "resnet50_v1c", "resnet50_v1d", "resnet50_v1s"])
def test_v1b_and_later_have_the_stride_in_the_3x3_convolution(old_name: str) -> None:
    block = build_without_memory(old_name).layer2[0]  # type: ignore[index, union-attr]
    assert block.conv1.stride == (1, 1)
    assert block.conv2.stride == (2, 2)


@pytest.mark.parametrize(
    ("old_name", "stem_width", "pools_shortcut"),
    [("resnet50_v1c", 32, False), ("resnet50_v1d", 32, True), ("resnet50_v1s", 64, False)],
)
def test_deep_stems_have_the_width_of_their_letter(old_name: str, stem_width: int, pools_shortcut: bool) -> None:
    network = build_without_memory(old_name)
    assert network.conv1[0].out_channels == stem_width  # type: ignore[index, union-attr]
    shortcut = network.layer2[0].downsample  # type: ignore[index, union-attr]
    assert any(isinstance(part, torch.nn.AvgPool2d) for part in shortcut) == pools_shortcut


@pytest.mark.parametrize(
    ("old_name", "millions_of_parameters"),
    [  # as the papers and the old zoo state them
        ("resnet18_v1", 11.7),
        ("mobilenet1.0", 4.2),
        ("mobilenetv2_1.0", 3.5),
        ("mobilenetv3_small", 2.5),
        ("mobilenetv3_large", 5.5),
        ("se_resnext50_32x4d", 27.6),
        ("resnest50", 27.5),
        ("hrnet_w18_c", 21.3),
        ("inceptionv3", 23.8),
        ("xception", 39.9),
        ("darknet53", 41.6),
        ("nasnet_6_4032", 88.8),
    ],
)
def test_sizes_are_the_published_ones(old_name: str, millions_of_parameters: float) -> None:
    network = build_without_memory(old_name)
    found = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert found == pytest.approx(millions_of_parameters, rel=0.02)
