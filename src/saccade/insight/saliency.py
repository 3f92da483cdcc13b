"""Saliency maps: which places of an image speak for a class.

=========== ========================================================================================================
grad_cam    the channels of the last layer with places, weighed by the mean of their gradients over all places
            (Selvaraju et al., "Grad-CAM", ICCV 2017)
hires_cam   the same with a weight for each place (Draelos and Carin, "Use HiResCAM instead of Grad-CAM", 2020), of what
            a place has beyond the mean of all; without that, what all tokens of a transformer have in common drowns
            the rest
smooth_grad gradients of the score by the pixels, averaged over noisy copies of the image, times the pixels (Smilkov
            et al., "SmoothGrad", 2017); needs no layer with places
=========== ========================================================================================================

`auto` is grad_cam where the last layer with places holds channels first, as convolutions do, and smooth_grad where
there is no such layer. Of transformers no method is right for all. So what hires_cam and smooth_grad point at is
blotted out of the first images (the deletion test of Petsiuk et al., "RISE", 2018), and the one whose places the
network misses more is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from saccade.errors import DataError, HyperparameterError, UnknownNameError
from saccade.inference.classifier import Classifier
from saccade.insight.spatial_layers import Score, SpatialLayer, last_spatial_layer
from saccade.tasks.problem import Problem

Method = Literal["auto", "grad_cam", "hires_cam", "smooth_grad"]

NUM_JUDGES = 4
"""Images by which `auto` chooses a method."""

NUM_NOISY_COPIES = 8
NOISE = 0.15
"""Standard deviation of the noise, as a part of the range of an image's values."""

NUM_TILES = 8
"""Tiles along a side of an image, which are blotted out as a whole."""

SMOOTH_LEAD = 1.25
"""How many times as much smooth_grad must find to be preferred, since its maps are harder to read."""

BLOTTED_PARTS = (0.05, 0.1, 0.2)
"""Parts of an image that are blotted out, those first to which a map points."""


def check_method(method: str) -> None:
    """Raise an error with near names unless there is such a method.

    Raises
    ------
    UnknownNameError
        When there is none.
    """
    if method not in get_args(Method):
        raise UnknownNameError.of("method", method, get_args(Method))


def target_numbers(target: Any, problem: Problem, names: Sequence[str], num_images: int) -> np.ndarray | None:
    """Return the number of the output that is to be explained for each image; None for the largest one.

    Parameters
    ----------
    target : label, sequence of labels or None
        For all images, or for each.
    problem : Problem
        Its classes are the labels.
    names : sequence of str
        The names of these classes, which will do as well.
    num_images : int
        How many images there are.

    Raises
    ------
    UnknownNameError
        When there is no such class.
    DataError
        When there is not one label for each image.

    Examples
    --------
    >>> problem = Problem.of(["cat", "dog", "cow"])
    >>> target_numbers("dog", problem, ["cat", "cow", "dog"], 2).tolist()
    [2, 2]
    """
    if target is None:
        return None
    number_of: dict[Any, int] = {name: number for number, name in enumerate(names)}
    number_of |= {label: number for number, label in enumerate(problem.classes)}
    given = (
        list(target) if isinstance(target, Sequence | np.ndarray | pd.Series) and not isinstance(target, str) else None
    )
    labels = [target] * num_images if given is None else given
    if len(labels) != num_images:
        raise DataError(f"{len(labels)} targets were given for {num_images} images; give one for all, or one for each")
    for label in labels:
        if label not in number_of:
            raise UnknownNameError.of("target", label, map(str, number_of))
    return np.array([number_of[label] for label in labels], np.int64)


class SaliencyMapper:
    """Computes a saliency map for each image: which places increase an output of the network.

    The first batch decides which method "auto" is.

    Parameters
    ----------
    targets : ndarray of int, shape (num_images,)
        The output to explain for each image, in the order in which the images come.
    method : {"auto", "grad_cam", "hires_cam", "smooth_grad"}
        "auto" chooses one that suits the network.

    Raises
    ------
    UnknownNameError
        If there is no such method.
    """

    def __init__(self, targets: np.ndarray, method: str = "auto") -> None:
        check_method(method)
        self._targets, self._method = targets, method
        self._mapped: _Mapped | None = None
        self._num_done = 0

    def __call__(self, classifier: Classifier, x_BCHW: torch.Tensor) -> np.ndarray:
        """Return the maps of the next batch, float32 of shape (batch, height, width), as the network sees the images.

        Their values are from 0 to 1; 1 is the maximum of each image. A map is 0 if no place increases the output.

        Raises
        ------
        HyperparameterError
            If the method does not suit the network.
        """
        network = classifier.network.eval()
        network.train().eval()  # some layers drop tensors here that predictions have cached without gradients
        targets = self._targets[self._num_done : self._num_done + len(x_BCHW)]
        self._num_done += len(x_BCHW)
        chosen = torch.from_numpy(np.asarray(targets, np.int64)).to(x_BCHW.device)

        def score(outputs: torch.Tensor) -> torch.Tensor:
            return outputs.float().gather(1, chosen[: len(outputs), None])[:, 0]

        if self._mapped is None:
            self._mapped = _chosen(self._method, network, classifier.blueprint.name, x_BCHW, score)
        maps: np.ndarray = _scaled(self._mapped(x_BCHW, score)).cpu().numpy()
        return maps


