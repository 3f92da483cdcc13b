"""Map saliency maps back to their images, and draw them as overlays."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from PIL import Image

from saccade.data.decoding import ImageSource, image_size, read_image
from saccade.data.examples import Examples
from saccade.data.store.stored_form import is_elongated
from saccade.errors import UnknownNameError
from saccade.models.network import InputSpec

Form = Literal["network", "image", "overlay"]

COLOURS = "inferno"  # a colormap of matplotlib with uniformly increasing lightness, readable without colour vision
MAX_OPACITY = 0.75  # opacity of the overlay at the maximum of the map


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
    import matplotlib as mpl  # slow to import

    picture = read_image(image)
    weights = Image.fromarray(np.asarray(map_HW, np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    weights_HW1 = np.asarray(weights).clip(0, 1)[:, :, None]
    grey_HW3 = np.asarray(picture.convert("L").convert("RGB"), np.float32)
    colours_HW3 = mpl.colormaps[COLOURS](weights_HW1[:, :, 0])[:, :, :3] * 255
    opacity_HW1 = MAX_OPACITY * weights_HW1
    mixed = (1 - opacity_HW1) * grey_HW3 + opacity_HW1 * colours_HW3
    return Image.fromarray(mixed.round().astype(np.uint8))
