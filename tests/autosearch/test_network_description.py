from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saccade.autosearch import description
from saccade.autosearch.description import describe_module, describe_network, kind_of
from saccade.errors import UnknownModelError, WeightsNotFoundError
from saccade.models.catalogue import published_table, published_top1

# The descriptions of the recorded networks: name, parameters in millions, input size, top-1 in
# percent, pretraining, kind, family.
RECORDED = [
    ("beit_base_patch16_384", 86.7, 384, 86.8, 1, "transformer", "beit"),
    ("convnext_small_384_in22ft1k", 50.2, 384, 85.8, 1, "conv", "convnext"),
    ("deit3_small_patch16_384_in21ft1k", 22.2, 384, 84.8, 1, "transformer", "deit"),
    ("dla46x_c", 1.07, 224, 66.0, 0, "conv", "dla"),
    ("edgenext_small", 5.59, 256, 81.6, 0, "hybrid", "edgenext"),
    ("edgenext_x_small", 2.34, 256, 75.7, 0, "hybrid", "edgenext"),
    ("mobilevit_xxs", 1.27, 256, 68.9, 0, "hybrid", "mobilevit"),
    ("mobilevitv2_075", 2.87, 256, 75.6, 0, "hybrid", "mobilevit"),
    ("swinv2_base_window12to24_192to384_22kft1k", 87.9, 384, 87.1, 1, "transformer", "swin"),
    ("tf_efficientnet_b4_ns", 19.3, 380, 85.2, 2, "conv", "efficientnet"),
    ("volo_d1_384", 26.8, 384, 85.2, 0, "transformer", "volo"),
    ("xcit_nano_12_p8_384_dist", 3.05, 384, 77.8, 0, "transformer", "xcit"),
]

# Names of networks with the tags of weights that are of other origins than timm's.
OF_OTHER_ORIGINS = {
    "mobilenetv1_100.tf_qat_in1k": (4.2, 0.709),
    "mobilenetv2_035.keras_tm_in1k": (1.7, 0.603),
    "mobilenetv2_100.tf2_ptq_in1k": (3.5, 0.718),
    "regnetx_002.ptq_in1k": (2.7, 0.6875),
    "tf_mobilenetv3_small_100.tf_qat_in1k": (2.5, 0.6792),
}


@pytest.mark.parametrize(("name", "params", "size", "top1", "pretraining", "kind", "family"), RECORDED)
def test_recorded_networks_are_described_as_in_the_recordings(
    name: str, params: float, size: int, top1: float, pretraining: int, kind: str, family: str
) -> None:
    network = describe_network(name)
    assert network.num_params / 1e6 == pytest.approx(params, rel=0.02)
    assert network.top1 is not None
    assert 100 * network.top1 == pytest.approx(top1, abs=0.1)
    assert (network.input_size, network.pretraining, network.kind, network.family) == (size, pretraining, kind, family)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("conv", "resnet18 seresnet50 resnest14d skresnet18 mobilenetv3_small_100 efficientnet_b0 regnety_002 vgg11"),
        ("conv", "convnext_atto convnextv2_atto densenet121 ghostnet_100 gc_efficientnetv2_rw_t poolformer_s12"),
        ("hybrid", "mobilevit_s edgenext_xx_small coatnet_0_rw_224 botnet26t_256 efficientformerv2_s0 visformer_tiny"),
        ("transformer", "vit_tiny_patch16_224 deit_tiny_patch16_224 swin_tiny_patch4_window7_224 cait_xxs24_224"),
        ("transformer", "eva02_tiny_patch14_224 twins_svt_small pit_ti_224 mixer_b16_224"),
    ],
)
def test_the_kind_follows_from_the_modules(kind: str, names: str) -> None:
    assert {name: describe_network(name).kind for name in names.split()} == dict.fromkeys(names.split(), kind)


def test_own_modules_have_a_kind() -> None:
    convolution = nn.Conv2d(3, 16, 3)
    assert kind_of(convolution) == kind_of(nn.Linear(3, 2)) == "conv"
    assert kind_of(nn.TransformerEncoderLayer(16, 2)) == "transformer"
    patches = nn.Sequential(nn.Conv2d(3, 16, 16, 16), nn.Flatten(2), nn.TransformerEncoderLayer(196, 2))
    assert kind_of(patches) == "transformer"
    assert kind_of(nn.Sequential(convolution, nn.Conv2d(16, 16, 3), nn.MultiheadAttention(16, 2))) == "hybrid"


def test_parameters_and_sizes_are_those_of_the_network_itself() -> None:
    network = describe_network("resnet18")
    assert network.num_params == sum(tensor.numel() for tensor in timm.create_model("resnet18").parameters())
    assert (network.input_size, network.family) == (224, "resnet")
    assert describe_network("resnet18", img_size=64).input_size == 64


def test_many_classes_of_other_weights_do_not_count_as_size() -> None:
    assert describe_network("vit_tiny_patch16_224.augreg_in21k").num_params < 6e6


