"""Saliency maps over the images that they belong to."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from PIL import Image

from saccade.data.decoding import ImageSource, image_size, read_image
from saccade.data.examples import Examples
from saccade.data.store.stored_form import is_elongated
from saccade.errors import DataError, UnknownNameError
from saccade.models.network import InputSpec

Form = Literal["network", "image", "overlay"]

COLOURS = "inferno"
"""matplotlib's name; its brightness grows evenly, so the picture can be read without seeing colours."""

STRENGTH = 0.75
"""How much of the image the largest value hides."""


def check_form(form: str) -> None:
    """Raise an error with near names unless saliency maps can be had in that form.

    Raises
    ------
    UnknownNameError
        When they cannot.
    """
    if form not in get_args(Form):
        raise UnknownNameError.of("form", form, get_args(Form))


def in_form(
    form: str, maps: np.ndarray, examples: Examples, errors: dict[int, str], spec: InputSpec
) -> np.ndarray | list[np.ndarray | None] | list[Image.Image | None]:
    """Return saliency maps as they are wanted.

    Parameters
    ----------
    form : {"network", "image", "overlay"}
        As the network saw the images; of the size of the images; or drawn over these.
    maps : ndarray of float32, shape (num_images, height, width)
        As the network saw the images.
    examples : Examples
        The images.
    errors : dict
        Why an image cannot be read, by its number.
    spec : InputSpec
        How the network's input is cut from an image.

    Returns
    -------
    ndarray, or list of ndarray or PIL.Image.Image
        For images that cannot be read NaN, or None.
    """
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
    """Return a map of what a network saw as one of the whole image.

    Parameters
    ----------
    map_HW : ndarray of float32, shape (img_size, img_size)
        Of the central square that the network saw; of an elongated image, of its middle, squeezed into a square.
    size : (int, int)
        Width and height of the image in pixels.
    spec : InputSpec
        How the network's input is cut from the image.

    Returns
    -------
    ndarray of float32, shape (height, width)
        0 where the network did not see the image.

    Examples
    --------
    >>> spec = InputSpec(8, 1.0, "bilinear", (0.5,), (0.5,))
    >>> place_in_image(np.ones((8, 8), np.float32), (20, 10), spec)[0].nonzero()[0][[0, -1]].tolist()
    [5, 14]
    """
    width, height = size
    sides = size if is_elongated(width, height) else (min(size), min(size))
    scale_x, scale_y = (length / round(spec.img_size / spec.crop_pct) for length in sides)  # pixels for one of the map
    placed = np.zeros((height, width), np.float32)
    left, first_x, last_x = _seen_part(width, scale_x * len(map_HW))
    top, first_y, last_y = _seen_part(height, scale_y * len(map_HW))
    edges = np.array([first_x - left, first_y - top, last_x - left, last_y - top])
    edges = edges / [scale_x, scale_y, scale_x, scale_y]
    x_1, y_1, x_2, y_2 = edges.clip(0, len(map_HW)).tolist()
    picture = Image.fromarray(np.asarray(map_HW, np.float32))
    resized = picture.resize((last_x - first_x, last_y - first_y), Image.Resampling.BILINEAR, (x_1, y_1, x_2, y_2))
    placed[first_y:last_y, first_x:last_x] = np.asarray(resized).clip(0, 1)
    return placed


def _seen_part(length: int, seen: float) -> tuple[float, int, int]:
    """Return where the middle part of a side begins, and the first and last pixel of it that there are."""
    start = (length - seen) / 2
    first = max(0, round(start))
    return start, first, max(first + 1, min(length, round(start + seen)))


def draw_overlay(image: ImageSource, map_HW: np.ndarray) -> Image.Image:
    """Draw a map over its image: grey where nothing is, and glowing where the map is large.

    Parameters
    ----------
    image : path, bytes, Pillow image or array
        The whole image.
    map_HW : ndarray, shape (height, width)
        From 0 to 1, of the whole image; of other numbers of pixels it is resized.

    Returns
    -------
    PIL.Image.Image
        RGB, of the image's size.

    Raises
    ------
    DataError
        When the map is not of two dimensions.

    Examples
    --------
    >>> grey = np.full((6, 9, 3), 128, np.uint8)
    >>> draw_overlay(grey, np.eye(6, 9)).size
    (9, 6)
    """
    import matplotlib as mpl  # slow to import

    if map_HW.ndim != 2:
        raise DataError(f"a map of shape {map_HW.shape} was given; expected (height, width)")
    picture = read_image(image)
    weights = Image.fromarray(np.asarray(map_HW, np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    weights_HW1 = np.asarray(weights).clip(0, 1)[:, :, None]
    grey_HW3 = np.asarray(picture.convert("L").convert("RGB"), np.float32)
    glow_HW3 = mpl.colormaps[COLOURS](weights_HW1[:, :, 0])[:, :, :3] * 255
    share_HW1 = STRENGTH * weights_HW1
    mixed = (1 - share_HW1) * grey_HW3 + share_HW1 * glow_HW3
    return Image.fromarray(mixed.round().astype(np.uint8))
