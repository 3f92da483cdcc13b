"""Saliency maps: the regions of an image that increase an output of the network; and their drawings.

=========== ========================================================================================================
grad_cam    activations of the last spatial layer, weighted by the gradients averaged over all positions
            (Selvaraju et al., "Grad-CAM", ICCV 2017)
hires_cam   the same with a weight for each position (Draelos and Carin, "Use HiResCAM instead of Grad-CAM", 2020), and
            with activations minus their mean over all positions: the common component of all tokens dominates in
            transformers otherwise
smooth_grad gradients of the score by the pixels, averaged over noisy copies of the image, times the pixels (Smilkov
            et al., "SmoothGrad", 2017); requires no spatial layer
=========== ========================================================================================================

`auto` is grad_cam if the last spatial layer is channels first, as in convolutional networks, and smooth_grad without
a spatial layer. For transformers, neither hires_cam nor smooth_grad is always better. So both are compared on the first
images by the deletion test of Petsiuk et al. ("RISE", 2018): the method is used whose regions, replaced by the mean
colour, decrease the score more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from PIL import Image

from saccade.data.decoding import ImageSource, image_size, read_image
from saccade.data.examples import Examples
from saccade.data.store.stored_form import is_elongated
from saccade.errors import DataError, HyperparameterError, UnknownNameError
from saccade.inference.classifier import Classifier
from saccade.insight.spatial_layers import Score, SpatialLayer, last_spatial_layer
from saccade.models.network import InputSpec
from saccade.tasks.problem import Problem

Method = Literal["auto", "grad_cam", "hires_cam", "smooth_grad"]

Form = Literal["network", "image", "overlay"]

COLOURS = "inferno"  # a colormap of matplotlib with uniformly increasing lightness, readable without colour vision
MAX_OPACITY = 0.75  # opacity of the overlay at the maximum of the map

NUM_TEST_IMAGES = 4  # images of the deletion test

NUM_NOISY_COPIES = 8
NOISE = 0.15  # standard deviation of the noise, as a fraction of the range of an image's values
NUM_TILES = 8  # tiles along a side of an image in the deletion test

SMOOTH_FACTOR = 1.25
"""smooth_grad is preferred if its score drop is this many times that of hires_cam, as its maps are harder to read."""

DELETED_FRACTIONS = (0.05, 0.1, 0.2)
"""Fractions of an image that the deletion test replaces, the highest values of the map first."""


def check_method(method: str) -> None:
    """Raise an UnknownNameError with similar names unless there is such a method."""
    if method not in get_args(Method):
        raise UnknownNameError.of("method", method, get_args(Method))


def target_numbers(target: Any, problem: Problem, names: Sequence[str], num_images: int) -> np.ndarray | None:
    """Return the number of the output to explain for each image; None for the largest output."""
    if target is None:
        return None
    number_of: dict[Any, int] = {name: number for number, name in enumerate(names)}
    number_of |= {label: number for number, label in enumerate(problem.classes)}
    is_many = isinstance(target, Sequence | np.ndarray | pd.Series) and not isinstance(target, str)
    labels = list(target) if is_many else [target] * num_images
    if len(labels) != num_images:
        raise DataError(f"{len(labels)} targets were given for {num_images} images; pass one for all, or one for each")
    for label in labels:
        if label not in number_of:
            raise UnknownNameError.of("target", label, map(str, number_of))
    return np.array([number_of[label] for label in labels], np.int64)


class SaliencyMapper:
    """Computes the regions of images that increase an output; the first batch determines method "auto"."""

    def __init__(self, targets: np.ndarray, method: str = "auto") -> None:
        check_method(method)
        self._targets, self._method = targets, method
        self._compute: _Compute | None = None
        self._num_done = 0

    def __call__(self, classifier: Classifier, x_BCHW: torch.Tensor) -> np.ndarray:
        """Return the maps of the next batch, float32 of shape (batch, height, width).

        Values are from 0 to 1; the maximum of each image is 1. A map is 0 if no region increases the output.
        """
        network = classifier.network
        network.train().eval()  # some layers drop tensors here that predictions cached without gradients
        targets = self._targets[self._num_done : self._num_done + len(x_BCHW)]
        self._num_done += len(x_BCHW)
        chosen = torch.from_numpy(np.asarray(targets, np.int64)).to(x_BCHW.device)

        def score(outputs: torch.Tensor) -> torch.Tensor:
            return outputs.float().gather(1, chosen[: len(outputs), None])[:, 0]

        if self._compute is None:
            self._compute = _choose_method(self._method, network, classifier.blueprint.name, x_BCHW, score)
        maps_BHW = self._compute(x_BCHW, score)
        largest = maps_BHW.amax((1, 2), keepdim=True)
        maps_BHW = torch.where(largest > 0, maps_BHW / largest.clamp_min(torch.finfo(torch.float32).tiny), 0.0)
        return np.asarray(maps_BHW.cpu().numpy())


_Compute = Callable[[torch.Tensor, Score], torch.Tensor]
"""From images and the score to explain to maps of shape (num_images, height, width)."""


def _choose_method(method: str, network: torch.nn.Module, name: str, x_BCHW: torch.Tensor, score: Score) -> _Compute:
    """Return the method of that name; for "auto", the one that suits the network called `name`."""
    smooth: _Compute = partial(_smooth_grad, network)
    layer = None if method == "smooth_grad" else last_spatial_layer(network, x_BCHW, lambda outputs: score(outputs[:1]))
    if layer is None:
        if method in ("auto", "smooth_grad"):
            return smooth
        raise HyperparameterError(
            f"{method} requires a layer with spatial positions, and {name} has none; use method='smooth_grad'"
        )
    if method == "auto" and layer.layout.kind != "NCHW":
        hires: _Compute = partial(_activation_maps, layer, network, is_averaged=False)
        few_BCHW = x_BCHW[:NUM_TEST_IMAGES]
        hires_drop, smooth_drop = (
            _score_drop(network, few_BCHW, score, each(few_BCHW, score)) for each in (hires, smooth)
        )
        return hires if hires_drop > max(0.0, smooth_drop / SMOOTH_FACTOR) else smooth
    return partial(_activation_maps, layer, network, is_averaged=method != "hires_cam")


@torch.no_grad()
def _score_drop(network: torch.nn.Module, x_BCHW: torch.Tensor, score: Score, maps_BHW: torch.Tensor) -> float:
    """Return the drop of the mean score after replacing the highest tiles of the maps by the mean colour."""
    mean_BC11 = x_BCHW.mean((2, 3), keepdim=True)
    # Whole tiles, since many small holes decrease the score wherever they are.
    tiles_BL = torch.nn.functional.adaptive_avg_pool2d(maps_BHW[:, None], NUM_TILES).flatten(1)
    order_BL = torch.argsort(tiles_BL, dim=1, descending=True, stable=True)
    before, after = float(score(network.forward(x_BCHW)).mean()), 0.0
    for part in DELETED_FRACTIONS:
        first_BL = order_BL[:, : max(1, round(part * order_BL.shape[1]))]
        kept_B1HW = torch.ones_like(tiles_BL).scatter(1, first_BL, 0.0).view(-1, 1, NUM_TILES, NUM_TILES)
        kept_B1HW = torch.nn.functional.interpolate(kept_B1HW, tuple(x_BCHW.shape[2:]))
        after += float(score(network.forward(kept_B1HW * x_BCHW + (1 - kept_B1HW) * mean_BC11)).mean())
    return before - after / len(DELETED_FRACTIONS)


def _activation_maps(
    layer: SpatialLayer, network: torch.nn.Module, x_BCHW: torch.Tensor, score: Score, *, is_averaged: bool
) -> torch.Tensor:
    maps_BCHW, weights_BCHW = layer.maps_and_gradients(network, x_BCHW, score)
    if is_averaged:
        weights_BCHW = weights_BCHW.mean((2, 3), keepdim=True)
    else:
        maps_BCHW = maps_BCHW - maps_BCHW.mean((2, 3), keepdim=True)
    saliency_B1HW = (weights_BCHW * maps_BCHW).sum(1, keepdim=True).relu()
    size = tuple(x_BCHW.shape[2:])
    return torch.nn.functional.interpolate(saliency_B1HW, size, mode="bilinear", align_corners=False)[:, 0]


def _smooth_grad(network: torch.nn.Module, x_BCHW: torch.Tensor, score: Score) -> torch.Tensor:
    draw = torch.Generator(x_BCHW.device).manual_seed(0)
    noise_B111 = NOISE * (x_BCHW.amax((1, 2, 3), keepdim=True) - x_BCHW.amin((1, 2, 3), keepdim=True))
    total_BCHW = torch.zeros_like(x_BCHW)
    for _ in range(NUM_NOISY_COPIES):
        noise_BCHW = torch.randn(x_BCHW.shape, generator=draw, device=x_BCHW.device) * noise_B111
        noisy_BCHW = (x_BCHW + noise_BCHW).requires_grad_()
        with torch.enable_grad():
            scores = score(network.forward(noisy_BCHW))
            total_BCHW += torch.autograd.grad(scores.sum(), noisy_BCHW)[0]
    saliency_B1HW = (total_BCHW * x_BCHW).sum(1, keepdim=True).abs()
    radius = x_BCHW.shape[2] // 64  # smooths over the noise of single pixels in large images
    return torch.nn.functional.avg_pool2d(saliency_B1HW, 2 * radius + 1, 1, radius, count_include_pad=False)[:, 0]


def check_form(form: str) -> None:
    """Raise an UnknownNameError with similar names unless saliency maps have that form."""
    if form not in get_args(Form):
        raise UnknownNameError.of("form", form, get_args(Form))


def in_form(
    form: str, maps: np.ndarray, examples: Examples, errors: dict[int, str], spec: InputSpec
) -> np.ndarray | list[np.ndarray | None] | list[Image.Image | None]:
    """Return saliency maps in the given form."""
    if form == "network":
        maps[list(errors)] = np.nan
        return maps
    placed = [
        None if number in errors else place_in_image(map_HW, image_size(image), spec)
        for number, (map_HW, image) in enumerate(zip(maps, examples.images, strict=True))
    ]
    if form == "image":
        return placed
    return [
        None if map_HW is None else draw_overlay(image, map_HW)
        for map_HW, image in zip(placed, examples.images, strict=True)
    ]


def place_in_image(map_HW: np.ndarray, size: tuple[int, int], spec: InputSpec) -> np.ndarray:
    """Map a saliency map of the network's input to the whole image."""
    width, height = size
    # The stored image, from which the input is cropped, is squeezed if elongated: see `saccade.data.store.stored_form`.
    sides = size if is_elongated(width, height) else (min(size), min(size))
    # Image pixels per map pixel.
    scale_x, scale_y = (length / round(spec.img_size / spec.crop_pct) for length in sides)
    placed = np.zeros((height, width), np.float32)
    left, first_x, last_x = _covered_part(width, scale_x * len(map_HW))
    top, first_y, last_y = _covered_part(height, scale_y * len(map_HW))
    # Resample the part of the map that is inside of the image.
    edges = np.array([first_x - left, first_y - top, last_x - left, last_y - top])
    edges = edges / [scale_x, scale_y, scale_x, scale_y]
    x_1, y_1, x_2, y_2 = edges.clip(0, len(map_HW)).tolist()
    picture = Image.fromarray(np.asarray(map_HW, np.float32))
    resized = picture.resize((last_x - first_x, last_y - first_y), Image.Resampling.BILINEAR, (x_1, y_1, x_2, y_2))
    placed[first_y:last_y, first_x:last_x] = np.asarray(resized).clip(0, 1)
    return placed


def _covered_part(length: int, covered: float) -> tuple[float, int, int]:
    """Return the start of the central part of a side, and its range of pixels inside the image."""
    start = (length - covered) / 2
    first = max(0, round(start))
    return start, first, max(first + 1, min(length, round(start + covered)))


def draw_overlay(image: ImageSource, map_HW: np.ndarray) -> Image.Image:
    """Draw a saliency map over its image: the image in grey, high values of the map in bright colours."""
    picture = read_image(image)
    weights = Image.fromarray(np.asarray(map_HW, np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    heatmap = draw_heatmap(np.asarray(weights).clip(0, 1))
    return Image.alpha_composite(picture.convert("L").convert("RGBA"), heatmap).convert("RGB")


def draw_heatmap(map_HW: np.ndarray) -> Image.Image:
    """Return a saliency map as an RGBA picture to lay over its image: bright colours, and transparent where it is 0."""
    import matplotlib as mpl  # slow to import

    colours_HW4 = mpl.colormaps[COLOURS](map_HW)
    colours_HW4[:, :, 3] = MAX_OPACITY * map_HW
    return Image.fromarray((colours_HW4 * 255).round().astype(np.uint8))
