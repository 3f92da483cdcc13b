"""Decoding of one image to upright 8-bit RGB.

Files, bytes, Pillow images and NumPy arrays give the same result: palettes, samples of more than 8 bits, transparency
and EXIF orientation are handled here. An unreadable image raises `ImageReadError` with a short reason, and Pillow's
warnings are suppressed. An image that would take more memory than ``SACCADE_MAX_IMAGE_GB`` (default 2) is unreadable.
"""

from __future__ import annotations

import base64
import functools
import importlib
import io
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, Union

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageMode, UnidentifiedImageError

from saccade.checks import bytes_from_environment
from saccade.data.jpeg_xl import read_header
from saccade.data.pixel_range import PixelRange, has_range, own_range, some_samples, to_uint8
from saccade.errors import HyperparameterError, ImageReadError, RemoteError, SaccadeError
from saccade.remote.urls import UrlFile, is_remote, is_url

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

MEMORY_VARIABLE = "SACCADE_MAX_IMAGE_GB"
_MAX_BYTES = 2_000_000_000
_WORKING_BYTES = 12  # for each pixel: its RGB form in Pillow, a copy of it, and the array
_DEEP_COLOUR_BYTES = 24  # for each pixel of 16-bit colours: their high and low bytes in Pillow, and three arrays
_LARGE_BYTES = 250_000_000  # images that take more are decoded one at a time
_one_large_image = threading.Lock()

_MIN_LEVELS = 64  # images of more than 8 bits that Pillow reads as 8 bits must use so many of the 256 levels
_READ_AS_8_BITS = {f"{mode};16{order}" for mode in ("RGBa", "CMYK") for order in "LBN"}
_HEADER_BYTES = 1 << 16  # in which the bits of a sample are looked for
_MAX_METADATA_BYTES = 1 << 25  # in front of a JPEG's pixels: Pillow takes time that is quadratic in them
_MAX_SCAN_PIXELS = 3_000_000_000  # of all scans of a JPEG, of which a megabyte may contain a hundred thousand
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Pillow starts an external program to decode these, which a data set must not be able to trigger.
_FORMATS_NOT_READ = ("EPS",)

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})


@dataclass(frozen=True)
class DecodedImage:
    """An upright image of 8 bits in memory; smaller than `full_size` if it was decoded at a reduced scale."""

    image: Image.Image  # mode RGB; L for one channel, RGBX for four
    full_size: tuple[int, int]  # width and height in pixels at full scale


def read_image(image: ImageSource, *, min_shorter_side: int | None = None) -> Image.Image:
    """Read one image as upright 8-bit RGB without metadata; an ImageReadError has a short reason.

    `image` is a path, the bytes of an image file, a Pillow image (left as it is), or an array of numbers of shape
    (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). With `min_shorter_side`, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its
    size, which is several times faster, as long as its shorter side keeps at least this many pixels.

    The EXIF orientation is applied. Transparency is composited over white. The first frame of an animation is used.
    Samples of more than 8 bits (16 or 32 bits, floats) are scaled by the range of the image itself: see
    `saccade.data.pixel_range`; NaN and infinities become black. Where only the highest 8 bits of colours can be read
    (JPEG 2000, JPEG XL, AVIF, CMYK), images that use less than a quarter of these levels are unreadable. EPS files are
    refused, because reading one would start an external program.

    Examples
    --------
    >>> import numpy as np
    >>> image = read_image(np.array([[0, 65535]], dtype=np.uint16))
    >>> image.mode, image.size, image.getpixel((1, 0))
    ('RGB', (2, 1), (255, 255, 255))
    """
    return decode_image(image, min_shorter_side=min_shorter_side).image


