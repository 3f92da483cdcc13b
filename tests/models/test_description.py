from __future__ import annotations

import pytest
from torch import nn

from saccade.errors import UnknownModelError
from saccade.models.catalogue import resolve_name
from saccade.models.description import describe_network, kind_of
from saccade.models.published import PUBLISHED_TOP1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet18", "conv"),
        ("efficientnet_b0", "conv"),
        ("convnext_atto", "conv"),
        ("mobilenetv3_small_100", "conv"),
        ("mobilevit_xxs", "hybrid"),
        ("mobilevitv2_075", "hybrid"),
        ("edgenext_xx_small", "hybrid"),
        ("vit_tiny_patch16_224", "transformer"),
        ("swin_tiny_patch4_window7_224", "transformer"),
        ("xcit_nano_12_p8_224", "transformer"),
        ("volo_d1_224", "transformer"),
    ],
)
def test_the_kind_of_a_network(name, kind):
    assert describe_network(name).kind == kind


def test_parameters_are_counted_and_sizes_known():
    network = describe_network("resnet18")
    assert network.num_params == 11_689_512
    assert network.input_size == 224
    assert describe_network("resnet18", img_size=64).input_size == 64
    assert describe_network("edgenext_small").input_size == 256


def test_families_that_were_recorded_are_recognised():
    assert describe_network("tf_efficientnet_b4").family == "efficientnet"
    assert describe_network("convnext_atto").family == "convnext"
    assert describe_network("resnet18").family == "resnet"


def test_the_tag_tells_what_was_learned_before():
    assert describe_network("tf_efficientnet_b4.ns_jft_in1k").pretraining == 2
    assert describe_network("convnext_tiny.fb_in22k_ft_in1k").pretraining == 1
    assert describe_network("resnet18.a1_in1k").pretraining == 0
    assert describe_network("tf_efficientnet_b4.ns_jft_in1k", pretrained=False).pretraining == 0


def test_old_names_are_described_as_what_they_mean():
    assert describe_network("resnet50_v1d") == describe_network("resnet50d")


def test_an_unknown_network_is_an_error():
    with pytest.raises(UnknownModelError):
        describe_network("resnet1888")


def test_published_accuracies_are_of_networks_that_exist():
    for name, top1 in PUBLISHED_TOP1.items():
        assert resolve_name(name) == name
        assert 0.5 < top1 < 0.9


def test_a_module_of_ones_own_has_a_kind():
    assert kind_of(nn.Sequential(nn.Conv2d(3, 4, 3))) == "conv"
    assert kind_of(nn.MultiheadAttention(8, 2)) == "transformer"
