"""Figures of predictions and of their explanations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import same_color

from saccade.errors import DataError
from saccade.insight.figures import OTHER, RIGHT, WRONG, Neighbour, Reason, predictions_figure, reasons_figure

DARK, GREY, BRIGHT = IMAGES = [np.full((8, 8, 3), level, np.uint8) for level in (0, 128, 255)]


def test_wrong_predictions_are_marked_by_colour_and_by_the_true_label():
    figure = predictions_figure(IMAGES, ["cat", "dog", "cat"], ["cat", "cat", "cat"], [0.999, 0.514, 0.7])
    titles = [axes.texts[0] for axes in figure.axes]
    assert [title.get_text() for title in titles] == ["cat · 100%", "dog · 51%, is cat", "cat · 70%"]
    assert [same_color(title.get_color(), WRONG) for title in titles] == [False, True, False]
    assert same_color(titles[0].get_color(), RIGHT)


def titles_of(figure):
    return [axes.texts[-1].get_text().split("\n") for axes in figure.axes]


def test_a_row_has_image_overlay_and_neighbours():
    near = (Neighbour(GREY, "dog", 0.931), Neighbour(BRIGHT, "cat", 0.5), Neighbour(DARK, None, -0.25))
    wrong = Reason(DARK, "cat", 0.874, "dog", overlay=GREY, neighbours=near)
    right = Reason(DARK, "dog", 0.999, "dog", overlay=GREY, neighbours=near[:1])
    figure = reasons_figure([wrong, right])
    assert titles_of(figure) == [
        ["cat · 87%", "is dog"],
        ["saliency"],
        ["≠ dog", "similarity 0.93"],
        ["cat", "similarity 0.50"],
        ["similarity -0.25"],
        ["dog · 100%"],
        ["saliency"],
        ["dog", "similarity 0.93"],
    ]
    left, bottom = zip(*[axes.get_position().p0 for axes in figure.axes], strict=True)
    assert left[5:] == pytest.approx(left[:3])
    assert np.unique(np.round(bottom, 6)).size == 2
    assert max(bottom[5:]) < min(bottom[:5])


def test_unreadable_images_have_titles_and_no_neighbours(tmp_path: Path):
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    good = Reason(DARK, "cat", 0.9, neighbours=(Neighbour(tmp_path / "gone.png", "cat", 0.9),))
    figure = reasons_figure([good, Reason(broken, None, true="cat")])
    assert titles_of(figure) == [["cat · 90%"], ["cat", "similarity 0.90"], ["cannot be read"]]
    assert [axes.texts[0].get_text().startswith("unreadable") for axes in figure.axes] == [False, True, True]


def test_regression_values_are_never_wrong():
    near = (Neighbour(GREY, "3.5", 0.9),)
    figure = reasons_figure([Reason(DARK, "3.25", true="4", neighbours=near, is_number=True)])
    assert titles_of(figure) == [["3.25", "is 4"], ["3.5", "similarity 0.90"]]
    assert all(same_color(axes.texts[0].get_color(), RIGHT) for axes in figure.axes)


def test_line_breaks_in_names_are_removed():
    figure = reasons_figure([Reason(DARK, "a\nb", 0.5, "c\nd", neighbours=(Neighbour(DARK, "e\n", 1.0),))])
    assert titles_of(figure) == [["a b · 50%", "is c d"], ["≠ e", "similarity 1.00"]]


def test_long_names_are_wrapped_rather_than_cut():
    names = [f"outdoors, one person, two dogs, {last}" for last in ("a cat", "no cat")]
    figure = reasons_figure([Reason(DARK, names[0], 0.51, names[1], neighbours=(Neighbour(DARK, names[1], 0.9),))])
    image, near = (" ".join(lines) for lines in titles_of(figure))
    assert image == f"{names[0]} · 51% is {names[1]}"
    assert near == f"≠ {names[1]} similarity 0.90"
    ((first, *_, last),) = titles_of(reasons_figure([Reason(DARK, "long " * 50, 0.5, "x" * 300)]))
    assert first == "long long long long"
    assert last.endswith("…")


def test_without_reasons_there_is_no_figure():
    with pytest.raises(DataError, match="no images"):
        reasons_figure([])


LABELS = st.sampled_from(["cat", "dog", "cow", None])
NEIGHBOURS = st.builds(Neighbour, st.just(GREY), LABELS, st.floats(-1, 1))
REASONS = st.builds(
    Reason,
    st.just(DARK),
    LABELS,
    st.none() | st.floats(0, 1),
    LABELS,
    st.none() | st.just(BRIGHT),
    st.lists(NEIGHBOURS, max_size=3).map(tuple),
    st.booleans(),
)


@settings(max_examples=30, deadline=None)
@given(reasons=st.lists(REASONS, min_size=1, max_size=4))
def test_colours_repeat_information_of_the_titles(reasons: list[Reason]):
    axes = reasons_figure(reasons, tile=48).axes
    assert len(axes) == sum(1 + (reason.overlay is not None) + len(reason.neighbours) for reason in reasons)
    titles = iter([each.texts[0] for each in axes])
    for reason in reasons:
        is_compared = reason.predicted is not None and not reason.is_number
        title = next(titles)
        is_wrong = is_compared and reason.true not in (None, reason.predicted)
        assert same_color(title.get_color(), WRONG if is_wrong else RIGHT)
        assert not is_wrong or title.get_text().endswith(f"\nis {reason.true}")
        if reason.overlay is not None:
            next(titles)
        for neighbour, title in zip(reason.neighbours, titles, strict=False):
            is_other = is_compared and neighbour.label not in (None, reason.predicted)
            assert same_color(title.get_color(), OTHER if is_other else RIGHT)
            assert title.get_text().startswith("≠ ") == is_other
