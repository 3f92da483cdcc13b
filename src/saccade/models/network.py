"""Build a timm network with pretrained weights and a new classifier layer; and custom objects as hyperparameters."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import timm
import torch
from pydantic import Field
from torch import nn

from saccade.errors import HyperparameterError, WeightsNotFoundError
from saccade.models.catalogue import resolve_name, split_name
from saccade.models.loading import RandomValuesNeededError, SkipInit, watch_loading
from saccade.models.weights import find_weights, tensor_names
from saccade.space import Categorical, Space

MAX_UNUSED_TENSORS = 0.1
"""Fraction of a file's tensors that the network may not use; more belong to another, usually a deeper network.

Some correct files contain a few, such as the auxiliary classifier of inception_v3.
"""

MAX_SIDE = 16_384  # pixels of an image before its centre is cut out

Side = Annotated[int, Field(ge=1, le=8192)]
"""Height and width of a network's images in pixels; pydantic checks the limits in files, which may be a stranger's."""

_Channels = Field(min_length=1, max_length=64)


@dataclass(frozen=True)
class InputSpec:
    """The images that a network was pretrained on."""

    img_size: Side  # height and width in pixels (the height, for the few networks whose images are not square)
    # In evaluation, an image is resized to ``img_size / crop_pct`` before its centre is cut out. Above 1, which few
    # networks have, images are padded.
    crop_pct: Annotated[float, Field(gt=0, le=16)]
    interpolation: Annotated[str, Field(pattern="^(bicubic|bilinear)$")]
    # Per channel, for values from 0 to 1: the network's input is ``(value - mean) / std``.
    mean: Annotated[tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...], _Channels]
    std: Annotated[tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...], _Channels]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels, and std has {len(self.std)}")
        if self.img_size > MAX_SIDE * self.crop_pct:
            raise ValueError(f"images of {self.img_size} pixels at crop_pct={self.crop_pct:g} are too large")


def network_input(network: str | nn.Module) -> InputSpec:
    """Return the image size, crop and normalisation that a network was pretrained with.

    `network` is a name that `resolve_name` accepts (nothing is built; without a tag, timm's default one counts), or a
    network from `build_network`, for which the tag of its weights counts.
    """
    if isinstance(network, nn.Module):
        config = timm.models.PretrainedCfg(**getattr(network, "pretrained_cfg", {}))
    else:
        config = timm.models.get_pretrained_cfg(resolve_name(network)) or timm.models.PretrainedCfg()
    return InputSpec(
        img_size=int(config.input_size[1]),
        crop_pct=float(config.crop_pct),
        interpolation=str(config.interpolation),
        mean=tuple(float(value) for value in config.mean),
        std=tuple(float(value) for value in config.std),
    )


def build_network(
    name: str,
    num_classes: int,
    *,
    pretrained: bool = True,
    weights_file: str | Path | None = None,
    weights_folder: str | Path | None = None,
    in_chans: int = 3,
    img_size: int | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    random_start: bool = True,
) -> nn.Module:
    """Build a timm network in float32 on the CPU, with a pretrained backbone and a new classifier layer.

    `num_classes` is the number of outputs; the classifier layer is never taken from the file. Weights are found by
    `find_weights`, and the first convolution is adapted from 3 channels to `in_chans`. Networks of one size (most
    transformers) are built for `img_size` pixels, and their position embeddings resized. `drop_rate` (before the
    classifier layer) and `drop_path_rate` (stochastic depth) are from 0 to below 1; None keeps the network's default.
    Without `random_start` no random weights are drawn, which saves time: the classifier layer of a pretrained network
    is then zero; without pretraining, call ``load_state_dict`` before anything else, and `img_size` is
    not checked.

    Raises UnknownModelError, WeightsNotFoundError or HyperparameterError if there is no such network, there are no
    weights or they do not fit (random weights are never a fallback), or the network does not have an option.
    """
    timm_name = resolve_name(name)
    # timm gets only the options that were asked for, because not every network has every option.
    config = timm.models.get_pretrained_cfg(timm_name)
    options: dict[str, Any] = {"num_classes": num_classes, "drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    options["in_chans"] = in_chans if in_chans != 3 else None
    # Networks without a fixed input size accept any size, and have no such option.
    options["img_size"] = img_size if config is not None and config.fixed_input_size else None
    options = {option: value for option, value in options.items() if value is not None}

    if pretrained:
        path = find_weights(name, file=weights_file, folder=weights_folder)
        network = _create_from_file(timm_name, options, path, random_start)
    elif random_start:
        network = _create(timm_name, options)
    else:
        network = _create_empty(timm_name, options)
    if not classifier_parameters(network):
        raise HyperparameterError(f"{timm_name!r} has no classifier to train; choose another network.")
    # A network whose weights are loaded next has been tried before.
    is_new = pretrained or random_start
    if is_new and img_size is not None and img_size != network_input(timm_name).img_size:
        check_takes_size(network, timm_name, in_chans, img_size)
    return network


def classifier_parameters(network: nn.Module) -> set[str]:
    """Return the names of the parameters of a network's classifier layers; none without ``get_classifier``."""
    get_classifier = getattr(network, "get_classifier", None)
    if get_classifier is None:
        return set()
    found = get_classifier()
    heads = found if isinstance(found, (tuple, list, nn.ModuleList)) else [found]
    ids = {id(parameter) for head in heads if isinstance(head, nn.Module) for parameter in head.parameters()}
    prefixes = tuple(f"{module}." for module in _classifier_names(network))
    return {
        parameter_name
        for parameter_name, parameter in network.named_parameters()
        if id(parameter) in ids or parameter_name.startswith(prefixes)
    }


def _create(timm_name: str, options: dict[str, Any], **pretrained: Any) -> nn.Module:
    try:
        network: nn.Module = timm.create_model(timm_name, **options, **pretrained)
    except TypeError as error:
        refused = [option for option in options if option in str(error)]
        if not refused:
            raise
        raise HyperparameterError(f"The network {timm_name!r} has no option {refused[0]!r}; leave it out.") from error
    except (AssertionError, ValueError) as error:
        if "img_size" not in options or pretrained:
            raise
        raise _wrong_size(timm_name, options["img_size"], error) from error
    return network


def _create_empty(timm_name: str, options: dict[str, Any]) -> nn.Module:
    """Build a network for `load_state_dict`; only what that does not replace is initialised properly."""
    try:
        with SkipInit() as skipped:
            network = _create(timm_name, options)
        state = network.state_dict()
        skipped.check((name, buffer) for name, buffer in network.named_buffers() if name not in state)
    except RandomValuesNeededError:
        network = _create(timm_name, options)
    return network


def _create_from_file(timm_name: str, options: dict[str, Any], path: Path, random_start: bool) -> nn.Module:
    """Build a network and load a file by timm's rules; raise unless the file contains the whole backbone."""
    architecture, tag = split_name(timm_name)
    named = path.name.removesuffix(".safetensors")
    if tag is None and named in timm.models.get_arch_pretrained_cfgs(architecture):
        timm_name = named  # with the tag of the file, which determines the input size
    if random_start:
        return _load(timm_name, options, path)[0]
    try:
        with SkipInit() as skipped:
            network, missing = _load(timm_name, options, path)
        # Whatever the file lacks, apart from the classifier layer, must not have been random.
        head, state = classifier_parameters(network), network.state_dict()
        skipped.check((name, state[name]) for name in missing if name in state and name not in head)
        skipped.check((name, buffer) for name, buffer in network.named_buffers() if name not in state)
    except RandomValuesNeededError:
        network, _ = _load(timm_name, options, path)
    head = classifier_parameters(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in head:
                parameter.zero_()
    return network


def _load(timm_name: str, options: dict[str, Any], path: Path) -> tuple[nn.Module, list[str]]:
    """Build and load a network; return it and the names of its tensors that the file lacks."""
    overlay = {
        "file": str(path),
        "custom_load": False,
        # As if the file's classifier had no classes, so that timm drops it even if the number of classes agrees.
        "num_classes": 0,
    }
    with watch_loading() as loaded:
        try:
            network = _create(timm_name, options, pretrained=True, pretrained_cfg_overlay=overlay)
        except (HyperparameterError, RandomValuesNeededError):
            raise
        except Exception as error:
            # timm's checkpoint filters raise any exception on a file of another network. If an option is invalid
            # instead, building without the file raises the error of that option.
            _create(timm_name, options)
            reason = " ".join(str(error).split())
            raise WeightsNotFoundError(
                f"The weights {str(path)!r} do not fit the network {timm_name!r}: {type(error).__name__}: "
                f"{reason[:300]}{'...' if len(reason) > 300 else ''}"
            ) from error
    if network not in loaded:
        raise WeightsNotFoundError(f"timm built {timm_name!r} without loading the weights {str(path)!r}.")
    missing, unused = loaded[network]
    _check_loaded(network, timm_name, path, missing, unused)
    config: Any = network.pretrained_cfg
    config["num_classes"] = timm.models.get_pretrained_cfg(timm_name).num_classes
    del config["file"]  # a path of this machine is useless elsewhere
    return network, missing


def _check_loaded(network: nn.Module, timm_name: str, path: Path, missing: list[str], unused: list[str]) -> None:
    """Raise if the file lacks part of the backbone, or if the network does not use much of the file."""
    state, in_file = network.state_dict(), tensor_names(path)
    prefixes = [f"{name}." for name in _classifier_names(network)]
    # Weights from self-supervised training may lack the whole head, including the norm before the classifier.
    if not any(key.startswith(tuple(prefixes)) for key in in_file):
        prefixes += [f"{prefix[:-1].rpartition('.')[0]}." for prefix in prefixes if prefix.count(".") > 1]
    head = classifier_parameters(network)
    lacking = [key for key in missing if key not in head and not key.startswith(tuple(prefixes))]
    if not lacking and len(unused) <= MAX_UNUSED_TENSORS * len(in_file):
        return
    faults = []
    if lacking:
        faults.append(f"it lacks {len(lacking)} of the network's {len(state)} tensors ({_examples(lacking)})")
    if unused:
        faults.append(f"{len(unused)} of its tensors have no place in the network ({_examples(unused)})")
    raise WeightsNotFoundError(
        f"The weights {str(path)!r} are not of the network {timm_name!r}: {' and '.join(faults)}. "
        f"Give a file of {split_name(timm_name)[0]!r}, or train from random weights with pretrained=False."
    )


def check_takes_size(network: nn.Module, timm_name: str, in_chans: int, img_size: int) -> None:
    """Check an image size by a forward pass of one empty image; a HyperparameterError suggests other sizes."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, in_chans, img_size, img_size, device=next(network.parameters()).device))
    except (RuntimeError, AssertionError, IndexError, ValueError) as error:
        raise _wrong_size(timm_name, img_size, error) from error
    finally:
        network.train(was_training)


def _wrong_size(timm_name: str, img_size: int, error: Exception) -> HyperparameterError:
    usual = network_input(timm_name).img_size
    down, up = (32 * step for step in (max(1, math.floor(img_size / 32)), math.ceil(img_size / 32)))
    return HyperparameterError(
        f"The network {timm_name!r} cannot take images of {img_size} pixels ({error}). Its usual size is "
        f"{usual}; most networks take multiples of 32, such as {down} or {up}."
    )


def _classifier_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules that timm's configuration calls the classifier."""
    named = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _examples(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


CUSTOM_OBJECTS = ("model", "opt", "train_transform")  # hyperparameters that may be custom objects


@dataclass(frozen=True, repr=False)
class CustomObject:
    """A module, class or function as a hyperparameter; it prints as a short name where configurations are shown."""

    value: Any

    def __repr__(self) -> str:
        value = self.value
        while isinstance(value, functools.partial):
            value = value.func
        return getattr(value, "__name__", None) or type(value).__name__


def wrap_custom_objects(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters with each custom object, also among choices, wrapped as a `CustomObject`."""
    return {name: _wrapped(value) if name in CUSTOM_OBJECTS else value for name, value in hyperparameters.items()}


def _wrapped(value: Any) -> Any:
    if isinstance(value, Categorical):
        return Categorical(*(_wrapped(choice) for choice in value.data))
    is_custom = callable(value) and not isinstance(value, CustomObject | Space)
    return CustomObject(value) if is_custom else value


def build_custom_network(
    custom: CustomObject, num_outputs: int, in_chans: int = 3, img_size: int | None = None
) -> nn.Module:
    """Build a custom network, and check its output shape on one black image.

    A module is copied; a function or class makes one from the number of outputs. Without `img_size`, the image has 224
    pixels, or those of a timm network's pretraining. Raises a HyperparameterError for other objects or outputs.
    """
    network = copy.deepcopy(custom.value) if isinstance(custom.value, nn.Module) else custom.value(num_outputs)
    if not isinstance(network, nn.Module):
        raise HyperparameterError(
            f"The custom network {custom!r} made {network!r:.100} of type {type(network).__name__}; expected a "
            "function f(num_classes) that returns a torch.nn.Module."
        )
    side = img_size or network_input(network).img_size
    was_training, device = network.training, next((p.device for p in network.parameters()), torch.device("cpu"))
    network.eval()
    with torch.no_grad():
        outputs = network(torch.zeros(1, in_chans, side, side, device=device))
    network.train(was_training)
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (1, num_outputs):
        given = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise HyperparameterError(
            f"The custom network {custom!r} turns one image of {side} x {side} pixels into {given}; expected a tensor "
            f"of shape (1, {num_outputs}). Pass a function f(num_classes) that makes a network with that many outputs."
        )
    return network