def decode_image(
    image: ImageSource, *, min_shorter_side: int | None = None, channels: int = 3, pixel_range: PixelRange | None = None
) -> DecodedImage:
    """Read one image as `read_image` does, and return its size at full scale as well.

    `channels` may be 1 (grey) or 4 (red, green, blue, and alpha or another fourth band, which is not composited;
    255 if there is none). `pixel_range` is that of the data set, by which samples of more than 8 bits are scaled.
    """
    with reasons_for_errors(), quiet_pillow():
        if isinstance(image, np.ndarray):
            from_array = _with_channels(_image_of_array(image, pixel_range), channels, None)
            return DecodedImage(from_array, from_array.size)
        with _opened(image) as (opened, file):
            size_in_header = opened.size
            is_draft = False
            if min_shorter_side is not None and opened is not image:  # `draft` would change a caller's image
                is_draft = opened.draft(None, (min_shorter_side, min_shorter_side)) is not None
            with _room_for(opened):
                is_coarse = file is not None and _is_read_as_8_bits(opened, file)
                colours = None if file is None else _deep_colours(opened, file)
                if colours is None:
                    opened.load()
                    if opened.size != size_in_header:  # an icon contains a file whose size may be another
                        _checked_bytes(opened.width * opened.height, len(opened.getbands()))
                # Not the header's size for all: Pillow turns a TIFF upright while it loads.
                full_size = size_in_header if is_draft else opened.size
                orientation = _orientation(opened)
                eight_bits = opened if colours is None else _image_of_colours(colours, opened, channels, pixel_range)
                decoded = _with_channels(eight_bits, channels, pixel_range)
                if is_coarse and np.ptp(np.asarray(decoded)) < _MIN_LEVELS:
                    raise ImageReadError(
                        f"{opened.format} image with samples of more than 8 bits, of which only the highest 8 can be "
                        "read, and they are nearly constant; convert it to a 16-bit PNG"
                    )
                if orientation in _UPRIGHT:
                    decoded = decoded.transpose(_UPRIGHT[orientation])
                elif decoded is opened:
                    decoded = decoded.copy()
                decoded.info = {}  # without metadata, so that it is not turned again when it is read again
            return DecodedImage(decoded, _turned(full_size, orientation))


def thumbnail(image: ImageSource, side: int, pixel_range: PixelRange | None = None) -> str:
    """Return the data URL of a WebP image whose longer side is at most `side` pixels; an ImageReadError as above."""
    small, file = decode_image(image, min_shorter_side=side, pixel_range=pixel_range).image, io.BytesIO()
    small.thumbnail((side, side))
    small.save(file, "WEBP", quality=75)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def deep_values(image: ImageSource) -> npt.NDArray[Any] | None:
    """Return the samples of an image if they have more than 8 bits; None for other images and unreadable ones."""
    try:
        with reasons_for_errors(), quiet_pillow():
            if isinstance(image, np.ndarray):
                return image if has_range(image.dtype) else None
            with _opened(image) as (opened, file), _room_for(opened):
                if opened.mode.startswith(("I", "F")):
                    return _deep_samples(opened)
                colours = None if file is None else _deep_colours(opened, file)
                return None if colours is None else colours[:, :, :3]
    except ImageReadError:
        return None


@contextmanager
def _room_for(image: Image.Image | npt.NDArray[Any]) -> Iterator[None]:
    """Context in which an image is decoded: one at a time of large ones, and none that takes too much memory."""
    if isinstance(image, np.ndarray):
        num_pixels, sample_bytes = image.shape[0] * image.shape[1], image.itemsize
    else:
        num_pixels = image.width * image.height
        sample_bytes = np.dtype(ImageMode.getmode(image.mode).typestr).itemsize * len(image.getbands())
        sample_bytes += _DEEP_COLOUR_BYTES if _is_deep_heif(image) or _tiles_of_bytes(image) else 0
    num_bytes = _checked_bytes(num_pixels, sample_bytes)
    with _one_large_image if num_bytes > _LARGE_BYTES else nullcontext():
        yield


def _checked_bytes(num_pixels: int, sample_bytes: int) -> int:
    """Return how many bytes an image takes while it is decoded; an ImageReadError if these are too many."""
    num_bytes = num_pixels * (sample_bytes + _WORKING_BYTES)
    given = bytes_from_environment(MEMORY_VARIABLE)
    max_bytes = _MAX_BYTES if given is None else given
    if num_bytes > max_bytes:
        raise ImageReadError(
            f"{num_pixels} pixels take {num_bytes / 1e9:.1f} GB to decode, more than {max_bytes / 1e9:g} GB; shrink "
            f"the image, or set {MEMORY_VARIABLE}"
        )
    return num_bytes


