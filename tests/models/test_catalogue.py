from __future__ import annotations

import fnmatch

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import UnknownModelError, UnknownNameError
from saccade.models.catalogue import ALIASES, UNAVAILABLE, list_models, resolve_name, split_name

# The names that LEGACY_API.md spells out.
WELL_KNOWN = [
    "resnet18_v1b",
    "resnet50_v1b",
    "resnet50_v1c",
    "resnet50_v1d",
    "resnet50_v1s",
    "mobilenetv3_small",
    "mobilenetv3_large",
    "mobilenet1.0",
    "mobilenetv2_1.0",
    "densenet121",
    "resnext50_32x4d",
    "se_resnext50_32x4d",
    "resnest50",
    "senet154",
    "vgg16",
    "vgg16_bn",
    "darknet53",
    "inceptionv3",
    "xception",
    "hrnet_w18_c",
]


def test_there_are_more_than_a_thousand_names_and_each_once() -> None:
    names = list_models()
    assert len(names) > 1000
    assert names == sorted(set(names))
    assert {"resnet18", "vit_tiny_patch16_224", "resnet18_v1b", "mobilenet1.0"} <= set(names)


def test_every_listed_name_resolves() -> None:
    architectures = set(timm.list_models())
    assert all(resolve_name(name) in architectures for name in list_models())


@pytest.mark.parametrize("pattern", ["resnet18*", "*_224", "vgg1[16]", "?it_tiny_patch16_224"])
def test_a_pattern_with_wildcards_matches_whole_names(pattern: str) -> None:
    names = list_models(pattern)
    assert names
    assert names == [name for name in list_models() if fnmatch.fnmatchcase(name, pattern)]


def test_a_pattern_without_wildcards_is_a_part_of_the_name_in_any_case() -> None:
    names = list_models("MobileNetV3")
    assert names == [name for name in list_models() if "mobilenetv3" in name]
    assert list_models("no such network") == []


def test_names_are_chosen_by_the_licence_of_their_weights() -> None:
    dinov3 = list_models("dinov3", license="dinov3-license")
    assert "vit_base_patch16_dinov3" in dinov3
    assert not set(dinov3) & set(list_models("dinov3", license="free"))
    both = list_models("resnet5*", license=["mit", "apache-2.0"])
    assert both == sorted({*list_models("resnet5*", license="mit"), *list_models("resnet5*", license="apache-2.0")})
    assert "resnet50" in both
    assert "mobilenetv2_035" not in list_models(license="unknown")  # it has no weights
    with pytest.raises(UnknownNameError, match=r"license 'apache'. Did you mean 'apache-2.0'"):
        list_models(license="apache")


@pytest.mark.parametrize("name", WELL_KNOWN)
def test_common_old_names_resolve(name: str) -> None:
    assert timm.is_model(resolve_name(name))


def test_more_than_seventy_old_names_resolve() -> None:
    assert len({**ALIASES, **UNAVAILABLE}) + len(["densenet121", "vgg16", "darknet53"]) > 70


@pytest.mark.parametrize(
    ("given_name", "timm_name"),
    [
        ("resnet18", "resnet18"),
        ("resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("ResNet50_v1d", "resnet50d"),
        ("resnet50_v1d.gluon_in1k", "resnet50d.gluon_in1k"),
        ("mobilenetv2_0.75", "mobilenetv2_075"),
        ("gluon_resnet18_v1b", "resnet18.gluon_in1k"),
        ("tv_resnet50", "resnet50.tv_in1k"),
        ("xception", "xception65"),
    ],
)
def test_names_resolve_to_timm_names(given_name: str, timm_name: str) -> None:
    assert resolve_name(given_name) == timm_name


@pytest.mark.parametrize("old_name", sorted(timm.models.get_deprecated_models()))
def test_names_that_timm_has_renamed_work_without_a_warning(old_name: str) -> None:
    assert timm.is_model(resolve_name(old_name))


@pytest.mark.parametrize(
    ("misspelt", "near"),
    [
        ("resnet18v", "resnet18"),
        ("resnet-50", "resnet50"),
        ("efficientnetb0", "efficientnet_b0"),
        ("mobilenet_v3", "mobilenetv3"),
        ("mobilnetv3_small", "mobilenetv3_small"),
        ("vit_tiny", "vit_tiny_patch16"),
        ("resnext50", "resnext50_32x4d"),
    ],
)
def test_errors_for_misspelt_names_suggest_similar_ones(misspelt: str, near: str) -> None:
    with pytest.raises(UnknownModelError, match=rf"{misspelt}.*Did you mean '.*{near}"):
        resolve_name(misspelt)


@pytest.mark.parametrize("name", ["squeezenet1.1", "SqueezeNet1.1", "squeezenet1_1", "googlenet", "resnet50_v1"])
def test_errors_for_networks_that_timm_lacks_suggest_similar_ones(name: str) -> None:
    with pytest.raises(UnknownModelError, match="timm lacks GluonCV") as refused:
        resolve_name(name)
    near = str(refused.value).split("Similar ones: ")[1].rstrip(".").replace("'", "").split(" or ")
    assert all(timm.is_model(near_name) for near_name in near)


def test_unknown_tags_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match=r"'resnet18.a1_in1k'.*Known tags: .*gluon_in1k"):
        resolve_name("resnet18.a1_in")


@pytest.mark.parametrize("given_name", [None, 18, ["resnet18"], b"resnet18"])
def test_names_that_are_not_strings_are_refused(given_name: object) -> None:
    with pytest.raises(UnknownModelError, match="must be a string"):
        resolve_name(given_name)  # type: ignore[arg-type]


@given(st.sampled_from([*ALIASES, *timm.list_models(include_tags=True)]), st.randoms(use_true_random=False))
def test_case_does_not_matter_and_resolved_names_are_stable(name: str, random: object) -> None:
    shuffled = "".join(random.choice((str.lower, str.upper))(letter) for letter in name)  # type: ignore[attr-defined]
    resolved = resolve_name(shuffled)
    assert resolved == resolve_name(name)
    assert resolve_name(resolved) == resolved
    architecture, tag = split_name(resolved)
    assert timm.is_model(architecture)
    assert resolved == (architecture if tag is None else f"{architecture}.{tag}")


@given(st.text(max_size=20))
def test_any_text_is_a_network_or_an_unknown_model_error(text: str) -> None:
    try:
        resolved = resolve_name(text)
    except UnknownModelError:
        return
    assert timm.is_model(resolved)
