"""Augmentation and preprocessing: from a decoded image to the input tensor of a network.

The transforms are those of torchvision.transforms.v2, the frequent ones in fewer steps. Each image has its
own random generator, so that results do not depend on the number of threads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from saccade.errors import HyperparameterError, UnknownNameError

Transform = Callable[[torch.Tensor], torch.Tensor]
"""From a uint8 tensor of shape (channels, height, width) to one of a fixed height and width."""

_ATTEMPTS = 10  # to draw a rectangle that fits, as in torchvision
_ERASED_AREA, _ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # torchvision's
_SERIAL_ELEMENTS = 32_768  # torch works on up to so many by one thread
_DRAWING = frozenset(  # torch's functions that draw
    ("rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal", "_sample_dirichlet",
     "uniform_", "normal_", "random_", "bernoulli_", "exponential_")
)  # fmt: skip


@dataclass(frozen=True)
class Augmentation:
    """Augmentation strength, with the parameter names of timm."""

    scale: tuple[float, float] = (0.35, 1.0)  # range of the area of the crop, as a fraction of the image
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # range of its width over its height
    hflip: float = 0.5  # probability of a mirror image
    vflip: float = 0.0
    color_jitter: float = 0.0  # strength of random brightness, contrast and saturation
    auto_augment: str | None = None  # the name of a `policy`
    re_prob: float = 0.0  # probability that a rectangle is erased

    @property
    def varies(self) -> bool:
        """Whether an image differs from epoch to epoch."""
        is_random = [self.scale != (1, 1), 0 < self.hflip < 1, 0 < self.vflip < 1]
        return any(is_random) or bool(self.color_jitter or self.auto_augment or self.re_prob)


class TrainingTransform:
    """Augment a training image at random, and resize it to `img_size` by `img_size` pixels.

    The steps are: random resized crop (Szegedy et al., "Going deeper with convolutions", 2015), flips, a policy,
    colour jitter, and random erasing (Zhong et al., 2020). `interpolation` is ``bicubic`` or ``bilinear``.
    """

    def __init__(self, augmentation: Augmentation, img_size: int, interpolation: str) -> None:
        self.augmentation, self.img_size, self.interpolation = augmentation, img_size, interpolation
        self.policy = policy(augmentation.auto_augment) if augmentation.auto_augment else None

    def __call__(self, image_HWC: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Return uint8 of shape (channels, img_size, img_size), drawing from `rng` alone."""
        how = self.augmentation
        top, left, height, width = random_box(image_HWC.shape[0], image_HWC.shape[1], how.scale, how.ratio, rng)
        part = image_HWC[top : top + height, left : left + width]
        is_mirrored, is_upside_down = rng.random() < how.hflip, rng.random() < how.vflip
        x_CHW = as_tensor(part[::-1] if is_upside_down else part)
        x_CHW = resize(x_CHW, self.img_size, self.img_size, self.interpolation)
        if is_mirrored:  # a few rows at a time: for more elements torch would start threads of its own
            num_rows = max(1, _SERIAL_ELEMENTS // (x_CHW.shape[0] * x_CHW.shape[2]))
            rows = [some.permute(1, 2, 0).flip(1) for some in torch.split(x_CHW, num_rows, dim=1)]
            x_CHW = torch.cat(rows).permute(2, 0, 1)
        if self.policy is not None:
            with _DrawFrom(torch.Generator().manual_seed(int(rng.integers(2**62)))):
                x_CHW = self.policy(x_CHW.contiguous())  # the order in which its steps are fastest
        if how.color_jitter:  # brightness, contrast and saturation in a random order
            changes = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
            factors = rng.uniform(max(0.0, 1 - how.color_jitter), 1 + how.color_jitter, len(changes)).tolist()
            for number in rng.permutation(len(changes)):
                x_CHW = changes[number](x_CHW, factors[number])
        if how.re_prob and rng.random() < how.re_prob:
            x_CHW = _erased(x_CHW, rng)
        return x_CHW


def random_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random crop, with area in `scale` and aspect in `ratio` if possible."""
    least, range_of_logs = math.log(ratio[0]), math.log(ratio[1] / ratio[0])
    for _ in range(_ATTEMPTS):
        # In one call, which takes longer than drawing the numbers.
        for_shape, for_area, for_top, for_left = rng.random(4).tolist()
        shape = math.exp(least + range_of_logs * for_shape)
        area = (scale[0] + (scale[1] - scale[0]) * for_area) * height * width
        box_width, box_height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = int(for_top * (height - box_height + 1)), int(for_left * (width - box_width + 1))
            return top, left, box_height, box_width
    shape = min(max(width / height, ratio[0]), ratio[1])  # the largest box in the middle
    box_width, box_height = min(width, round(height * shape)), min(height, round(width / shape))
    box_width, box_height = max(1, box_width), max(1, box_height)
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def _erased(x_CHW: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Make a random rectangle black; draw again if it does not fit into the image."""
    _, height, width = x_CHW.shape
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*_ERASED_AREA)
        shape = math.exp(rng.uniform(math.log(_ERASED_RATIO[0]), math.log(_ERASED_RATIO[1])))
        box_height, box_width = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if box_height < height and box_width < width:
            top, left = int(rng.integers(height - box_height + 1)), int(rng.integers(width - box_width + 1))
            x_CHW = x_CHW.clone()  # it may share memory with the input
            x_CHW[:, top : top + box_height, left : left + box_width] = 0
            break
    return x_CHW


