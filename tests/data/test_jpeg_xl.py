from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from saccade.data.decoding import image_size, read_image
from saccade.data.jpeg_xl import JpegXLHeader, read_header
from saccade.errors import ImageReadError

pytest.importorskip("pillow_jxl", reason="the extra 'formats' is not installed")


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JXL", **options)
    return buffer.getvalue()


def ramp() -> Image.Image:
    columns, rows = np.meshgrid(np.linspace(0, 255, 47), np.linspace(0, 255, 31))
    return Image.fromarray(np.dstack([columns, rows, columns]).astype(np.uint8))


def rewritten(size: tuple[int, int], orientation: int = 1, bits: int = 8, photo: Image.Image | None = None) -> bytes:
    """A lossy image whose header has other values: its bits are the lowest of each byte first."""
    data = encoded(ramp() if photo is None else photo, quality=90)  # 16 bits; 1 + 2 + 9, 3, 2 + 9 of the size; 2
    written: list[int] = []

    def put(value: int, num: int) -> None:
        written.extend(value >> bit & 1 for bit in range(num))

    put(0x0AFF, 16)
    put(0, 1)
    for number, side in enumerate(reversed(size)):
        put(3, 2)
        put(side - 1, 30)
        if number == 0:
            put(0, 3)  # no ratio
    put(0b10, 2)  # fields that are not the default, and extra fields
    put(orientation - 1, 3)
    put(0, 3)  # no other size, no preview, no animation
    put(0b110, 3)  # integers
    put(bits - 1, 6)
    put(0, 1)
    put(0, 2)  # no further channels
    put(0b111, 3)  # colours and tone mapping have their default
    put(0, 2)  # no extensions
    put(1, 1)
    written.extend([0] * (-len(written) % 8))
    start = bytes(
        sum(bit << place for place, bit in enumerate(written[at : at + 8])) for at in range(0, len(written), 8)
    )
    return start + data[(16 + 12 + 3 + 11 + 2 + 7) // 8 :]


@pytest.mark.parametrize("size", [(8, 8), (256, 256), (40, 24), (1, 5), (600, 300), (320, 180), (33, 1000), (8200, 1)])
def test_the_size_is_that_of_the_header(size: tuple[int, int]) -> None:
    for data in (encoded(Image.new("RGB", size)), encoded(Image.new("L", size), use_container=True)):
        assert read_header(io.BytesIO(data)) == JpegXLHeader(*size, 1, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_the_decoder_has_turned_is_not_turned_by_its_exif_data(orientation: int) -> None:
    codestream = rewritten((47, 31), orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")
    boxes = ((b"JXL ", b"\r\n\x87\n"), (b"ftyp", b"jxl \0\0\0\0jxl "), (b"jxlp", bytes(4) + codestream[:5]))
    boxes += ((b"Exif", content), (b"jxlp", b"\x80\0\0\1" + codestream[5:]))
    data = b"".join(struct.pack(">I", len(each) + 8) + kind + each for kind, each in boxes)
    assert read_header(io.BytesIO(data)) == JpegXLHeader(47, 31, orientation, 8)
    expected = np.asarray(read_image(codestream))
    assert image_size(data) == ((31, 47) if orientation > 4 else (47, 31))
    assert np.array_equal(np.asarray(read_image(data)), expected)


def test_colours_of_more_bits_are_unreadable_if_they_are_nearly_constant() -> None:
    assert read_image(rewritten((47, 31), bits=16)).size == (47, 31)
    dark = Image.fromarray(np.asarray(ramp()) // 16)
    assert read_image(rewritten((47, 31), bits=8, photo=dark)).size == (47, 31)
    with pytest.raises(ImageReadError, match="JXL image with samples of more than 8 bits"):
        read_image(rewritten((47, 31), bits=16, photo=dark))


@pytest.mark.parametrize("read", [read_image, image_size])
def test_an_image_that_takes_too_much_memory_is_refused_before_it_is_decoded(read) -> None:
    with pytest.raises(ImageReadError, match="2500000000 pixels"):
        read(rewritten((50_000, 50_000)))
    with pytest.raises(ImageReadError, match=r"truncated|broken"):
        read(rewritten((47, 31))[:6])


def test_a_jpeg_inside_is_turned_by_its_exif_data(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp().save(tmp_path / "photo.jpg", exif=exif)
    data = encoded(Image.open(tmp_path / "photo.jpg"), lossless_jpeg=True)
    assert read_image(data).size == (31, 47)
    assert np.array_equal(np.asarray(read_image(data)), np.asarray(read_image(tmp_path / "photo.jpg")))