def image_size(image: ImageSource) -> tuple[int, int]:
    """Return the width and height in pixels of the upright image, from its header if the format allows."""
    with reasons_for_errors(), quiet_pillow():
        if isinstance(image, np.ndarray):
            _check_shape(image)
            return image.shape[1], image.shape[0]
        with _opened(image) as (opened, _):
            if opened.format == "TIFF" and opened is not image:
                # The size before loading is upright in some versions of Pillow only, so read the tags.
                tags = opened.tag_v2  # type: ignore[attr-defined]
                width, height = tags[256], tags[257]
                return _turned((width, height), tags.get(ExifTags.Base.Orientation, 1))
            # A PNG may state its orientation behind the pixels; it is decoded without EXIF data in front of them.
            with _room_for(opened) if opened.format == "PNG" else nullcontext():
                return _turned(opened.size, _orientation(opened))


_quiet_lock = threading.Lock()
_quiet_state: dict[str, Any] = {"num_users": 0}


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Suppress Pillow's warnings (invalid EXIF data, large images, palettes); thread-safe, and may be nested."""
    if getattr(sys.flags, "context_aware_warnings", False):  # from Python 3.14 on: each thread has filters
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
        return
    # All threads share the list of filters that `warnings.catch_warnings` saves and restores, so the first thread that
    # starts saves it, and the last that finishes restores it.
    with _quiet_lock:
        if _quiet_state["num_users"] == 0:
            _quiet_state["filters"] = warnings.catch_warnings()
            _quiet_state["filters"].__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_state["num_users"] += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_state["num_users"] -= 1
            if _quiet_state["num_users"] == 0:
                _quiet_state.pop("filters").__exit__(None, None, None)


@contextmanager
def reasons_for_errors() -> Iterator[None]:
    """Turn all errors into an `ImageReadError` with a short reason."""
    try:
        yield
    except (ImageReadError, HyperparameterError, RemoteError):
        raise
    except SaccadeError as error:  # of a download
        raise ImageReadError(str(error)) from error
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
    if isinstance(error, Image.DecompressionBombError):
        num_pixels = re.search(r"\d+", text)
        return f"decompression bomb: {num_pixels.group() if num_pixels else 'too many'} pixels"
    if isinstance(error, MemoryError) or "not enough memory" in text:
        return "not enough memory to decode it"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be opened: {error.strerror or text}"
    if "truncated" in text.lower():
        return "truncated"
    return f"broken data: {text or type(error).__name__}"


@contextmanager
def _opened(image: object) -> Iterator[tuple[Image.Image, BinaryIO | None]]:
    """Yield the image, not loaded yet, and its file; None for an image in memory."""
    if isinstance(image, Image.Image):
        yield image, None
        return
    file: BinaryIO
    if isinstance(image, bytes | bytearray | memoryview):
        file = io.BytesIO(image)
    elif isinstance(image, (str, os.PathLike)) and str(image).strip():
        file = io.BytesIO(_remote_bytes(str(image))) if is_remote(image) else local_path_of(image).open("rb")
    else:
        kinds = "a path, bytes, a Pillow image or an array"
        raise ImageReadError(f"{image!r:.40} is not {kinds}, but of type {type(image).__name__}")
    with file:
        start = file.read(64)
        if not start:
            raise ImageReadError("file is empty")
        is_turned = _prepare(start, file)
        file.seek(0)
        try:
            opened = Image.open(file)
        except UnidentifiedImageError:
            raise ImageReadError(_why_unidentified(start)) from None
        with opened:
            if opened.format in _FORMATS_NOT_READ:
                raise ImageReadError(f"{opened.format} files are not read; convert it to PNG or JPEG")
            if opened.format in ("JPEG", "MPO") and opened.info.get("progressive"):
                _check_scans_of_jpeg(opened, file)
            if is_turned and not getattr(opened, "jpeg", False):  # `jpeg`: the pixels of the JPEG that it was made of
                opened.info.pop("exif", None)
            yield opened, file


