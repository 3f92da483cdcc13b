from __future__ import annotations

import contextlib
import io
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, features

from saccade.data import decoding
from saccade.data.decoding import decode_image, deep_values, image_size, quiet_pillow, read_image
from saccade.errors import HyperparameterError, ImageReadError

ALL_MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
ALL_MODES += ["I", "F", "I;16", "I;16B", "I;16L", "I;16N"]


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def arrow(size: tuple[int, int] = (40, 24)) -> Image.Image:
    """An image that no turn and no flip maps onto itself: red top left, blue top right, the rest green."""
    image = Image.new("RGB", size, (0, 160, 0))
    image.paste((200, 0, 0), (0, 0, size[0] // 2, size[1] // 2))
    image.paste((0, 0, 200), (size[0] // 2, 0, size[0], size[1] // 2))
    return image


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ALL_MODES)
def test_every_pillow_mode_becomes_rgb(mode: str) -> None:
    image = read_image(Image.new(mode, (5, 3)))
    assert (image.mode, image.size) == ("RGB", (5, 3))


@pytest.mark.parametrize(
    ("start", "advice"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", r"HEIC image.* pip install 'saccade\[formats\]'"),
        (b"\xff\x0a\0\0", r"JPEG XL image.* pip install 'saccade\[formats\]'"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF image; Pillow 11.3"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0avif", "AVIF image; Pillow 11.3"),
    ],
)
def test_formats_without_a_reader_come_with_advice(start: bytes, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding._register_reader.cache_clear()
    monkeypatch.setattr(Image, "registered_extensions", dict)
    for package in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImageReadError, match=advice):
        read_image(start * 10)
    decoding._register_reader.cache_clear()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(values: np.ndarray, before_pixels: bytes = b"") -> bytes:
    """A PNG of 16-bit samples, of shape (height, width, 1 to 4), which Pillow does not write."""
    height, width, num_bands = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[num_bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before_pixels
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of(values: np.ndarray, order: str = "<", sample_format: int = 1) -> bytes:
    """An uncompressed RGB or RGBA TIFF, with the byte order and the samples of the array."""
    height, width, num_bands = values.shape
    content = values.astype(values.dtype.newbyteorder(order)).tobytes()
    lists = struct.pack(f"{order}{2 * num_bands}H", *[8 * values.itemsize] * num_bands, *[sample_format] * num_bands)
    bits, formats = 8 + len(content), 8 + len(content) + 2 * num_bands
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, num_bands, bits), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 8), (277, 3, 1, num_bands), (278, 3, 1, height), (279, 4, 1, len(content))]
    tags += [(338, 3, 1, 2)] * (num_bands == 4) + [(339, 3, num_bands, formats)]
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, num)
        + (struct.pack(f"{order}HH", value, 0) if (kind, num) == (3, 1) else struct.pack(f"{order}I", value))
        for tag, kind, num, value in tags
    )
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(content) + len(lists))
    return start + content + lists + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0"


DEEP_COLOURS = {
    "png": png_of,
    "tiff": tiff_of,
    "tiff, big-endian": lambda values: tiff_of(values, ">"),
    "ppm": lambda values: b"P6 7 5 65535\n" + values.astype(">u2").tobytes(),
    "png with alpha": lambda values: png_of(np.dstack([values, np.full((5, 7), 65535, np.uint16)])),
    "tiff with alpha": lambda values: tiff_of(np.dstack([values, np.full((5, 7), 65535, np.uint16)])),
}


@pytest.mark.parametrize("kind", DEEP_COLOURS)
def test_colours_of_16_bits_are_scaled_by_the_range_of_the_data_set(kind: str) -> None:
    values = np.random.default_rng(0).integers(1000, 1300, (5, 7, 3)).astype(np.uint16)
    data = DEEP_COLOURS[kind](values)
    assert (deep_values(data) == values).all()
    expected = np.rint((values.astype(float) - 1000) / 300 * 255)
    assert (np.asarray(decode_image(data, pixel_range=(1000, 1300)).image) == expected).all()
    assert len(np.unique(np.asarray(read_image(data)))) > 50


