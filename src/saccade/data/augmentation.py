"""From a decoded image to the tensor that a network sees, in training and in judging: torchvision's v2 transforms."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms import InterpolationMode, v2

from saccade.errors import HyperparameterError, UnknownNameError

Transform = Callable[[torch.Tensor], torch.Tensor]
"""From a uint8 tensor of shape (channels, height, width) to one of a fixed height and width."""


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; the names are timm's.

    Attributes
    ----------
    scale, ratio : (float, float)
        Range of the crop's area as a part of the image, and of its width over its height.
    hflip, vflip : float
        Probability of a mirror image.
    color_jitter : float
        Strength of random brightness, contrast and saturation; 0 for none.
    auto_augment : str or None
        ``randaugment`` (or timm's ``rand-m9-n2``), ``autoaugment``, ``trivialaugment``, ``augmix``.
    re_prob : float
        Probability that a rectangle is erased.
    """

    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.0
    auto_augment: str | None = None
    re_prob: float = 0.0


def training_transform(augmentation: Augmentation, img_size: int, interpolation: str) -> Transform:
    """Return the random transform for training images, to `img_size` by `img_size` pixels.

    It draws from torch's global generator, so that seeding that makes an epoch repeatable.
    """
    steps: list[Transform] = [
        v2.RandomResizedCrop(
            img_size, augmentation.scale, augmentation.ratio, InterpolationMode(interpolation), antialias=True
        )
    ]
    if augmentation.hflip:
        steps.append(v2.RandomHorizontalFlip(augmentation.hflip))
    if augmentation.vflip:
        steps.append(v2.RandomVerticalFlip(augmentation.vflip))
    if augmentation.auto_augment:
        steps.append(policy(augmentation.auto_augment))
    if augmentation.color_jitter:
        steps.append(v2.ColorJitter(*[augmentation.color_jitter] * 3))
    if augmentation.re_prob:
        steps.append(v2.RandomErasing(augmentation.re_prob))
    transform: Transform = v2.Compose(steps)
    return transform


def own_transform(transform: Callable[[torch.Tensor], torch.Tensor], img_size: int) -> Transform:
    """Return a transform of the user's own, its results checked and brought to the range of uint8.

    Parameters
    ----------
    transform : callable
        From a uint8 tensor of shape (channels, height, width) to `img_size` by `img_size` pixels, uint8 or floats
        from 0 to 1.
    img_size : int
        Height and width in pixels that the network wants.

    Raises
    ------
    HyperparameterError
        By the transform, when something else comes of it.

    Examples
    --------
    >>> halved = own_transform(lambda x_CHW: x_CHW[:, ::2, ::2] / 255, 2)
    >>> halved(torch.full((3, 4, 4), 51, dtype=torch.uint8))[0, 0]
    tensor([51., 51.])
    """

    def checked(x_CHW: torch.Tensor) -> torch.Tensor:
        expected = (len(x_CHW), img_size, img_size)
        transformed = transform(x_CHW)
        is_tensor = isinstance(transformed, torch.Tensor)
        if not is_tensor or transformed.shape != expected:
            given = f"shape {tuple(transformed.shape)}" if is_tensor else f"type {type(transformed).__name__}"
            raise HyperparameterError(
                f"train_transform returned {given}; expected a tensor of shape {expected}. Let it end with "
                f"torchvision.transforms.v2.Resize(({img_size}, {img_size})), or give img_size"
            )
        plain = transformed.as_subclass(torch.Tensor)  # not torchvision's own kinds
        return plain * 255 if plain.is_floating_point() else plain

    return checked


def evaluation_transform(img_size: int, crop_pct: float, interpolation: str) -> Transform:
    """Return the fixed transform for judging: shorter side to ``img_size / crop_pct``, then the central square."""
    transform: Transform = v2.Compose(
        [
            v2.Resize(round(img_size / crop_pct), InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(img_size),
        ]
    )
    return transform


def policy(name: str) -> Transform:
    """Return the automatic augmentation policy of that name.

    Raises
    ------
    UnknownNameError
        When there is no such policy.

    Examples
    --------
    >>> policy("rand-m9-n3").magnitude
    27
    """
    chosen: Transform
    if match := re.fullmatch(r"rand(?:augment)?((?:-[a-z]+[0-9.]+)*)", name):
        # timm counts magnitudes to 10, torchvision to 30
        options = dict(re.findall(r"-([a-z]+)([0-9.]+)", match[1]))
        chosen = v2.RandAugment(int(options.get("n", 2)), int(3 * float(options.get("m", 3))))
        return chosen
    policies = {
        "autoaugment": v2.AutoAugment,
        "trivialaugment": v2.TrivialAugmentWide,
        "augmix": v2.AugMix,
    }
    if name not in policies:
        raise UnknownNameError.of("auto_augment policy", name, ["randaugment", *policies])
    chosen = policies[name]()
    return chosen


def as_tensor(image_HWC: np.ndarray) -> torch.Tensor:
    """Return a decoded image as a uint8 tensor of shape (channels, height, width)."""
    return torch.from_numpy(np.array(image_HWC)).permute(2, 0, 1)  # a copy: a store's images are read-only


def normalise(x_BCHW: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Return images with values up to 255 as float32 with the mean and deviation of a network's; channels last."""
    scale = 255 * torch.tensor(std, device=x_BCHW.device).view(1, -1, 1, 1)
    shift = 255 * torch.tensor(mean, device=x_BCHW.device).view(1, -1, 1, 1)
    return x_BCHW.to(torch.float32, memory_format=torch.channels_last).sub_(shift).div_(scale)
