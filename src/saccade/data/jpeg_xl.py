"""The header of a JPEG XL file, since its plugin for Pillow decodes all pixels while it opens the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

_HEADER_BYTES = 64  # more than a header without preview and animation takes
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}  # width to height


@dataclass(frozen=True)
class JpegXLHeader:
    """What is known before the pixels are decoded."""

    width: int
    height: int
    orientation: int  # the decoder turns the pixels by it; that of the EXIF data is then a copy of it
    bits: int  # of each sample; 8 if it is not in the first bytes


def read_header(file: BinaryIO) -> JpegXLHeader:
    """Read the header from the start of the file; a ValueError says what is wrong."""
    bits = _Bits(_codestream(file))
    if bits.take(16) != 0x0AFF:
        raise ValueError("no JPEG XL codestream")
    width, height = _size(bits)
    orientation, num_bits = 1, 8
    if not bits.take(1):  # fields that are not the default
        is_followed_by_depth = True
        if bits.take(1):
            orientation = bits.take(3) + 1
            if bits.take(1):
                _size(bits)  # the size that is meant to be shown
            is_followed_by_depth = not bits.take(1) and not bits.take(1)  # no preview, no animation
        if is_followed_by_depth and not bits.take(1):  # no floats
            choice = bits.take(2)
            num_bits = (8, 10, 12)[choice] if choice < 3 else bits.take(6) + 1
    return JpegXLHeader(width, height, orientation, num_bits)


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._left, self._num_left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, num: int) -> int:
        if num > self._num_left:
            raise ValueError("truncated")
        value = self._left & ((1 << num) - 1)
        self._left >>= num
        self._num_left -= num
        return value


def _size(bits: _Bits) -> tuple[int, int]:
    is_small = bits.take(1)

    def side() -> int:
        return (bits.take(5) + 1) * 8 if is_small else bits.take((9, 13, 18, 30)[bits.take(2)]) + 1

    height, ratio = side(), bits.take(3)
    if ratio == 0:
        return side(), height
    over, under = _RATIOS[ratio]
    return height * over // under, height


def _codestream(file: BinaryIO) -> bytes:
    """Return the first bytes of the codestream, which may be split over boxes of a container."""
    file.seek(0)
    start = file.read(_HEADER_BYTES)
    if start.startswith(b"\xff\x0a"):
        return start
    position, found = 0, b""
    while len(found) < _HEADER_BYTES:
        file.seek(position)
        box = file.read(16)
        if len(box) < 8:
            break
        length, header = int.from_bytes(box[:4], "big"), 8
        if length == 1:
            length, header = int.from_bytes(box[8:16], "big"), 16
        if box[4:8] in (b"jxlc", b"jxlp"):
            header += 4 if box[4:8] == b"jxlp" else 0  # the number of the part
            file.seek(position + header)
            found += file.read(min(length - header, _HEADER_BYTES) if length else _HEADER_BYTES)
        if length < 8:  # 0: up to the end of the file
            break
        position += length
    return found
