"""Size and pixels of a stored image, which are also those that a network receives at prediction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from saccade.data.decoding import DecodedImage, ImageSource, decode_image, reasons_for_errors
from saccade.data.pixel_range import PixelRange

MAX_ASPECT_RATIO = 3  # the central square of a longer image would cover less than a third of it
_MAX_SIDE = 2**15  # pixels of a side that is resized in one step


def stored_size(width: int, height: int, shorter_side: int | None) -> tuple[int, int]:
    """Return the width and height of a stored image in pixels.

    The shorter side becomes `shorter_side` and the aspect ratio stays; nothing is enlarged. But an elongated image is
    squeezed into a square, so that a network's central crop contains all of it. None keeps the size.
    """
    if shorter_side is None:
        return width, height
    if is_elongated(width, height):
        return shorter_side, shorter_side
    scale = min(1.0, shorter_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def is_elongated(width: int, height: int) -> bool:
    """Return whether an image is so wide, or so high, that it is squeezed into a square: by more than 1:3."""
    return max(width, height) > MAX_ASPECT_RATIO * min(width, height)


def read_as_stored(
    image: ImageSource,
    shorter_side: int | None,
    channels: int = 3,
    pixel_range: PixelRange | None = None,
    decoded_side: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Return the pixels (height, width, channels) of an image as the store has them; predictions use it as well.

    `decoded_side` is a larger side for which the image is decoded, as `min_shorter_side` of `decode_image`.
    """
    side = decoded_side or shorter_side
    decoded = decode_image(image, min_shorter_side=side, channels=channels, pixel_range=pixel_range)
    return shrunk(decoded, shorter_side)


def pixels_of(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return pixels of shape (height, width, channels), also for a single channel."""
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


@reasons_for_errors()
def shrunk(
    decoded: DecodedImage, shorter_side: int | None, pixels: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image at its `stored_size`; `pixels` are its `pixels_of`, if already computed.

    Images are shrunk with an antialiased bicubic filter. Pillow and torch compute the same, up to one level in about
    one of 200 pixels; torch takes a seventh of the time. The size follows from that of the decoded image, not from its
    `full_size`, so that whoever has the same pixels computes the same: an exported file.
    """
    image = decoded.image
    width, height = stored_size(*image.size, shorter_side)
    # Resizing a line of 10^8 pixels to a square in one step would take tens of gigabytes.
    if max(image.size) > _MAX_SIDE and (width, height) != image.size:
        return pixels_of(image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0))
    pixels = pixels_of(image) if pixels is None else pixels
    if pixels.shape[:2] == (height, width):
        return pixels
    import torch  # slow to import; whoever resizes images needs it for the network anyway

    x_BCHW = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # channels last, torch's fastest layout here
    x_BCHW = torch.nn.functional.interpolate(
        x_BCHW, size=(height, width), mode="bicubic", align_corners=False, antialias=True
    )
    return np.ascontiguousarray(x_BCHW[0].permute(1, 2, 0).numpy())
