"""The picture of predictions."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import same_color

from saccade.errors import DataError
from saccade.report.pictures import RIGHT, WRONG, predictions_figure

IMAGES = [np.full((8, 8, 3), level, np.uint8) for level in (0, 128, 255)]


def test_wrong_predictions_are_marked_by_colour_and_by_the_true_label():
    figure = predictions_figure(IMAGES, ["cat", "dog", "cat"], ["cat", "cat", "cat"], [0.999, 0.514, 0.7])
    titles = [axes.texts[0] for axes in figure.axes]
    assert [title.get_text() for title in titles] == ["cat · 100%", "dog · 51%, is cat", "cat · 70%"]
    assert [same_color(title.get_color(), WRONG) for title in titles] == [False, True, False]
    assert same_color(titles[0].get_color(), RIGHT)


def test_the_picture_is_as_wide_as_its_columns(tmp_path):
    two, three = (predictions_figure(IMAGES, "aaa", "aaa", [1, 1, 1], ncol=ncol) for ncol in (2, 3))
    assert two.get_figwidth() < three.get_figwidth()
    assert two.get_figheight() > three.get_figheight()
    two.savefig(tmp_path / "two.png")
    assert (tmp_path / "two.png").stat().st_size > 1000


def test_too_few_labels_are_refused():
    with pytest.raises(DataError, match="2 values of true for 3 images"):
        predictions_figure(IMAGES, "aaa", "aa", [1, 1, 1])
