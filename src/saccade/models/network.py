"""Build a network with the weights and the head that a task needs, and say what images it expects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from saccade.errors import HyperparameterError, WeightsNotFoundError
from saccade.models.catalogue import resolve_name, split_name
from saccade.models.copies import Copies, file_version
from saccade.models.loading import watch_loading
from saccade.models.random_start import NothingDrawn, StillRandomError
from saccade.models.weights import find_weights, tensor_names

__all__ = ["InputSpec", "build_network", "classifier_parameters", "network_input"]

# A file many of whose tensors have no place in the network belongs to another, usually a deeper one.
# (Some right files hold a few: the auxiliary head of inception_v3, say.)
MAX_UNUSED_TENSORS = 0.1


@dataclass(frozen=True)
class InputSpec:
    """The images that a network was pretrained on.

    Attributes
    ----------
    img_size : int
        Height and width in pixels (the height, for the few networks whose images are not square).
    crop_pct : float
        At prediction, an image is resized to ``img_size / crop_pct`` before its centre is cut out. Of a few
        networks it is above 1: their images are padded.
    interpolation : str
        How it is resized: ``"bicubic"`` or ``"bilinear"``.
    mean, std : tuple of float
        Per channel, for values from 0 to 1: the network sees ``(value - mean) / std``.
    """

    img_size: int
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def network_input(network: str | nn.Module) -> InputSpec:
    """Say what images a network was pretrained on.

    Parameters
    ----------
    network : str or torch.nn.Module
        A name that `resolve_name` knows, for which nothing is built (without a tag, timm's default one
        counts); or a network from `build_network`, for which the tag of its weights counts.

    Returns
    -------
    InputSpec
        ``dataclasses.asdict`` of it can be written as JSON.

    Raises
    ------
    UnknownModelError
        If there is no such network.

    Examples
    --------
    >>> network_input("resnet18").img_size
    224
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
    """Build a network whose body is pretrained and whose head is fresh.

    Parameters
    ----------
    name : str
        A name that `resolve_name` knows.
    num_classes : int
        Outputs of the head, at least 1; 1 is regression. The head always starts from random weights, also
        where the file's head has as many outputs.
    pretrained : bool
        Whether to load weights; False starts from random ones and looks for no file.
    weights_file, weights_folder : path, optional
        Where to find them: see `find_weights`. Half precision is turned into float32.
    in_chans : int
        Channels of the images. The first convolution of pretrained weights is adapted from 3.
    img_size : int, optional
        Height and width of the images in pixels. Networks that are built for one size (most transformers) are
        built for this one, and their position embeddings resized.
    drop_rate, drop_path_rate : float, optional
        Dropout before the head, and stochastic depth, from 0 up to but not including 1. None leaves what the
        network has.
    random_start : bool
        False is quicker: nothing is drawn at random. The head is zero where the body is pretrained; without
        pretraining nothing is of use before `load_state_dict`. A process keeps a few networks, and such a one is then
        a copy; so is one that is drawn from the same random numbers.

    Returns
    -------
    torch.nn.Module
        A timm network in float32 on the CPU, in training mode.

    Raises
    ------
    UnknownModelError
        If there is no such network.
    WeightsNotFoundError
        If there are no weights, or the file's do not fit the network. It never falls back to random ones.
    HyperparameterError
        If an option has an impossible value, or the network cannot take it.

    Examples
    --------
    >>> network = build_network("test_resnet", 10, pretrained=False)
    >>> tuple(network(torch.zeros(2, 3, 64, 64)).shape)
    (2, 10)
    """
    timm_name = resolve_name(name)
    _check_options(num_classes, in_chans, img_size, drop_rate, drop_path_rate)
    if weights_file is not None and not pretrained:
        raise HyperparameterError(f"Got pretrained=False and the weights file {str(weights_file)!r}; give one of them.")
    options = _timm_options(timm_name, in_chans, img_size, drop_rate, drop_path_rate)
    options["num_classes"] = num_classes
    if pretrained:
        path = find_weights(name, file=weights_file, folder=weights_folder)

        def from_file() -> nn.Module:
            network = _create_from_file(_name_with_tag_of(path, timm_name), options, path, random_start)
            _check_use(network, timm_name, in_chans, img_size)
            return network

        if random_start:
            return from_file()
        return _COPIES.get((timm_name, *sorted(options.items()), img_size, *file_version(path)), from_file)

    def from_nothing() -> nn.Module:
        network = _create(timm_name, options) if random_start else _create_empty(timm_name, options)
        _check_use(network, timm_name, in_chans, img_size)
        return network

    if not random_start:
        return from_nothing()
    return _COPIES.get_drawn((timm_name, *sorted(options.items()), img_size), from_nothing)


_COPIES = Copies()


def _check_use(network: nn.Module, timm_name: str, in_chans: int, img_size: int | None) -> None:
    if not classifier_parameters(network):
        raise HyperparameterError(f"{timm_name!r} has no classifier to train; choose another network.")
    if img_size is not None and img_size != network_input(timm_name).img_size:
        check_takes_size(network, timm_name, in_chans, img_size)