def test_grey_png_with_alpha_keeps_16_bits() -> None:
    values = np.arange(1000, 1035, dtype=np.uint16).reshape(5, 7)
    data = png_of(np.dstack([values, np.where(values < 1001, 0, 65535).astype(np.uint16)]))
    assert (deep_values(data)[:, :, 0] == values).all()  # type: ignore[index]
    grey = np.asarray(decode_image(data, channels=1, pixel_range=(1000, 1034)).image)
    assert (grey[0, 0], grey[0, 1], grey[-1, -1]) == (255, 8, 255)  # the first one is transparent, over white


def test_a_fourth_band_that_is_not_alpha_is_scaled_like_the_others() -> None:
    values = np.random.default_rng(0).integers(0, 4000, (5, 7, 4)).astype(np.uint16)
    found = np.asarray(decode_image(tiff_of(values), channels=4, pixel_range=(0, 4000)).image)
    assert (found == np.rint(values / 4000 * 255)).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff_of(np.full((5, 7, 3), 0.5, np.float32), sample_format=3), "TIFF, or samples that are not read"),
        (tiff_of(np.full((5, 7, 3), 70_000, np.uint32)), "TIFF, or samples that are not read"),
        (b"P3 2 1 65535\n1 2 3 100 200 300\n", "samples of more than 8 bits.*convert it to a 16-bit PNG"),
    ],
)
def test_samples_that_pillow_cannot_give_whole_are_unreadable(data: bytes, reason: str) -> None:
    with pytest.raises(ImageReadError, match=reason):
        read_image(data)
    assert deep_values(data) is None


def require_writer(file_format: str) -> Any:
    if file_format == "AVIF":
        if not features.check("avif"):
            pytest.skip("this version of Pillow was built without AVIF")
        return None
    name = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}[file_format]
    package = pytest.importorskip(name, reason="the extra 'formats' is not installed")
    getattr(package, "register_heif_opener", int)()
    return package