def _prepare(start: bytes, file: BinaryIO) -> bool:
    """Register the reader of a format, and check what it would not; return whether it turns the image upright."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and not _is_avif(start):
        _register_reader("pillow_heif", "HEIC", (".heic", ".heif", ".hif"))
    elif start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        _register_reader("pillow_jxl", "JPEG XL", (".jxl",))
        header = read_header(file)
        most = Image.MAX_IMAGE_PIXELS
        if most is not None and header.width * header.height > 2 * most:  # the reader decodes at once
            raise Image.DecompressionBombError(f"{header.width * header.height} pixels")
        _checked_bytes(header.width * header.height, _DEEP_COLOUR_BYTES if header.bits > 8 else _WORKING_BYTES)
        return header.orientation != 1
    elif start.startswith(b"\xff\xd8"):
        _check_metadata_of_jpeg(file)
    return False


def _check_metadata_of_jpeg(file: BinaryIO) -> None:
    if file.seek(0, io.SEEK_END) <= _MAX_METADATA_BYTES:
        return
    position, marker = 2, b"\xff\xe0"
    while marker[:1] == b"\xff" and marker[1:2] != b"\xda" and position <= _MAX_METADATA_BYTES:
        file.seek(position)
        marker = file.read(4)
        position += 2 + int.from_bytes(marker[2:], "big")
    if position > _MAX_METADATA_BYTES:
        raise ImageReadError(f"more than {_MAX_METADATA_BYTES >> 20} MiB of metadata; remove them")


def _check_scans_of_jpeg(image: Image.Image, file: BinaryIO) -> None:
    position = file.tell()
    file.seek(0)
    num_scans = file.read().count(b"\xff\xda")
    file.seek(position)
    if num_scans * image.width * image.height > _MAX_SCAN_PIXELS and num_scans > 20:
        raise Image.DecompressionBombError(f"{num_scans * image.width * image.height} pixels in {num_scans} scans")


def _is_avif(start: bytes) -> bool:
    return start[4:8] == b"ftyp" and (b"avif" in start or b"avis" in start)


def _why_unidentified(start: bytes) -> str:
    is_avif = _is_avif(start)
    if is_avif and ".avif" not in Image.registered_extensions():
        return "AVIF image; Pillow 11.3 and later read this format"
    if is_avif or (start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS):
        return f"damaged {'AVIF' if is_avif else 'HEIC'} image"
    if start.startswith(_TIFF_STARTS):
        return "damaged TIFF, or samples that are not read, such as colours as floats; convert it to a 16-bit PNG"
    return "not an image: cannot identify its format"


@functools.cache
def _register_reader(package: str, name: str, extensions: tuple[str, ...]) -> None:
    """Register a reader with Pillow, unless there is one; an ImageReadError names the extra that installs it."""
    if any(extension in Image.registered_extensions() for extension in extensions):
        return
    try:
        module = importlib.import_module(package)  # pillow_jxl registers itself
    except ImportError:
        raise ImageReadError(f"{name} image; install its reader with pip install 'saccade[formats]'") from None
    if package == "pillow_heif":
        module.register_heif_opener()


@functools.cache
def _reader_versions() -> str:
    versions = []
    for package in ("pillow", "pillow-heif", "pillow-jxl-plugin"):
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    return " ".join(versions)


def decoder_name() -> str:
    """Return what the pixels and the readability of an image depend on besides its file, for keys of caches."""
    return f"2 {_reader_versions()} {os.environ.get(MEMORY_VARIABLE, '')}"


def local_path_of(path: str | os.PathLike[str]) -> Path:
    """Return the path with ``~`` resolved, or that of the downloaded file of a URL."""
    text = os.fspath(path)
    if is_url(text):
        from saccade.data.sources.download import fetch  # imports an HTTP client

        return fetch(text, quiet=True)
    return Path(text).expanduser() if text.startswith(("~/", "~\\")) else Path(text)


def _remote_bytes(url: str) -> bytes:
    """Read an image at a URL such as ``s3://bucket/a.png``; errors of all images there are a RemoteError."""
    max_bytes = bytes_from_environment(MEMORY_VARIABLE) or _MAX_BYTES
    try:
        content = UrlFile(url).read(max_bytes)
    except RemoteError as error:
        if error.kind == "broken":
            raise
        raise ImageReadError("no such file" if error.kind == "missing" else str(error)) from error
    if len(content) == max_bytes:
        raise ImageReadError(f"a file of {max_bytes / 1e9:g} GB or more; set {MEMORY_VARIABLE}")
    return content


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata does not make an image unreadable
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in _SIDEWAYS else size