def classifier_parameters(network: nn.Module) -> set[str]:
    """Name the parameters of a network's head; all others are its body.

    Parameters
    ----------
    network : torch.nn.Module
        A timm network. Of other modules no head is known.

    Returns
    -------
    set of str
        Names as in ``network.named_parameters()``; empty where no head is known.

    Examples
    --------
    >>> sorted(classifier_parameters(build_network("test_resnet", 10, pretrained=False)))
    ['fc.bias', 'fc.weight']
    """
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


def _check_options(
    num_classes: int,
    in_chans: int,
    img_size: int | None,
    drop_rate: float | None,
    drop_path_rate: float | None,
) -> None:
    for option, value in (("num_classes", num_classes), ("in_chans", in_chans), ("img_size", img_size)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise HyperparameterError(f"{option} must be a whole number of at least 1; got {value!r}.")
    for option, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
        if rate is None:
            continue
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise HyperparameterError(f"{option} must be a number from 0 up to but not including 1; got {rate!r}.")


def _timm_options(
    timm_name: str, in_chans: int, img_size: int | None, drop_rate: float | None, drop_path_rate: float | None
) -> dict[str, Any]:
    """Choose what to pass to timm: only what was asked for, as not every network knows every option."""
    options: dict[str, Any] = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    if in_chans != 3:
        options["in_chans"] = in_chans
    config = timm.models.get_pretrained_cfg(timm_name)
    if config is not None and config.fixed_input_size:  # the others take images of any size, and no such option
        options["img_size"] = img_size
    return {option: value for option, value in options.items() if value is not None}


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
    """Build a network whose weights mean nothing; what `load_state_dict` does not give is as ever."""
    try:
        with NothingDrawn() as nothing_drawn:
            network = _create(timm_name, options)
        loaded = network.state_dict().keys()
        nothing_drawn.check((name, buffer) for name, buffer in network.named_buffers() if name not in loaded)
    except StillRandomError:
        return _create(timm_name, options)
    return network


def _create_from_file(timm_name: str, options: dict[str, Any], path: Path, random_start: bool) -> nn.Module:
    """Build a network and load a file into it by timm's rules; raise unless its whole body was there."""
    if random_start:
        return _created_from_file(timm_name, options, path)[0]
    try:
        with NothingDrawn() as nothing_drawn:
            network, missing = _created_from_file(timm_name, options, path)
        _check_drawn(network, missing, nothing_drawn)
    except StillRandomError:
        network, _ = _created_from_file(timm_name, options, path)
    head = classifier_parameters(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in head:
                parameter.zero_()
    return network


def _check_drawn(network: nn.Module, missing: list[str], nothing_drawn: NothingDrawn) -> None:
    """See that what the file did not give, the head apart, was not to be random."""
    head, state = classifier_parameters(network), network.state_dict()
    nothing_drawn.check((name, state[name]) for name in missing if name in state and name not in head)
    nothing_drawn.check((name, buffer) for name, buffer in network.named_buffers() if name not in state)


def _created_from_file(timm_name: str, options: dict[str, Any], path: Path) -> tuple[nn.Module, list[str]]:
    """Build and load a network; return it, and what the file does not hold of it."""
    overlay = {
        "file": str(path),
        "custom_load": False,
        # As if the file's head had no classes, so that timm drops it also where the number of classes agrees.
        "num_classes": 0,
    }
    with watch_loading() as loaded:
        try:
            network = _create(timm_name, options, pretrained=True, pretrained_cfg_overlay=overlay)
        except (HyperparameterError, StillRandomError):
            raise
        except Exception as error:
            # timm's checkpoint filters raise anything on a file of another network. Where not the file but an
            # option is at fault, building without the file raises that.
            _create(timm_name, options)
            reason = " ".join(str(error).split())
            raise WeightsNotFoundError(
                f"The weights {str(path)!r} do not fit the network {timm_name!r}: {type(error).__name__}: "
                f"{reason[:300]}{'...' if len(reason) > 300 else ''}"
            ) from error
    if network not in loaded:
        raise WeightsNotFoundError(f"timm built {timm_name!r} without loading the weights {str(path)!r}.")
    _check_loaded(network, timm_name, path, *loaded[network])
    config: Any = network.pretrained_cfg
    config["num_classes"] = timm.models.get_pretrained_cfg(timm_name).num_classes
    del config["file"]  # a path of this machine means nothing where the network goes
    return network, loaded[network][0]


def _check_loaded(network: nn.Module, timm_name: str, path: Path, missing: list[str], unused: list[str]) -> None:
    """Raise if part of the network's body was not in the file, or much of the file not in the network."""
    state, in_file = network.state_dict(), tensor_names(path)
    prefixes = [f"{name}." for name in _classifier_names(network)]
    # Weights from self-supervised training may lack all of the head, with the norm beside the classifier.
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
    """Try one empty image: many networks show only then that a size does not suit their windows.

    Raises
    ------
    HyperparameterError
        With sizes that would do.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, in_chans, img_size, img_size))
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


def _name_with_tag_of(path: Path, timm_name: str) -> str:
    """Add the tag in a file's name if timm knows it and no other was asked for: the input size follows it."""
    architecture, tag = split_name(timm_name)
    named = path.name.removesuffix(".safetensors")
    known = timm.models.get_arch_pretrained_cfgs(architecture)
    return named if tag is None and named in known else timm_name


def _classifier_names(network: nn.Module) -> tuple[str, ...]:
    """Name the modules that timm's configuration calls the classifier."""
    named = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _examples(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