@pytest.mark.parametrize("file_format", ["AVIF", "HEIF", "JXL"])
def test_photos_of_newer_formats_are_read(file_format: str, tmp_path: Path) -> None:
    require_writer(file_format)
    photo = arrow((64, 48))
    for frames in ([photo, noise(64, 48)], [photo]):
        options = {} if file_format == "JXL" else {"save_all": True, "append_images": frames[1:]}
        data = encoded(photo, file_format, quality=95, **options)
        assert np.abs(np.asarray(read_image(data)).astype(int) - np.asarray(photo)).mean() < 6
        assert image_size(data) == (64, 48)
    grey = np.asarray(read_image(encoded(photo.convert("L"), file_format, quality=95))).astype(int)
    assert np.abs(grey - np.asarray(photo.convert("L"))[:, :, None]).mean() < 6
    transparent = photo.convert("RGBA")
    transparent.paste((0, 0, 0, 0), (0, 24, 64, 48))
    assert np.asarray(read_image(encoded(transparent, file_format, quality=95)))[40:].min() > 240  # white
    with pytest.raises(ImageReadError, match=r"damaged|broken|truncated"):
        read_image(data[: len(data) // 2])


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("mode", ["RGB;16", "RGBA;16"])
def test_heic_of_more_than_8_bits_is_scaled_by_the_range_of_the_data_set(bits: int, mode: str) -> None:
    pillow_heif = require_writer("HEIF")
    depth = mode.index(";")
    values = np.zeros((32, 48, depth), np.uint16)
    values[:, :, :3] = np.linspace(0, 4080, 48)[None, :, None]  # the lowest sixteenth of the range
    values[:, :, 3:] = 65535
    buffer, image = io.BytesIO(), pillow_heif.from_bytes(mode, (48, 32), values.tobytes())
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    image.save(buffer, quality=-1, chroma=444)
    found = deep_values(buffer.getvalue())
    assert found is not None
    assert np.abs(found.astype(int) - values[:, :, :3]).max() <= 1 << (17 - bits)
    decoded = np.asarray(decode_image(buffer.getvalue(), pixel_range=(0.0, 4080.0)).image)
    assert len(np.unique(decoded)) > 40
    assert decoded.max() >= 250
    assert np.asarray(read_image(buffer.getvalue())).shape == (32, 48, 3)


def test_avif_that_is_read_as_8_bits_is_unreadable_if_it_is_nearly_constant() -> None:
    require_writer("AVIF")
    data = encoded(Image.new("RGB", (32, 32), "gray"), "AVIF")
    assert read_image(data).size == (32, 32)
    deep = bytearray(data)
    deep[data.index(b"av1C") + 6] |= 64  # says that samples have 10 bits, which Pillow does not write
    for content, is_deep in ((data, False), (deep, True)):
        assert decoding._is_read_as_8_bits(Image.open(io.BytesIO(data)), io.BytesIO(content)) == is_deep
    with pytest.raises(ImageReadError, match="damaged AVIF"):
        read_image(bytes(deep))


def gif_of(num_frames: int) -> bytes:
    data = encoded(Image.new("P", (16, 16), 3), "GIF")
    start = data.index(b"\x2c")
    return data[:start] + (b"\x21\xf9\x04\0\0\0\0\0" + data[start:-1]) * num_frames + b";"


def tiled_tiff(side: int) -> bytes:
    """A TIFF of 32 x 32 pixels that claims to have one compressed tile of `side` x `side` pixels."""
    tags = [(256, 4, 32), (257, 4, 32), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    tags += [(322, 4, side), (323, 4, side), (324, 4, 8), (325, 4, 100)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 200) + bytes(192) + struct.pack("<H", len(tags)) + entries + bytes(4)


BOMB = zlib.compress(bytes(1 << 27), 9)
GREY = np.zeros((4, 4, 1), np.uint16)
ICON = png_of(GREY).replace(struct.pack(">II", 4, 4), struct.pack(">II", 30_000, 30_000), 1)


@pytest.mark.parametrize(
    "data",
    [
        png_of(GREY, chunk(b"zTXt", b"a\0\0" + BOMB)),
        png_of(GREY, chunk(b"iCCP", b"a\0\0" + BOMB)),
        png_of(GREY, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20))) * 100),
        tiled_tiff(1 << 30),
        tiled_tiff(30_000),
        b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 270, 2, 0xFFFFFFF0, 8) + bytes(4),
        struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(ICON), 22) + ICON,
        gif_of(1).replace(struct.pack("<HH", 16, 16), struct.pack("<HH", 65535, 65535)),
        b"\x8aW1" * 100,
        b"%PDF-1.4\n1 0 obj<<>>endobj\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhH", 0, 0, 100, 100, 96) + b"\0" * 6 + b"\1\0\x09\0" + bytes(99),
        b"II*\0\x10\0\0\0CR\2\0" + bytes(99),
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(99),
        encoded(noise(16, 16), "JPEG2000")[:100],
        b"P6 30000 5000 65535\n" + bytes(99),
        b"SIMPLE  =                    T".ljust(2880),
    ],
    ids=[
        "text", "profile", "texts", "huge-tile", "tile", "tag", "icon", "gif", "noise", "pdf", "svg", "wmf", "cr2",
        "cr3", "jpeg2000", "ppm", "fits",
    ],
)  # fmt: skip
def test_hostile_files_are_unreadable(data: bytes) -> None:
    for read in (read_image, image_size):
        with contextlib.suppress(ImageReadError):
            read(data)
            assert read is image_size  # it may be in the header
    assert deep_values(data) is None