class _DrawFrom(TorchFunctionMode):
    """Make random functions of torch draw from a given generator instead of the global one, in this thread only."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWING:
            kwargs = {"generator": self._generator, **kwargs}
        return func(*args, **kwargs)


def own_transform(transform: Callable[[torch.Tensor], torch.Tensor], img_size: int) -> Transform:
    """Wrap a user-defined transform: check its results and scale floats from 0 to 1 to the range of uint8.

    It maps uint8 of shape (channels, height, width) to `img_size` by `img_size` pixels; else a HyperparameterError.
    """

    def checked(x_CHW: torch.Tensor) -> torch.Tensor:
        expected = (len(x_CHW), img_size, img_size)
        transformed = transform(x_CHW)
        is_tensor = isinstance(transformed, torch.Tensor)
        if not is_tensor or transformed.shape != expected:
            given = f"shape {tuple(transformed.shape)}" if is_tensor else f"type {type(transformed).__name__}"
            raise HyperparameterError(
                f"train_transform returned {given}; expected a tensor of shape {expected}. End it with "
                f"torchvision.transforms.v2.Resize(({img_size}, {img_size})), or give img_size"
            )
        plain = transformed.as_subclass(torch.Tensor)  # not subclasses of torchvision
        return plain * 255 if plain.is_floating_point() else plain

    return checked


def policy(name: str) -> Transform:
    """Return an augmentation policy by its name; an UnknownNameError suggests others.

    The names are ``randaugment`` (or timm's ``rand-m9-n2``), ``autoaugment``, ``trivialaugment`` and ``augmix``.
    """
    if match := re.fullmatch(r"rand(?:augment)?((?:-[a-z]+[0-9.]+)*)", name):
        # timm counts magnitudes to 10, torchvision to 30
        options = dict(re.findall(r"-([a-z]+)([0-9.]+)", match[1]))
        randaugment: Transform = v2.RandAugment(int(options.get("n", 2)), int(3 * float(options.get("m", 3))))
        return randaugment
    policies = {"autoaugment": v2.AutoAugment, "trivialaugment": v2.TrivialAugmentWide, "augmix": v2.AugMix}
    if name not in policies:
        raise UnknownNameError.of("auto_augment policy", name, ["randaugment", *policies])
    chosen: Transform = policies[name]()
    return chosen


def as_tensor(image_HWC: np.ndarray) -> torch.Tensor:
    """Return a decoded image as a uint8 tensor of shape (channels, height, width)."""
    return torch.from_numpy(np.array(image_HWC)).permute(2, 0, 1)  # a copy, since images of a store are read-only


def resize(x: torch.Tensor, height: int, width: int, interpolation: str) -> torch.Tensor:
    """Resize uint8 images of shape (C, H, W) or (N, C, H, W) with antialiasing."""
    if x.shape[-2:] == (height, width):
        return x
    x_BCHW = x if x.ndim == 4 else x.permute(1, 2, 0)[None].permute(0, 3, 1, 2)  # torch is fastest in channels last
    resized = torch.nn.functional.interpolate(
        x_BCHW, size=(height, width), mode=interpolation, align_corners=False, antialias=True
    )
    return resized if x.ndim == 4 else resized[0]


def normalise(x_BCHW: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Standardise images with values up to 255: float32, in channels-last order."""
    num, channels, height, width = x_BCHW.shape
    # Whole rows of pixels at once: a loop over the few channels of a pixel is ten times as slow.
    rows = x_BCHW.permute(0, 2, 3, 1).reshape(num * height, width * channels)
    scale = torch.tensor([1 / (255 * deviation) for deviation in std], device=x_BCHW.device).repeat(width)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=x_BCHW.device).repeat(width)
    normalised = rows.to(torch.float32, copy=True).mul_(scale).add_(shift)
    return normalised.view(num, height, width, channels).permute(0, 3, 1, 2)
