"""The form in which an image is kept, and seen by networks: how large, and as which bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from saccade.data.decoding import DecodedImage, ImageSource, decode_image

_MAX_ELONGATION = 3  # of an image that is longer, the central square that a network sees would be less than a third
_GAP = 3.0  # shrinking in two steps, the second by at least so much, looks like shrinking in one (Pillow's manual)


def stored_size(width: int, height: int, shorter_side: int | None) -> tuple[int, int]:
    """Return the width and height at which the store keeps an image.

    The shorter side becomes `shorter_side` and the aspect ratio stays; nothing is enlarged. An elongated image is
    squeezed into a square, so that a network sees all of it. None keeps the size.

    Examples
    --------
    >>> stored_size(1000, 500, 250), stored_size(100, 80, 250), stored_size(6000, 100, 50)
    ((500, 250), (100, 80), (50, 50))
    """
    if shorter_side is None:
        return width, height
    if is_elongated(width, height):
        side = min(max(width, height), shorter_side)
        return side, side
    scale = min(1.0, shorter_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def is_elongated(width: int, height: int) -> bool:
    """Tell whether an image is so wide, or so high, that it is squeezed into a square.

    Examples
    --------
    >>> is_elongated(300, 100), is_elongated(100, 301)
    (False, True)
    """
    return max(width, height) > _MAX_ELONGATION * min(width, height)


def read_as_stored(image: ImageSource, shorter_side: int | None, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Read one image exactly as the store keeps it.

    With this an image that comes later, for a prediction, looks to the network as those it was trained on.

    Returns
    -------
    ndarray
        (H, W, channels) uint8; for the channels see `decode_image`.

    Raises
    ------
    ImageReadError
        The image cannot be decoded.
    """
    decoded = decode_image(image, min_shorter_side=shorter_side, channels=channels)
    return shrunk(decoded, shorter_side)


def pixels_of(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return pixels of shape (H, W, channels), a single channel too."""
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def shrunk(
    decoded: DecodedImage, shorter_side: int | None, pixels: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image at its `stored_size`.

    Parameters
    ----------
    decoded : DecodedImage
        The image.
    shorter_side : int or None
        As in `stored_size`.
    pixels : ndarray or None
        Its `pixels_of`, where they are at hand.

    Notes
    -----
    By a cubic filter that is as wide as the step, which is Pillow's; torch computes the same, but for a level of 255 in
    a pixel of two hundred, in a seventh of the time.
    """
    width, height = stored_size(*decoded.full_size, shorter_side)
    image = decoded.image
    if min(image.width / width, image.height / height) >= 2 * _GAP:
        return pixels_of(image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=_GAP))
    pixels = pixels_of(image) if pixels is None else pixels
    return pixels if pixels.shape[:2] == (height, width) else _resized(pixels, width, height)


def _resized(pixels: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    import torch  # heavy; whoever wants images of a size is about to show them to a network

    x_BCHW = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # torch is fastest in this order of bytes
    resize = torch.nn.functional.interpolate
    x_BCHW = resize(x_BCHW, size=(height, width), mode="bicubic", align_corners=False, antialias=True)
    return np.ascontiguousarray(x_BCHW[0].permute(1, 2, 0).numpy())