def _with_channels(image: Image.Image, channels: int, pixel_range: PixelRange | None) -> Image.Image:
    """Return mode L, RGB or RGBX, which Pillow resizes band by band: RGBA would lose colours of transparent pixels."""
    if channels != 4:
        rgb = _to_rgb(image, pixel_range)
        return rgb.convert("L") if channels == 1 else rgb
    if image.mode == "RGBX":
        return image
    if image.has_transparency_data and not image.mode.startswith(("I", "F")):
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    else:
        rgba = _to_rgb(image, pixel_range).convert("RGBA")
    return Image.merge("RGBX", rgba.split())


def _to_rgb(image: Image.Image, pixel_range: PixelRange | None) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = _deep_samples(image)
        grey = to_uint8(values, pixel_range)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    if image.has_transparency_data:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_samples(image: Image.Image) -> npt.NDArray[Any]:
    """Return the samples of an image of mode I, F or I;16, of shape (height, width)."""
    if not image.mode.startswith("I;"):
        return np.asarray(image)
    samples = np.frombuffer(image.tobytes(), dtype=ImageMode.getmode(image.mode).typestr)
    return samples.reshape(image.height, image.width)


def _tiles_of_bytes(image: Image.Image) -> tuple[list[Any], list[Any]] | None:
    """Return how to read the high and the low bytes of 16-bit colours; None if the image has no such colours.

    Pillow only keeps the high byte of each sample. If it reads them in the other byte order, that is the low byte.
    """
    high, low = [], []
    for tile in getattr(image, "tile", ()):
        make = getattr(tile, "_make", tuple)  # before Pillow 11, tiles are plain tuples
        codec, extents, offset, args = tile
        rawmode, *others = (args,) if isinstance(args, str) else args or ("",)
        if codec == "ppm" and rawmode == "RGB" and others[0] > 255:
            high.append(make(("raw", extents, offset, ("RGB;16B", 0, 1))))
            low.append(make(("raw", extents, offset, ("RGB;16L", 0, 1))))
        elif rawmode == "LA;16B":
            high.append(make((codec, extents, offset, "RGBA")))  # both bytes of both samples
        elif isinstance(rawmode, str) and re.fullmatch("RGB[AX]?;16[LBN]", rawmode):
            is_little = rawmode[-1] == "L" or (rawmode[-1] == "N" and sys.byteorder == "little")
            swapped = f"{rawmode[:-1]}{'B' if is_little else 'L'}"
            high.append(tile)
            low.append(make((codec, extents, offset, swapped if isinstance(args, str) else (swapped, *others))))
        else:
            return None
    return (high, low) if high else None


def _is_deep_heif(image: Image.Image) -> bool:
    """Return whether this is a HEIC image of 10 or 12 bits: Pillow reads 8 of them, `pillow_heif` all."""
    return image.format == "HEIF" and image.info.get("bit_depth", 8) > 8


