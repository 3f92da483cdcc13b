"""A grid of images with titles."""

from __future__ import annotations

import functools
import io
import textwrap
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from saccade.data.decoding import read_image
from saccade.errors import DataError, ImageReadError

if TYPE_CHECKING:
    from saccade.data.decoding import ImageSource

_PIXELS_PER_INCH = 100
_POINTS_PER_INCH = 72
_LETTER_WIDTH = 0.58  # of an average letter, as a share of the font's size
_TITLE_HEIGHT, _LINE_HEIGHT, _ABOVE_TILE = 1.7, 1.2, 0.27  # of a title, each further line of it, and the space below
_SMALLEST_FONT = 8.0  # points; longer titles are cut rather than set smaller
_GAP = 12  # pixels between tiles and around all of them
_BACKGROUND = "#ffffff"
_TILE_COLOR = (243, 243, 245)
_TEXT_COLOR = "#222222"
_FAINT_COLOR = "#888888"


class Gallery(Figure):
    """A matplotlib figure that notebooks show without pyplot."""

    def _repr_png_(self) -> bytes:
        """Return the figure as a PNG file, for notebooks."""
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def draw_gallery(
    images: Sequence[ImageSource | None],
    titles: Sequence[str] | None = None,
    ncol: int = 4,
    resize: int = 224,
    fontsize: float = 20,
    title_colors: Sequence[str] | None = None,
) -> Gallery:
    """Draw images in a grid, each whole on a tile of `resize` pixels, without global state of matplotlib.

    The tile of an unreadable image shows the reason, and None leaves its place empty. Titles, of one line or more, that
    do not fit are set smaller than `fontsize` points, and finally cut. Raises a DataError for invalid arguments.
    """
    if not len(images):
        raise DataError("There are no images to draw.")
    if ncol < 1:
        raise DataError(f"ncol is {ncol}; expected at least 1 column.")
    if resize < 16:
        raise DataError(f"resize is {resize}; expected tiles of at least 16 pixels.")
    ncol = min(ncol, len(images))
    nrow = -(-len(images) // ncol)
    fontsize, titles = _fitting(_with_codes(titles or ()), fontsize, resize)
    num_lines = max((title.count("\n") + 1 for title in titles), default=0)
    ems = _TITLE_HEIGHT + _LINE_HEIGHT * (num_lines - 1) if titles else 0.0
    title_height = round(ems * fontsize * _PIXELS_PER_INCH / _POINTS_PER_INCH)
    width = _GAP + ncol * (resize + _GAP)
    height = _GAP + nrow * (title_height + resize + _GAP)
    size = (width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH)
    figure = Gallery(figsize=size, dpi=_PIXELS_PER_INCH, facecolor=_BACKGROUND)
    for position, image in enumerate(images):
        if image is None:
            continue
        row, column = divmod(position, ncol)
        left = _GAP + column * (resize + _GAP)
        bottom = height - (row + 1) * (title_height + resize + _GAP)
        axes = figure.add_axes((left / width, bottom / height, resize / width, resize / height))
        axes.set_axis_off()
        _draw_tile(axes, image, resize)
        if titles:
            color = title_colors[position] if title_colors else _TEXT_COLOR
            above = 1 + _ABOVE_TILE * fontsize * _PIXELS_PER_INCH / _POINTS_PER_INCH / resize
            style: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": fontsize, "color": color}
            # A name with dollar signs is not a formula.
            axes.text(0.5, above, titles[position], transform=axes.transAxes, parse_math=False, **style)
    use_fonts_for(text for axes in figure.axes for text in axes.texts)
    return figure


def use_fonts_for(texts: Iterable[Text]) -> None:
    """Give texts installed fonts that have their characters; others become codes, as ``U+732B``, with a warning."""
    texts = list(texts)
    contents = _with_codes([text.get_text() for text in texts])
    families, _ = _fonts_for(_special_characters(contents))
    for text, content in zip(texts, contents, strict=True):
        text.set_fontfamily(families)
        text.set_text(content)


def _special_characters(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(character for text in texts for character in text if ord(character) > 126)


def _with_codes(texts: Sequence[str]) -> list[str]:
    _, missing = _fonts_for(_special_characters(texts))
    if missing:
        listed = " ".join(sorted(missing)[:10])
        warnings.warn(
            f"No installed font has the characters {listed}: they are drawn as codes. Install a font that has them, "
            "such as Noto Sans CJK.",
            stacklevel=3,
        )
    return ["".join(f"U+{ord(each):04X} " if each in missing else each for each in text).rstrip() for text in texts]


@functools.cache
def _fonts_for(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Return the families of fonts that have these characters, matplotlib's own first, and what none of them has."""
    own = font_manager.FontProperties()
    families = list(own.get_family())
    missing = characters - _characters_of(font_manager.findfont(own)) if characters else characters
    fonts = font_manager.fontManager.ttflist
    for font in sorted(fonts, key=lambda font: (font.style != "normal", font.weight != 400, font.name)):
        if "last resort" in font.name.lower():  # it has boxes for all characters
            continue
        if found := missing & _characters_of(font.fname):
            families.append(font.name)
            missing -= found
        if not missing:
            break
    return families, missing


@functools.cache
def _characters_of(file: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, font_manager.get_font(file).get_charmap()))
    except (OSError, RuntimeError):  # a font that was removed, or that FreeType cannot read
        return frozenset()


def _draw_tile(axes: Axes, image: ImageSource, side: int) -> None:
    """Draw the whole image in the middle of a square, or the reason why it is unreadable."""
    tile = Image.new("RGB", (side, side), _TILE_COLOR)
    try:
        whole = read_image(image, min_shorter_side=side)
        is_tiny = max(whole.size) * 3 <= side  # its pixels stay sharp
        method = Image.Resampling.NEAREST if is_tiny else Image.Resampling.LANCZOS
        width, height = (max(1, round(length * side / max(whole.size))) for length in whole.size)
        tile.paste(whole.resize((width, height), method), ((side - width) // 2, (side - height) // 2))
    except ImageReadError as error:
        fontsize = max(6.0, side / 20)
        num_letters = max(10, int(side * _POINTS_PER_INCH / _PIXELS_PER_INCH / (_LETTER_WIDTH * fontsize)))
        text = "\n".join(["unreadable:", *textwrap.wrap(str(error), num_letters, max_lines=5, placeholder=" …")])
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": fontsize, "color": _FAINT_COLOR}
        axes.text(0.5, 0.5, text, transform=axes.transAxes, parse_math=False, **style)
    # One pixel of the tile is one pixel of the figure, so there is nothing to interpolate.
    axes.imshow(np.asarray(tile), interpolation="nearest")


def letters_of_line(resize: int, fontsize: float = _SMALLEST_FONT) -> int:
    """Return how many letters of a title fit over a tile of `resize` pixels, by default in the smallest font."""
    return max(4, round(resize * _POINTS_PER_INCH / _PIXELS_PER_INCH / (_LETTER_WIDTH * fontsize)))


def _num_letters(text: str) -> int:
    """Return how many average letters are as wide as a text."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _cut(line: str, num_letters: int) -> str:
    if _num_letters(line) <= num_letters:
        return line
    while _num_letters(line) >= num_letters:
        line = line[:-1]
    return f"{line}…"


def _fitting(titles: Sequence[str], fontsize: float, resize: int) -> tuple[float, list[str]]:
    """Return a font size at which all titles fit their tiles, and the titles, cut if there is none."""
    if not titles:
        return fontsize, []
    lines_of = [[" ".join(line.split()) for line in title.splitlines()] for title in titles]
    longest = max((_num_letters(line) for lines in lines_of for line in lines), default=0)
    points = resize * _POINTS_PER_INCH / _PIXELS_PER_INCH
    fontsize = min(fontsize, max(_SMALLEST_FONT, points / (_LETTER_WIDTH * max(longest, 1))))
    num_letters = letters_of_line(resize, fontsize)
    return fontsize, ["\n".join(_cut(line, num_letters) for line in lines) for lines in lines_of]
