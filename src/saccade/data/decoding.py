"""Decoding of one image to upright 8-bit RGB.

Files, bytes, Pillow images and NumPy arrays give the same result: palettes, 16-bit scans, transparency and EXIF
orientation are handled here. An unreadable image raises `ImageReadError` with a short reason; Pillow's warnings are
suppressed.
"""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, Union

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, ImageMode, UnidentifiedImageError

from saccade.errors import ImageReadError

ImageSource: TypeAlias = Union[str, "os.PathLike[str]", bytes, Image.Image, "npt.NDArray[Any]"]

_UPRIGHT = {  # operation that turns stored pixels upright, by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height

# Pillow starts an external program to decode these, which a data set must not be able to trigger.
_FORMATS_NOT_READ = ("EPS",)


@dataclass(frozen=True)
class DecodedImage:
    """An image in memory, and its size at full scale.

    Parameters
    ----------
    image
        Upright, 8 bit, mode RGB (L for one channel, RGBX for four); smaller than `full_size` if it was decoded at a
        reduced scale.
    full_size
        Width and height in pixels of the upright image at full scale.
    """

    image: Image.Image
    full_size: tuple[int, int]


def read_image(image: ImageSource, *, min_shorter_side: int | None = None) -> Image.Image:
    """Read one image as upright 8-bit RGB.

    Parameters
    ----------
    image
        A path, the bytes of an image file, a Pillow image (left as it is), or an array of shape (H, W),
        (H, W, 1), (H, W, 3) or (H, W, 4): uint8, bool, uint16, or floats in [0, 1].
    min_shorter_side
        If given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is several times faster, as
        long as its shorter side keeps at least this many pixels. Other formats come at full size.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, of any size, without metadata.

    Raises
    ------
    ImageReadError
        If the image is not completely decodable; the message is a short reason.

    Notes
    -----
    The EXIF orientation is applied. Transparency is composited over white. The first frame of
    an animation is used. 16-bit samples are scaled, not clipped. Mode I (32-bit integers) is read as 16 bit if
    the values fit, and is otherwise stretched from its smallest to its largest value. Mode F (floats) is read as
    [0, 1] or else as [0, 255] if the values fit, and is otherwise stretched likewise; NaN and infinities become
    black. EPS files are refused, because reading one would start an external program.

    Examples
    --------
    >>> import numpy as np
    >>> image = read_image(np.array([[0, 65535]], dtype=np.uint16))
    >>> image.mode, image.size, image.getpixel((1, 0))
    ('RGB', (2, 1), (255, 255, 255))
    """
    return decode_image(image, min_shorter_side=min_shorter_side).image


def decode_image(image: ImageSource, *, min_shorter_side: int | None = None, channels: int = 3) -> DecodedImage:
    """Read one image as `read_image` does, and return its size at full scale as well.

    `channels` may be 1 (grey) or 4 (red, green, blue, and alpha or another fourth band, which is not composited;
    255 if there is none).
    """
    with _reasons_for_errors(), quiet_pillow():
        if isinstance(image, np.ndarray):
            from_array = _with_channels(_image_of_array(image), channels)
            return DecodedImage(from_array, from_array.size)
        with _opened(image) as opened:
            size_in_header = opened.size
            is_draft = False
            if min_shorter_side is not None and opened is not image:  # `draft` would change a caller's image
                is_draft = opened.draft(None, (min_shorter_side, min_shorter_side)) is not None
            opened.load()
            # Not the header's size for all: Pillow turns a TIFF upright while it loads.
            full_size = size_in_header if is_draft else opened.size
            orientation = _orientation(opened)
            upright = _without_metadata(_with_channels(opened, channels), of=opened, orientation=orientation)
            return DecodedImage(upright, _turned(full_size, orientation))


def image_size(image: ImageSource) -> tuple[int, int]:
    """Return the width and height in pixels of the upright image, from its header if the format allows.

    (A PNG may state its orientation behind the pixels, so one without EXIF data in front of them is decoded.)

    Raises
    ------
    ImageReadError
        If it is not an image. Broken pixels are only detected by `read_image`.

    Examples
    --------
    >>> import numpy as np
    >>> image_size(np.zeros((2, 5, 3), dtype=np.uint8))
    (5, 2)
    """
    with _reasons_for_errors(), quiet_pillow():
        if isinstance(image, np.ndarray):
            return _image_of_array(image).size
        with _opened(image) as opened:
            if opened.format == "TIFF" and opened is not image:
                # The size before loading is upright in some versions of Pillow only, so read the tags.
                tags = opened.tag_v2  # type: ignore[attr-defined]
                width, height = tags[256], tags[257]
                return _turned((width, height), tags.get(ExifTags.Base.Orientation, 1))
            return _turned(opened.size, _orientation(opened))


class _PillowWarnings:
    """Suppress Pillow's warnings while any thread decodes.

    All threads share the list of filters that `warnings.catch_warnings` saves and restores, so the first thread that
    starts saves it, and the last that finishes restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_users = 0
        self._caught: warnings.catch_warnings[None] | None = None

    def hold(self) -> None:
        with self._lock:
            self._num_users += 1
            if self._num_users == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                _ignore_pillow_warnings()

    def release(self) -> None:
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0 and self._caught is not None:
                self._caught.__exit__(None, None, None)
                self._caught = None


_pillow_warnings = _PillowWarnings()


def _ignore_pillow_warnings() -> None:
    warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Suppress Pillow's warnings (invalid EXIF data, large images, palettes); thread-safe, and may be nested."""
    if getattr(sys.flags, "context_aware_warnings", False):  # from Python 3.14 on: each thread has filters
        with warnings.catch_warnings():
            _ignore_pillow_warnings()
            yield
        return
    _pillow_warnings.hold()
    try:
        yield
    finally:
        _pillow_warnings.release()


@contextmanager
def _reasons_for_errors() -> Iterator[None]:
    try:
        yield
    except ImageReadError:
        raise
    # Pillow's plugins raise nearly anything on broken files: SyntaxError, KeyError, struct.error, ...
    except Exception as error:
        raise ImageReadError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Return in a few words why an image is unreadable."""
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a folder"
    if isinstance(error, UnidentifiedImageError):
        return "not an image: cannot identify its format"
    if isinstance(error, Image.DecompressionBombError):
        num_pixels = re.search(r"\d+", text)
        return f"decompression bomb: {num_pixels.group() if num_pixels else 'too many'} pixels"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be opened: {error.strerror or text}"
    if "truncated" in text.lower():
        return "truncated"
    return f"broken data: {text or type(error).__name__}"


@contextmanager
def _opened(image: object) -> Iterator[Image.Image]:
    if isinstance(image, Image.Image):
        yield image
        return
    file: BinaryIO
    if isinstance(image, bytes):
        file = io.BytesIO(image)
    elif isinstance(image, (str, os.PathLike)):
        file = Path(image).open("rb")  # noqa: SIM115 - closed just below
    else:
        kinds = "a path, bytes, a Pillow image or an array"
        raise ImageReadError(f"{image!r:.40} is not {kinds}, but of type {type(image).__name__}")
    with file:
        if not file.read(1):
            raise ImageReadError("file is empty")
        file.seek(0)
        with Image.open(file) as opened:
            if opened.format in _FORMATS_NOT_READ:
                raise ImageReadError(f"{opened.format} files are not read; convert it to PNG or JPEG")
            yield opened


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata does not make an image unreadable
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in _SIDEWAYS else size


def _without_metadata(rgb: Image.Image, of: Image.Image, orientation: int) -> Image.Image:
    """Return a new upright image without metadata, so that it is not turned again when it is read again."""
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    elif rgb is of:
        rgb = rgb.copy()
    rgb.info = {}
    return rgb


def _with_channels(image: Image.Image, channels: int) -> Image.Image:
    if channels == 4:
        return _to_four_bands(image)
    rgb = _to_rgb(image)
    return rgb.convert("L") if channels == 1 else rgb


def _to_four_bands(image: Image.Image) -> Image.Image:
    """Return mode RGBX, which Pillow resizes band by band: RGBA would lose the colours of transparent pixels."""
    if image.mode == "RGBX":
        return image
    if image.has_transparency_data and not image.mode.startswith(("I", "F")):
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    else:
        rgba = _to_rgb(image).convert("RGBA")
    return Image.merge("RGBX", rgba.split())


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;"):
        return _gray16_to_rgb(image)
    if image.mode == "I":
        return _gray_to_rgb(_int_to_uint8(np.asarray(image)))
    if image.mode == "F":
        return _gray_to_rgb(_float_to_uint8(np.asarray(image)))
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _gray16_to_rgb(image: Image.Image) -> Image.Image:
    values = np.frombuffer(image.tobytes(), dtype=ImageMode.getmode(image.mode).typestr)
    values = values.reshape(image.height, image.width)
    gray = _uint16_to_uint8(values) if values.dtype.kind == "u" else _int_to_uint8(values)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return _gray_to_rgb(gray)


def _gray_to_rgb(gray: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(gray).convert("RGB")


def _image_of_array(array: npt.NDArray[Any]) -> Image.Image:
    """Convert an (H, W[, 1, 3 or 4]) array to mode L, RGB or RGBA; raises ImageReadError for other shapes and types."""
    expected = "expected an array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageReadError(f"{expected}, got shape {array.shape}")
    if array.size == 0:
        raise ImageReadError(f"{expected} with at least one pixel, got shape {array.shape}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(_array_to_uint8(array)))


def _array_to_uint8(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return np.asarray(array * np.uint8(255), dtype=np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return _uint16_to_uint8(array)
    if array.dtype.kind == "f":
        return _float_to_uint8(array)
    if array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255:
        return np.asarray(array, dtype=np.uint8)
    raise ImageReadError(f"expected an array of uint8, uint16, bool or floats in [0, 1], got {array.dtype}")


def _uint16_to_uint8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    # 65535 / 255 == 257: the rounded division maps 0 to 0 and 65535 to 255.
    scaled: npt.NDArray[np.uint8] = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return scaled


def _int_to_uint8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if values.min() >= 0 and values.max() <= 65535:
        return _uint16_to_uint8(values)
    return _stretched(values.astype(np.float64))


def _float_to_uint8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    is_finite = np.isfinite(values)
    # Beyond these limits the range of the values could overflow.
    finite = np.clip(np.where(is_finite, values, 0).astype(np.float64), -1e300, 1e300)
    known = finite[is_finite]
    if known.size == 0:
        return np.zeros(values.shape, dtype=np.uint8)
    if known.min() >= 0 and known.max() <= 1:
        gray = np.rint(finite * 255).astype(np.uint8)
    elif known.min() >= 0 and known.max() <= 255:
        gray = np.rint(finite).astype(np.uint8)
    else:
        gray = _stretched(np.where(is_finite, finite, known.min()))
    return np.where(is_finite, gray, np.uint8(0))


def _stretched(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Map the range of `values` linearly to 0 ... 255 (a constant to 0)."""
    low, high = values.min(), values.max()
    scale = high - low if high > low else 1.0
    stretched: npt.NDArray[np.uint8] = np.rint((values - low) / scale * 255).astype(np.uint8)
    return stretched