def _deep_colours(image: Image.Image, file: BinaryIO) -> npt.NDArray[np.uint16] | None:
    """Return 16-bit colours, of shape (height, width, 3 or 4) with alpha as the fourth; None for other images."""
    if _is_deep_heif(image):
        file.seek(0)
        values = np.asarray(importlib.import_module("pillow_heif").open_heif(file, convert_hdr_to_8bit=False))
        return values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)
    tiles = _tiles_of_bytes(image)
    if tiles is None or not isinstance(image, ImageFile.ImageFile):
        return None
    image.tile, low_tiles = tiles
    high = np.asarray(image)
    if not low_tiles:
        pairs = high.view(">u2")
        return pairs[:, :, [0, 0, 0, 1]].astype(np.uint16)
    file.seek(0)
    with Image.open(file) as again:
        assert isinstance(again, ImageFile.ImageFile)
        again.tile = low_tiles
        low = np.asarray(again)
    colours: npt.NDArray[np.uint16] = high.astype(np.uint16) << 8 | low
    return colours


def _image_of_colours(
    colours: npt.NDArray[np.uint16], image: Image.Image, channels: int, pixel_range: PixelRange | None
) -> Image.Image:
    scaled = to_uint8(colours[:, :, :3], pixel_range)
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple):
        scaled[(colours[:, :, :3] == transparent).all(-1)] = 255
    if colours.shape[2] == 3:
        return Image.fromarray(scaled)
    fourth = colours[:, :, 3]
    # A fourth band that is nowhere opaque is not alpha, but a further colour.
    is_colour = channels == 4 and fourth.max() < 65535
    alpha = to_uint8(fourth, pixel_range) if is_colour else (fourth >> 8).astype(np.uint8)
    return Image.fromarray(np.dstack([scaled, alpha]))


def _is_read_as_8_bits(image: Image.Image, file: BinaryIO) -> bool:
    """Return whether Pillow drops the low bits of samples of more than 8 bits, apart from `_tiles_of_bytes`."""
    if image.format in ("JPEG2000", "AVIF", "JXL") and not image.mode.startswith(("I", "F")):
        position = file.tell()
        file.seek(0)
        start = file.read(_HEADER_BYTES)
        is_deep = image.format == "JXL" and read_header(file).bits > 8
        file.seek(position)
        if image.format == "JPEG2000":
            sizes = start.partition(b"\xff\x4f\xff\x51")[2]
            is_deep = len(sizes) > 38 and sizes[38] & 127 > 7
        elif image.format == "AVIF":
            configuration = start.partition(b"av1C")[2]
            is_deep = len(configuration) > 2 and bool(configuration[2] & 64)
        return is_deep
    for codec, _, _, args in getattr(image, "tile", ())[:1]:
        rawmode = args if isinstance(args, str) else (args or ("",))[0]
        is_text = codec == "ppm_plain" and image.mode == "RGB" and args[1] > 255
        return is_text or codec == "SGI16" or rawmode in _READ_AS_8_BITS
    return False


def _check_shape(array: npt.NDArray[Any]) -> None:
    expected = "expected an array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        is_channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        advice = "; channels come last: pass array.transpose(1, 2, 0)" if is_channels_first else ""
        raise ImageReadError(f"{expected}, got shape {array.shape}{advice}")
    if array.size == 0:
        raise ImageReadError(f"{expected} with at least one pixel, got shape {array.shape}")


def _image_of_array(array: npt.NDArray[Any], pixel_range: PixelRange | None) -> Image.Image:
    """Convert an (H, W[, 1, 3 or 4]) array to mode L, RGB or RGBA; raises ImageReadError for other shapes and types."""
    _check_shape(array)
    if array.dtype.kind not in "buif":
        raise ImageReadError(f"expected an array of numbers, got {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    with _room_for(array):
        if array.dtype == np.bool_:
            array = array * np.uint8(255)
        elif has_range(array.dtype):
            if pixel_range is None and array.ndim == 3 and some_samples(array).min(initial=0) < 0:
                raise ImageReadError("its colours are negative; expected [0, 1] or [0, 255], without normalisation")
            # The range of an array of floats is [0, 1] or [0, 255] if they fit, however dark it is.
            array = to_uint8(array, pixel_range or own_range(some_samples(array), min_fraction=0.0))
        return Image.fromarray(np.ascontiguousarray(array))
