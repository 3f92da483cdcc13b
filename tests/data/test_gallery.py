from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from saccade.data.gallery import _characters_of, _fitting, _fonts_for, draw_gallery, letters_of_line
from saccade.errors import DataError

RED, GREEN, BLUE = ((220, 30, 30), (30, 160, 60), (30, 60, 200))


def picture(color=RED, size=(60, 40)):
    return Image.new("RGB", size, color)


def drawn(figure):
    """The picture as it is written to a file, an array of shape (height, width, 3)."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def has_color(pixels, color):
    return bool((np.abs(pixels.astype(int) - color).max(axis=-1) < 12).any())


@pytest.mark.parametrize(("num", "ncol", "tiles"), [(1, 4, (1, 1)), (4, 4, (1, 4)), (5, 4, (2, 4)), (3, 1, (3, 1))])
def test_the_size_of_the_grid_depends_on_the_number_of_images(num, ncol, tiles):
    figure = draw_gallery([picture()] * num, ncol=ncol, resize=50)
    rows, columns = tiles
    assert drawn(figure).shape[:2] == (12 + rows * 62, 12 + columns * 62)
    assert len(figure.axes) == num


def test_images_come_in_reading_order_and_undistorted():
    pixels = drawn(draw_gallery([picture(RED), picture(GREEN), picture(BLUE, (40, 60))], ncol=2, resize=60))
    assert pixels[12 + 30, 12 + 30].tolist() == list(RED)
    assert pixels[12 + 30, 12 + 60 + 12 + 30].tolist() == list(GREEN)
    assert pixels[12 + 60 + 12 + 30, 12 + 30].tolist() == list(BLUE)
    is_red = (pixels == RED).all(axis=-1)
    assert (is_red.any(axis=0).sum(), is_red.any(axis=1).sum()) == (60, 40)
    is_blue = (pixels == BLUE).all(axis=-1)
    assert (is_blue.any(axis=0).sum(), is_blue.any(axis=1).sum()) == (40, 60)


def test_titles_are_drawn_in_their_colours():
    figure = draw_gallery(
        [picture((0, 0, 0))] * 2, titles=["right", "wrong"], title_colors=["#1ea03c", "#dc1e1e"], resize=100
    )
    left, right = np.split(drawn(figure), 2, axis=1)
    assert has_color(left, GREEN)
    assert not has_color(left, RED)
    assert has_color(right, RED)


def test_long_titles_become_smaller_and_are_finally_cut():
    def title_of(text):
        (axes,) = draw_gallery([picture()], titles=[text]).axes
        return axes.texts[0].get_text(), axes.texts[0].get_fontsize()

    assert title_of("boot") == ("boot", 20)
    text, fontsize = title_of("a rather long name of a class")
    assert text == "a rather long name of a class"
    assert 8 <= fontsize < 20
    text, fontsize = title_of("x" * 300)
    assert text.endswith("x…")
    assert len(text) < 60
    assert fontsize == 8


def test_a_title_is_never_wider_than_its_tile():
    for text in ("mmmmm", "a rather long name of a class", "lllllll", "Pneumonoultramicroscopic"):
        figure = draw_gallery([picture((255, 255, 255))], titles=[text])
        pixels = drawn(figure)
        assert (pixels[:, :3] == 255).all()
        assert (pixels[:, -3:] == 255).all()


def test_titles_are_not_parsed_as_formulas():
    drawn(draw_gallery([picture()] * 3, titles=["$x_1$ and $", "two\nlines", ""]))


@pytest.mark.parametrize("size", [(3000, 2), (2, 3000), (1, 1)])
def test_images_of_extreme_shape_are_visible(size):
    assert has_color(drawn(draw_gallery([picture(BLUE, size)], resize=40)), BLUE)


def test_tiny_images_keep_their_pixels():
    pixels = np.array([[RED, BLUE], [BLUE, RED]], dtype=np.uint8)
    colors = np.unique(drawn(draw_gallery([pixels], resize=64)).reshape(-1, 3), axis=0)
    assert {tuple(color) for color in colors.tolist()} <= {RED, BLUE, (255, 255, 255)}


def test_the_tile_of_an_unreadable_image_has_the_reason(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    figure = draw_gallery([tmp_path / "a.jpg", tmp_path / "gone.jpg", picture()], titles=["a", "b", "c"])
    assert [axes.texts[0].get_text().startswith("unreadable") for axes in figure.axes] == [True, True, False]
    assert has_color(drawn(figure), RED)


def test_notebooks_get_a_png_file_without_pyplot():
    was_loaded = "matplotlib.pyplot" in sys.modules
    figure = draw_gallery([picture()])
    assert Image.open(io.BytesIO(figure._repr_png_())).format == "PNG"
    assert ("matplotlib.pyplot" in sys.modules) == was_loaded


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": []}, "no images"),
        ({"ncol": 0}, "ncol is 0"),
        ({"resize": 1}, "resize is 1"),
    ],
)
def test_invalid_arguments_are_errors(arguments, message):
    with pytest.raises(DataError, match=message):
        draw_gallery(**{"images": [picture()], **arguments})


def test_a_line_break_begins_another_line_of_a_title():
    def figure_of(title):
        return draw_gallery([picture((0, 0, 0))], titles=[title], resize=100, fontsize=12)

    one, two = figure_of("wide"), figure_of("wide\nwide")
    (axes,) = two.axes
    assert axes.texts[0].get_text() == "wide\nwide"
    assert axes.texts[0].get_fontsize() == 12
    pixels = drawn(two)
    taller = len(pixels) - len(drawn(one))
    assert 15 <= taller <= 25
    ink = (pixels[: len(pixels) - 112] < 200).any(axis=(1, 2))
    assert not ink[:4].any()
    assert not ink[-1:].any()
    assert np.diff(ink.astype(int)).tolist().count(1) == 2
    (axes,) = figure_of("x" * 300 + "\nshort").axes
    cut, whole = axes.texts[0].get_text().split("\n")
    assert cut.endswith("x…")
    assert whole == "short"


def test_none_leaves_a_tile_empty():
    figure = draw_gallery([picture(RED), None, None, picture(BLUE)], titles=["a", "", "", "b"], ncol=2, resize=50)
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["a", "b"]
    pixels = drawn(figure)
    assert (pixels[: len(pixels) // 2, 74:] == 255).all()
    assert (pixels[len(pixels) // 2 :, :74] == 255).all()
    assert has_color(pixels[len(pixels) // 2 :, 74:], BLUE)


def test_characters_without_a_font_are_codes_with_one_warning(monkeypatch):
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    _fonts_for.cache_clear()
    with pytest.warns(UserWarning, match="No installed font has the characters 猫") as caught:
        figure = draw_gallery([Image.new("L", (8, 8))] * 2, ["猫 · 90%", "cat"])
    assert len(caught) == 1
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["U+732B · 90%", "cat"]
    with pytest.warns(UserWarning, match="No installed font"):
        long = draw_gallery([Image.new("L", (8, 8))], ["猫" * 40])
    assert len(long.axes[0].texts[0].get_text()) == letters_of_line(224)  # codes are cut like other titles
    figure.savefig(io.BytesIO())  # a glyph that is missing would be a warning, which is an error here
    _fonts_for.cache_clear()


def test_characters_come_from_an_installed_font_that_has_them():
    own = _characters_of(font_manager.findfont(font_manager.FontProperties()))
    other = next(font for font in font_manager.fontManager.ttflist if font.name == "STIXGeneral")
    character = max(_characters_of(other.fname) - own)
    figure = draw_gallery([Image.new("L", (8, 8))], [character])
    assert figure.axes[0].texts[0].get_text() == character
    assert len(figure.axes[0].texts[0].get_fontfamily()) > 1
    figure.savefig(io.BytesIO())


def test_titles_of_wide_characters_are_set_smaller_and_cut_earlier():
    assert _fitting(["猫" * 10], 20, 224)[0] == _fitting(["a" * 20], 20, 224)[0]
    assert _fitting(["猫" * 40], 20, 224)[1] == ["猫" * 17 + "…"]
    assert _fitting(["a" * 40], 20, 224)[1] == ["a" * 34 + "…"]