@pytest.mark.parametrize(
    "data",
    [
        gif_of(20_000),
        png_of(GREY, chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
        encoded(noise(16, 16), "MPO", save_all=True, append_images=[noise(16, 16)] * 3),
        encoded(Image.new("CMYK", (16, 16), (9, 99, 0, 0)), "JPEG"),
        encoded(Image.new("1", (16, 16), 1), "TIFF", compression="group4"),
        encoded(Image.fromarray(np.full((16, 16), np.nan, np.float32)), "TIFF"),
        encoded(Image.fromarray(np.arange(256).reshape(16, 16).astype(np.int32) * 10**6), "TIFF"),
    ],
    ids=["gif", "apng", "mpo", "cmyk", "1-bit", "nan", "int32"],
)
def test_odd_files_are_read_by_their_first_frame(data: bytes) -> None:
    assert read_image(data).mode == "RGB"


def test_a_jpeg_with_too_much_metadata_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = encoded(noise(64, 64), "JPEG")
    block = b"\xff\xe1\xff\xff" + b"Exif\0\0".ljust(65533, b"a")
    monkeypatch.setattr(decoding, "_MAX_METADATA_BYTES", 1 << 20)
    assert read_image(photo[:2] + block * 15 + photo[2:]).size == (64, 64)
    assert read_image(photo + bytes(1 << 21)).size == (64, 64)
    with pytest.raises(ImageReadError, match="more than 1 MiB of metadata"):
        read_image(photo[:2] + block * 17 + photo[2:])


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr", "HSV", "RGBX", "RGBA", "LA"])
def test_colours_survive_the_modes(mode: str) -> None:
    gray = Image.new("RGB", (4, 4), (90, 90, 90)).convert("L").convert("RGB")
    through = read_image(gray.convert(mode))
    assert np.abs(np.asarray(through).astype(int) - 90).max() <= 2


def test_lab_becomes_the_colour_it_names() -> None:
    red = Image.new("RGB", (4, 4), (220, 20, 30))
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert np.abs(np.asarray(read_image(lab)).astype(int) - [220, 20, 30]).max() <= 6  # Lab has 8 bits here


@pytest.mark.parametrize("source", ["path", "string", "bytes", "image", "array"])
def test_all_sources_give_the_same_pixels(source: str, tmp_path: Path) -> None:
    original = noise(9, 6)
    path = tmp_path / "image.png"
    original.save(path)
    sources = {
        "path": path,
        "string": str(path),
        "bytes": path.read_bytes(),
        "image": original,
        "array": np.asarray(original),
    }
    assert np.array_equal(np.asarray(read_image(sources[source])), np.asarray(original))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JXL"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(file_format: str, orientation: int) -> None:
    upright = arrow()
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if undo is None else upright.transpose(undo)
    if file_format not in ("JPEG", "PNG", "WEBP", "TIFF"):
        require_writer(file_format)
    is_lossless = file_format in ("WEBP", "JXL")
    options = {"lossless": True} if is_lossless else {} if file_format in ("PNG", "TIFF") else {"quality": 95}
    data = encoded(stored, file_format, exif=exif.tobytes() if file_format in ("HEIF", "JXL") else exif, **options)

    image = read_image(data)

    assert image.size == upright.size == image_size(data)
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(upright).astype(int))
    assert np.median(difference, axis=(0, 1)).max() <= 3  # JPEG blurs the edges
    assert np.array_equal(np.asarray(read_image(image)), np.asarray(image)), "reading again must not turn it again"


def test_compressed_tiff_is_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(arrow().transpose(Image.Transpose.ROTATE_90), "TIFF", exif=exif, compression="tiff_lzw")
    assert np.array_equal(np.asarray(read_image(data)), np.asarray(arrow()))
    assert image_size(data) == arrow().size


def test_a_pillow_image_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    noise(400, 300).save(path)
    with Image.open(path) as opened:
        small = read_image(opened, min_shorter_side=20)
        assert opened.size == small.size == (400, 300)
        assert read_image(opened) is not opened
    rgb = noise(3, 3)
    read_image(rgb).putpixel((0, 0), (1, 2, 3))
    assert rgb.getpixel((0, 0)) == noise(3, 3).getpixel((0, 0))


