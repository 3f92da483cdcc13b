from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from saccade.errors import HyperparameterError, UnknownModelError, WeightsNotFoundError
from saccade.models.network import InputSpec, build_network, check_takes_size, classifier_parameters, network_input

WriteWeights = Callable[..., Path]
TINY = ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"]


def assert_body_is_from(network: nn.Module, file: Path) -> None:
    state, saved = network.state_dict(), load_file(file)
    body = [key for key in state if key not in classifier_parameters(network)]
    assert body
    assert all(torch.equal(state[key], saved[key].to(state[key].dtype)) for key in body)


@pytest.mark.parametrize("num_classes", [1, 2, 10, 1000])
@pytest.mark.parametrize("with_head", [True, False])
@pytest.mark.parametrize("name", TINY)
def test_the_backbone_is_that_of_the_file_and_the_head_is_new(
    write_weights: WriteWeights, name: str, with_head: bool, num_classes: int
) -> None:
    file = write_weights(name, with_head=with_head)
    network = build_network(name, num_classes, weights_file=file)
    assert_body_is_from(network, file)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert network.training
    saved, state = load_file(file), network.state_dict()
    head_weights = [key for key in classifier_parameters(network) if key.endswith("weight")]
    assert head_weights
    for key in head_weights:
        assert state[key].shape[0] == num_classes
        assert key not in saved or not torch.equal(state[key], saved[key].float())
    assert network(torch.zeros(2, 3, 160, 160)).shape == (2, num_classes)