@pytest.mark.parametrize(
    ("name", "pretraining"),
    [
        ("resnet18.a1_in1k", 0),
        ("regnetx_002.ptq_in1k", 0),
        ("convnext_tiny.fb_in22k_ft_in1k", 1),
        ("convnext_nano.in12k_ft_in1k", 1),
        ("vit_tiny_patch16_224", 1),
        ("tf_efficientnet_b0.ns_jft_in1k", 2),
        ("resnet50.fb_swsl_ig1b_ft_in1k", 2),
        ("vit_base_patch16_clip_224.openai_ft_in12k_in1k", 2),
        ("vit_small_patch14_dinov2.lvd142m", 2),
        ("beit_base_patch16_224.in22k_ft_in22k_in1k", 1),
    ],
)
def test_the_tag_gives_the_pretraining(name: str, pretraining: int) -> None:
    tag = name.partition(".")[2] or timm.models.get_pretrained_cfg(name).tag
    assert description._pretraining(tag) == pretraining


def test_without_pretraining_the_accuracy_still_ranks() -> None:
    raw = describe_network("tf_efficientnet_b4", pretrained=False)
    assert raw.pretraining == 0
    assert raw.top1 == describe_network("tf_efficientnet_b4").top1


@pytest.mark.parametrize("filename", OF_OTHER_ORIGINS)
def test_networks_with_weights_of_other_sources_are_described(filename: str, tmp_path: Path) -> None:
    params, top1 = OF_OTHER_ORIGINS[filename]
    file = tmp_path / f"{filename}.safetensors"
    network = describe_network(filename.partition(".")[0], weights=file)
    assert network.num_params / 1e6 == pytest.approx(params, abs=0.06)
    assert (network.top1, network.kind, network.input_size, network.pretraining) == (top1, "conv", 224, 0)


def test_weights_in_a_folder_give_their_tag(
    write_weights: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_weights("test_resnet", "weights/test_resnet.my_swag_in1k.safetensors")
    folder = tmp_path / "weights"
    assert describe_network("test_resnet", weights=folder).pretraining == 2
    assert describe_network("test_resnet", weights=folder, pretrained=False).pretraining == 0
    assert describe_network("test_resnet").pretraining == 0
    monkeypatch.setenv("SACCADE_WEIGHTS", str(folder))
    assert describe_network("test_resnet").pretraining == 2
    (folder / "test_resnet.my_swag_in1k.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsNotFoundError):
        describe_network("test_resnet", weights=f"{folder}/")


def test_a_network_is_built_once_and_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    create = timm.create_model

    def watched(*args: object, **options: object) -> nn.Module:
        built.append(create(*args, **options))
        return built[-1]

    monkeypatch.setattr(timm, "create_model", watched)
    description._describe.cache_clear()
    description._size_and_kind.cache_clear()
    state = torch.get_rng_state()
    for size in (None, 64, 96):
        for name in ("resnet18", "resnet18.a1_in1k", "resnet18_v1b"):
            describe_network(name, img_size=size)
    assert [{tensor.device.type for tensor in network.parameters()} for network in built] == [{"meta"}]
    assert torch.equal(state, torch.get_rng_state())


def test_a_built_network_of_timm_is_recognised() -> None:
    module = timm.create_model("convnext_atto.d2_in1k", num_classes=1000)
    assert describe_module(module, pretrained=True) == describe_network("convnext_atto.d2_in1k")


def test_the_parameters_of_an_own_network_are_counted() -> None:
    network = describe_module(nn.Linear(9, 2), name="Linear")
    assert (network.num_params, network.input_size, network.top1, network.family) == (20, 224, None, "Linear")


def test_aliases_are_described_as_their_networks() -> None:
    assert describe_network("resnet50_v1d") == describe_network("resnet50d")


def test_an_unknown_network_is_an_error() -> None:
    with pytest.raises(UnknownModelError, match="resnet18"):
        describe_network("resnet188")


def test_published_accuracies_are_of_networks_and_weights_that_exist() -> None:
    names = {name for name in published_table() if "." in name}
    assert len({name.partition(".")[0] for name in names}) > 200
    assert names <= set(timm.list_pretrained())
    assert all(timm.is_model(name) for name in published_table().keys() - names)
    assert all(0.5 < top1 < 0.9 for top1 in published_table().values())


@given(name=st.sampled_from(sorted(published_table())))
@settings(max_examples=60, deadline=None)
def test_a_published_accuracy_is_found_with_and_without_its_tag(name: str) -> None:
    architecture, _, tag = name.partition(".")
    assert published_top1(architecture, tag or "of_others") == published_table()[name]
    assert published_top1(architecture) is not None


def test_an_unpublished_accuracy_is_none() -> None:
    assert published_top1("test_resnet") is None
    assert published_top1("no_such_network", "in1k") is None