_Mapped = Callable[[torch.Tensor, Score], torch.Tensor]
"""From images and what is to be explained of each to maps of shape (num_images, height, width)."""


def _chosen(method: str, network: torch.nn.Module, name: str, x_BCHW: torch.Tensor, score: Score) -> _Mapped:
    """Return the method of that name; for "auto", one that suits the network called `name`."""
    smooth: _Mapped = partial(_smooth_grad, network)
    layer = None if method == "smooth_grad" else last_spatial_layer(network, x_BCHW, lambda outputs: score(outputs[:1]))
    if layer is None:
        if method in ("auto", "smooth_grad"):
            return smooth
        raise HyperparameterError(
            f"{name} has no layer whose output has places in the image, which {method} needs; use method='smooth_grad'"
        )
    if method == "auto" and layer.layout.kind != "NCHW":
        by_place: _Mapped = partial(_activation_maps, layer, network, is_averaged=False)
        few_BCHW = x_BCHW[:NUM_JUDGES]
        drop, by_smooth = (
            _drop_without(network, few_BCHW, score, each(few_BCHW, score)) for each in (by_place, smooth)
        )
        return by_place if drop > max(0.0, by_smooth / SMOOTH_LEAD) else smooth
    return partial(_activation_maps, layer, network, is_averaged=method != "hires_cam")


@torch.no_grad()
def _drop_without(network: torch.nn.Module, x_BCHW: torch.Tensor, score: Score, maps_BHW: torch.Tensor) -> float:
    """Return how much the mean score drops when the places to which the maps point have the image's mean colour.

    Places are tiles of the image: many small holes would disturb a network wherever they are.
    """
    mean_BC11 = x_BCHW.mean((2, 3), keepdim=True)
    tiles_BL = torch.nn.functional.adaptive_avg_pool2d(maps_BHW[:, None], NUM_TILES).flatten(1)
    order_BL = torch.argsort(tiles_BL, dim=1, descending=True, stable=True)
    whole, without = float(score(network.forward(x_BCHW)).mean()), 0.0
    for part in BLOTTED_PARTS:
        first_BL = order_BL[:, : max(1, round(part * order_BL.shape[1]))]
        kept_B1HW = torch.ones_like(tiles_BL).scatter(1, first_BL, 0.0).view(-1, 1, NUM_TILES, NUM_TILES)
        kept_B1HW = torch.nn.functional.interpolate(kept_B1HW, tuple(x_BCHW.shape[2:]))
        without += float(score(network.forward(kept_B1HW * x_BCHW + (1 - kept_B1HW) * mean_BC11)).mean())
    return whole - without / len(BLOTTED_PARTS)


def _activation_maps(
    layer: SpatialLayer, network: torch.nn.Module, x_BCHW: torch.Tensor, score: Score, *, is_averaged: bool
) -> torch.Tensor:
    maps_BCHW, weights_BCHW = layer.maps_and_gradients(network, x_BCHW, score)
    if is_averaged:
        weights_BCHW = weights_BCHW.mean((2, 3), keepdim=True)
    else:
        maps_BCHW = maps_BCHW - maps_BCHW.mean((2, 3), keepdim=True)
    speaks_for_B1HW = (weights_BCHW * maps_BCHW).sum(1, keepdim=True).relu()
    size = tuple(x_BCHW.shape[2:])
    return torch.nn.functional.interpolate(speaks_for_B1HW, size, mode="bilinear", align_corners=False)[:, 0]


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
    speaks_B1HW = (total_BCHW * x_BCHW).sum(1, keepdim=True).abs()
    reach = x_BCHW.shape[2] // 64  # single pixels say little in a large image
    return torch.nn.functional.avg_pool2d(speaks_B1HW, 2 * reach + 1, 1, reach, count_include_pad=False)[:, 0]


def _scaled(maps_BHW: torch.Tensor) -> torch.Tensor:
    """Return maps whose largest value is 1, or 0 where there is none."""
    largest = maps_BHW.amax((1, 2), keepdim=True)
    return torch.where(largest > 0, maps_BHW / largest.clamp_min(torch.finfo(torch.float32).tiny), 0.0)
