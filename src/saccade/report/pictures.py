"""Pictures of what a predictor does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saccade.errors import DataError

if TYPE_CHECKING:
    from saccade.data.decoding import ImageSource
    from saccade.data.gallery import Gallery

RIGHT, WRONG = "#4a4a4a", "#d0021b"
"""Colours of titles; wrong ones name the true label as well, so nothing is said by colour alone."""


def predictions_figure(
    images: Sequence[ImageSource],
    predicted: Sequence[object],
    true: Sequence[object],
    probabilities: Sequence[float],
    ncol: int = 8,
    tile: int = 128,
) -> Gallery:
    """Draw images under their predicted labels; a wrong one is red, and followed by the true one.

    Parameters
    ----------
    images : sequence of paths, bytes, Pillow images or arrays
        What was predicted.
    predicted, true : sequence
        The labels, or names of classes.
    probabilities : sequence of float
        Of the predicted labels, from 0 to 1.
    ncol : int
        Number of columns.
    tile : int
        Side of an image's tile in pixels.

    Returns
    -------
    Gallery
        A `matplotlib.figure.Figure`.

    Raises
    ------
    DataError
        If there are no images, or not one of everything for each.

    Examples
    --------
    >>> from PIL import Image
    >>> figure = predictions_figure([Image.new("L", (8, 8))] * 2, ["cat", "dog"], ["cat", "cat"], [0.9, 0.6])
    >>> [axes.texts[0].get_text() for axes in figure.axes]
    ['cat · 90%', 'dog · 60%, is cat']
    """
    from saccade.data.gallery import draw_gallery

    for name, values in (("predicted", predicted), ("true", true), ("probabilities", probabilities)):
        if len(values) != len(images):
            raise DataError(f"{len(values)} values of {name} for {len(images)} images; expected one for each.")
    is_right = [one == other for one, other in zip(predicted, true, strict=True)]
    titles = [
        f"{label} · {probability:.0%}" + ("" if right else f", is {truth}")
        for label, truth, probability, right in zip(predicted, true, probabilities, is_right, strict=True)
    ]
    colors = [RIGHT if right else WRONG for right in is_right]
    return draw_gallery(images, titles, ncol=ncol, resize=tile, fontsize=12, title_colors=colors)