@pytest.mark.parametrize(
    "transparent",
    [
        Image.new("RGBA", (2, 2), (10, 20, 30, 0)),
        Image.new("LA", (2, 2), (10, 0)),
        Image.new("RGBa", (2, 2), (0, 0, 0, 0)),
        Image.new("La", (2, 2), (0, 0)),
    ],
    ids=lambda image: image.mode,
)
def test_transparency_becomes_white(transparent: Image.Image) -> None:
    assert read_image(transparent).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_the_transparent_colour_of_a_png_becomes_white(mode: str) -> None:
    black = Image.new(mode, (2, 1))
    data = encoded(black, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert read_image(data).getpixel((0, 0)) == (255, 255, 255)


def test_half_transparency_is_mixed_with_white() -> None:
    assert read_image(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)


def test_a_palette_with_alpha_bytes_makes_no_warning() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    data = encoded(image, "PNG", transparency=b"\x00\xff")
    read = read_image(data)
    assert read.getpixel((0, 0)) == (255, 255, 255)
    assert read.getpixel((1, 0)) == (0, 255, 0)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(file_format: str) -> None:
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    gray = np.asarray(read_image(encoded(Image.fromarray(values), file_format)))[0, :, 0]
    assert gray.tolist() == [0, 1, 128, 255]


def test_integers_beyond_sixteen_bits_are_stretched() -> None:
    image = Image.fromarray(np.array([[-100_000, 0, 100_000]], dtype=np.int32))
    assert np.asarray(read_image(image))[0, :, 0].tolist() == pytest.approx([0, 128, 255], abs=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 3.0, 255.0], [0, 3, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 500.0, 1000.0], [0, 128, 255]),
        ([float("nan"), 0.2, float("inf")], [0, 51, 0]),
        ([1000.0, float("nan"), 2000.0], [0, 0, 255]),
        ([float("nan")] * 3, [0, 0, 0]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
    ],
)
def test_floats_are_scaled_by_their_range(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert np.asarray(read_image(image))[0, :, 0].tolist() == pytest.approx(expected, abs=1)


def test_a_narrow_range_keeps_its_grey_levels_alike_in_all_forms(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(51_000, 52_000, (40, 50)).astype(np.uint16)
    forms: list[Any] = [values, values.astype(np.int32), values.astype(np.float32), Image.fromarray(values)]
    for number, (file_format, dtype) in enumerate([("PNG", "u2"), ("TIFF", "u2"), ("TIFF", "i4"), ("TIFF", "f4")]):
        forms.append(tmp_path / f"{number}.{file_format.lower()}")
        Image.fromarray(values.astype(dtype)).save(forms[-1])
    read = [np.asarray(read_image(form))[..., 0].astype(int) for form in forms]
    assert len(np.unique(read[0])) > 200
    for one in read:
        assert np.abs(one - read[0]).max() <= 1
    # By the range of a data set, an image of one half of it stays dark.
    assert np.asarray(decode_image(values, pixel_range=(51_000.0, 53_000.0)).image).max() == 127


def test_an_image_that_takes_too_much_memory_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    large = np.broadcast_to(np.float32(0), (178_000_000, 1))
    with pytest.raises(ImageReadError, match=r"178000000 pixels take 2\.8 GB .* more than 2 GB.*MAX_IMAGE"):
        read_image(large)
    monkeypatch.setenv("SACCADE_MAX_IMAGE_GB", "0.001")
    path = tmp_path / "deep.tif"
    Image.fromarray(np.zeros((100, 700), np.float32)).save(path)
    for source in (path, path.read_bytes(), noise(100, 700), encoded(noise(100, 700), "PNG")):
        with pytest.raises(ImageReadError, match="70000 pixels"):
            read_image(source)
    inner = encoded(noise(300, 300), "PNG")
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    with pytest.raises(ImageReadError, match="90000 pixels"):
        read_image(icon)
    assert read_image(encoded(noise(100, 700), "JPEG"), min_shorter_side=20).size == (25, 175)
    monkeypatch.setenv("SACCADE_MAX_IMAGE_GB", "much")
    with pytest.raises(HyperparameterError, match="gigabytes"):
        read_image(path)


@given(
    hnp.arrays(
        dtype=st.sampled_from([np.uint8, np.uint16, np.bool_, np.float32, np.float64, np.dtype(">u2"), np.int64]),
        shape=st.one_of(
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
            st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3, 4])),
        ),
    )
)
def test_arrays_of_image_shape_are_read_or_raise_image_read_error(array: np.ndarray) -> None:
    finite = array[np.isfinite(array)]
    if array.ndim == 3 and array.shape[2] > 1 and finite.size and finite.min() < 0:
        with pytest.raises(ImageReadError, match="negative"):
            read_image(array)
        return
    image = read_image(array)
    assert image.mode == "RGB"
    assert image.size == (array.shape[1], array.shape[0]) == image_size(array)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), (3, 8, 8), (0, 4, 3), (1, 2, 2, 3)])