def test_without_pretraining_no_weights_are_searched(hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SACCADE_WEIGHTS", str(tmp_path / "does not exist"))
    build_network("test_resnet", 3, pretrained=False)
    assert hub.requests == []


def test_weights_come_from_the_hub_by_default(hub: Any, write_weights: WriteWeights) -> None:
    file = write_weights("test_resnet")
    hub.files["timm/test_resnet.r160_in1k/model.safetensors"] = file.read_bytes()
    assert_body_is_from(build_network("test_resnet", 3), file)
    hub.stop()
    assert_body_is_from(build_network("test_resnet", 3), file)


def test_missing_weights_are_never_replaced_by_random_ones() -> None:
    with pytest.raises(WeightsNotFoundError, match="pretrained=False"):
        build_network("test_resnet", 3)


def test_weights_come_from_a_folder(write_weights: WriteWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_weights("test_resnet", "folder/test_resnet.my_own.safetensors")
    assert_body_is_from(build_network("test_resnet", 3, weights_folder=file.parent), file)
    monkeypatch.setenv("SACCADE_WEIGHTS", str(file.parent))
    assert_body_is_from(build_network("test_resnet", 3), file)


@pytest.mark.parametrize("other", ["test_vit", "test_efficientnet", "test_convnext"])
def test_a_file_of_another_network_is_refused(write_weights: WriteWeights, other: str) -> None:
    file = write_weights(other)
    with pytest.raises(WeightsNotFoundError, match=r"weights.safetensors' (do not fit|are not of) the network"):
        build_network("test_resnet", 3, weights_file=file)


def test_a_file_of_a_deeper_network_is_refused(write_weights: WriteWeights) -> None:
    # resnet34 holds all tensors of resnet18 in the same shapes, and more
    file = write_weights("resnet34")
    with pytest.raises(WeightsNotFoundError, match="tensors have no place in the network"):
        build_network("resnet18", 3, weights_file=file)


@pytest.mark.parametrize("missing", ["conv1.0.weight", "layer1.0.bn1.running_mean", "layer2.0.conv1.weight"])
def test_a_file_that_lacks_a_tensor_is_refused_by_its_name(write_weights: WriteWeights, missing: str) -> None:
    assert missing in timm.create_model("test_resnet").state_dict()
    file = write_weights("test_resnet", drop=(missing,))
    with pytest.raises(WeightsNotFoundError, match=rf"lacks 1 of the network's \d+ tensors \({missing}\)"):
        build_network("test_resnet", 3, weights_file=file)


def test_a_file_may_lack_the_whole_head_but_not_its_norm_alone(write_weights: WriteWeights) -> None:
    norm = ("head.norm.weight", "head.norm.bias")
    self_supervised = write_weights("test_convnext", with_head=False, drop=norm)
    assert build_network("test_convnext", 3, weights_file=self_supervised)
    damaged = write_weights("test_convnext", drop=norm)
    with pytest.raises(WeightsNotFoundError, match=r"lacks 2 .*head\.norm\.weight"):
        build_network("test_convnext", 3, weights_file=damaged)


def test_refused_files_leave_no_hooks_and_no_log_filters(write_weights: WriteWeights) -> None:
    file = write_weights("test_vit")
    with pytest.raises(WeightsNotFoundError):
        build_network("test_resnet", 3, weights_file=file)
    assert not torch.nn.modules.module._global_module_registration_hooks
    assert not logging.getLogger("timm.models._builder").filters
    network = build_network("test_vit", 3, weights_file=file)
    assert not any(module._load_state_dict_post_hooks for module in network.modules())


@pytest.mark.parametrize("in_chans", [1, 2, 4])
@pytest.mark.parametrize("name", TINY)
def test_the_first_convolution_is_adapted_to_other_channels(
    write_weights: WriteWeights, name: str, in_chans: int
) -> None:
    file = write_weights(name, dtype=torch.float32)
    network = build_network(name, 3, weights_file=file, in_chans=in_chans)
    assert network(torch.zeros(2, in_chans, 160, 160)).shape == (2, 3)
    if in_chans == 1:  # the weights of the three channels, summed
        key = f"{timm.models.get_pretrained_cfg(name).first_conv}.weight"
        expected = load_file(file)[key].sum(1, keepdim=True)
        torch.testing.assert_close(network.state_dict()[key], expected)


@pytest.mark.parametrize(("name", "img_size"), [("test_vit", 96), ("test_resnet", 96), ("test_vit", 160)])
def test_networks_take_images_of_another_size(write_weights: WriteWeights, name: str, img_size: int) -> None:
    network = build_network(name, 3, weights_file=write_weights(name), img_size=img_size)
    assert network.training
    assert network(torch.zeros(2, 3, img_size, img_size)).shape == (2, 3)


@pytest.mark.parametrize("name", ["nest_tiny", "levit_128s"])  # one shows it when built, one when used
def test_unsupported_image_sizes_are_refused(name: str) -> None:
    with pytest.raises(HyperparameterError, match=f"{name}' cannot take images of 200 pixels .*192 or 224"):
        build_network(name, 3, pretrained=False, img_size=200)


def test_a_size_is_checked_on_the_device_of_the_network() -> None:
    network = build_network("test_resnet", 3, pretrained=False).to("meta")
    check_takes_size(network, "test_resnet", 3, 64)


def test_an_invalid_option_is_not_reported_as_a_fault_of_the_weights(write_weights: WriteWeights) -> None:
    file = write_weights("nest_tiny")
    with pytest.raises(HyperparameterError, match="cannot take images of 200 pixels"):
        build_network("nest_tiny", 3, weights_file=file, img_size=200)


def test_drop_rates_reach_the_network() -> None:
    network = build_network("resnet18", 3, pretrained=False, drop_rate=0.25, drop_path_rate=0.5)
    assert network.drop_rate == 0.25
    depth = [module.drop_prob for module in network.modules() if isinstance(module, timm.layers.DropPath)]
    assert max(depth) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["vgg11", "densenet121", "convmixer_768_32"])
def test_an_option_that_a_network_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(HyperparameterError, match=f"'{name}' has no option 'drop_path_rate'"):
        build_network(name, 3, pretrained=False, drop_path_rate=0.1)


def test_encoders_without_a_classifier_are_refused() -> None:
    with torch.device("meta"), pytest.raises(HyperparameterError, match="no classifier"):
        build_network("qwen3_vit_88m_enc", 2, pretrained=False)


@pytest.mark.parametrize("old_name", ["resnet18_v1b", "gluon_resnet18_v1b", "mobilenetv3_small"])
def test_old_names_build_without_warnings(old_name: str) -> None:
    assert classifier_parameters(build_network(old_name, 2, pretrained=False))


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", {"fc.weight", "fc.bias"}),
        ("mobilenetv3_small_100", {"classifier.weight", "classifier.bias"}),
        ("convnext_atto", {"head.fc.weight", "head.fc.bias"}),
        (
            "deit_tiny_distilled_patch16_224",
            {f"{h}.{p}" for h in ("head", "head_dist") for p in ("weight", "bias")},
        ),
        ("crossvit_tiny_240", {f"head.{i}.{p}" for i in (0, 1) for p in ("weight", "bias")}),
        ("volo_d1_224", {f"{h}.{p}" for h in ("head", "aux_head") for p in ("weight", "bias")}),
    ],
)
def test_classifier_parameters_of_several_heads(name: str, head: set[str]) -> None:
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=3)
    assert classifier_parameters(network) == head


def test_a_custom_module_has_no_classifier_parameters() -> None:
    assert classifier_parameters(nn.Sequential(nn.Linear(2, 2))) == set()


def test_the_input_spec_is_that_of_the_weights() -> None:
    spec = network_input("resnet18.tv_in1k")
    assert spec == InputSpec(224, 0.875, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert network_input("resnet18_v1b") == network_input("resnet18.a1_in1k") != spec
    assert InputSpec(**json.loads(json.dumps(dataclasses.asdict(spec)))).img_size == 224
    assert network_input("vit_base_patch16_sapiens2").img_size == 1024
    with pytest.raises(UnknownModelError):
        network_input("resnet17")


def test_every_network_has_an_input_spec() -> None:
    for name in timm.list_models():
        spec = network_input(name)
        assert spec.img_size >= 32
        assert 0.5 < spec.crop_pct < 1.5
        assert spec.interpolation in {"bicubic", "bilinear"}
        assert len(spec.mean) == len(spec.std) == 3


def test_a_built_network_has_the_tag_of_its_weights_but_not_their_path(
    write_weights: WriteWeights,
) -> None:
    file = write_weights("resnet18", "resnet18.tv_in1k.safetensors")
    network = build_network("resnet18", 3, weights_folder=file.parent)
    assert network_input(network) == network_input("resnet18.tv_in1k")
    assert str(file) not in repr(network.pretrained_cfg)
    assert network.pretrained_cfg["num_classes"] == 1000