def test_arrays_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageReadError, match=r"expected an array of shape"):
        read_image(np.zeros(shape, dtype=np.uint8))


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for file_format in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert read_image(data).getpixel((0, 0)) == (255, 0, 0)


def test_large_jpeg_is_decoded_at_a_reduced_scale() -> None:
    data = encoded(noise(800, 600), "JPEG")
    decoded = decode_image(data, min_shorter_side=100)
    assert decoded.image.size == (200, 150)
    assert decoded.full_size == (800, 600)
    assert read_image(data, min_shorter_side=601).size == (800, 600)
    assert read_image(encoded(noise(80, 60), "PNG"), min_shorter_side=10).size == (80, 60)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 200), st.sampled_from([1, 6]))
def test_reduced_scale_keeps_the_shorter_side(width: int, height: int, side: int, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.new("RGB", (width, height)), "JPEG", exif=exif)
    decoded = decode_image(data, min_shorter_side=side)
    assert decoded.full_size == ((width, height) if orientation == 1 else (height, width)) == image_size(data)
    assert min(decoded.image.size) >= min(side, width, height)


def jpeg_of_scans(num: int) -> bytes:
    """A progressive JPEG whose last scan is repeated, each of which a decoder applies to all pixels."""
    file = io.BytesIO()
    Image.new("L", (2000, 2000)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * num + content[-2:]


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "file is empty"),
        (b"<html>not found</html>", "not an image: cannot identify its format"),
        (encoded(noise(64, 64), "JPEG")[:20], "not an image: cannot identify its format"),
        (encoded(noise(64, 64), "JPEG")[:3000], "truncated"),
        (encoded(noise(64, 64), "PNG")[:3000], "truncated"),
        (png_that_claims(20_000, 10_000), "decompression bomb: 200000000 pixels"),
        (jpeg_of_scans(2000), "decompression bomb: 8"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "EPS files are not read"),
    ],
    ids=["empty", "html", "header-only", "half-jpeg", "half-png", "bomb", "scans", "eps"],
)
def test_the_error_for_unreadable_data_has_the_reason(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    for source in (data, path):
        with pytest.raises(ImageReadError, match=reason):
            read_image(source)


def test_the_error_for_a_damaged_png_names_the_damage() -> None:
    data = bytearray(encoded(noise(64, 64), "PNG"))
    data[200:220] = bytes(20)
    with pytest.raises(ImageReadError, match=r"broken data|truncated"):
        read_image(bytes(data))


def test_the_error_for_files_that_cannot_be_opened_has_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageReadError, match=r"is a folder|cannot be opened"):
        read_image(tmp_path)
    with pytest.raises(ImageReadError, match="null"):
        read_image("a\0b.png")
    for wrong in (None, float("nan"), 3):
        with pytest.raises(ImageReadError, match=f"of type {type(wrong).__name__}"):
            read_image(wrong)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_files_read_or_raise_image_read_error(file_format: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(encoded(arrow(), file_format))
    for position, value in changes:
        data[position % len(data)] = value
    with contextlib.suppress(ImageReadError):
        assert read_image(bytes(data)).mode == "RGB"


def test_broken_exif_does_not_lose_the_image() -> None:
    data = encoded(arrow(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert read_image(data).size == arrow().size


def test_large_images_make_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    assert read_image(encoded(Image.new("L", (100, 80)), "PNG")).size == (100, 80)


def test_warnings_of_others_pass_and_the_filters_come_back() -> None:
    before = list(warnings.filters)
    with quiet_pillow(), pytest.warns(UserWarning, match="ours"):
        warnings.warn("ours", UserWarning, stacklevel=1)
    assert list(warnings.filters) == before


def test_threads_do_not_let_warnings_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    data = encoded(Image.new("L", (100, 80)), "PNG")
    before = list(warnings.filters)
    failures: list[BaseException] = []

    def read_many() -> None:
        try:
            for _ in range(40):
                read_image(data)
        except BaseException as error:  # a warning would come as an exception: it is an error in these tests
            failures.append(error)

    threads = [threading.Thread(target=read_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(warnings.filters) == before
