"""Figures of predictions and of their explanations."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saccade.data.decoding import ImageSource
    from saccade.data.gallery import Gallery

RIGHT, WRONG = "#4a4a4a", "#d0021b"
"""Colours of titles. Titles of wrong predictions also contain the true label, so that they are clear without colour."""

OTHER = "#a85400"
"""Colour of the titles of training images with another label; these titles also begin with `OTHER_SIGN`."""

OTHER_SIGN = "≠"

UNREADABLE = "cannot be read"

MAX_LINES = 3  # maximum number of lines of a label in a title


def predictions_figure(
    images: Sequence[ImageSource],
    predicted: Sequence[object],
    true: Sequence[object],
    probabilities: Sequence[float],
) -> Gallery:
    """Draw images under their predicted labels; a wrong one is red, and followed by the true one."""
    from saccade.data.gallery import draw_gallery

    is_right = [one == other for one, other in zip(predicted, true, strict=True)]
    titles = [
        f"{label} · {probability:.0%}" + ("" if right else f", is {truth}")
        for label, truth, probability, right in zip(predicted, true, probabilities, is_right, strict=True)
    ]
    colors = [RIGHT if right else WRONG for right in is_right]
    return draw_gallery(images, titles, ncol=8, resize=128, fontsize=12, title_colors=colors)


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A training image that is similar to an explained image."""

    image: ImageSource
    label: str | None  # its label, the name of its class, or its value; None if unknown
    similarity: float  # cosine of the features of both images


@dataclass(frozen=True, eq=False)
class Reason:
    """The prediction for an image, and its explanation."""

    image: ImageSource
    predicted: str | None  # label, all labels, or value; None if the image is unreadable
    probability: float | None = None  # of that label, from 0 to 1; None unless it is a single label
    true: str | None = None  # label or value; None if unknown
    overlay: ImageSource | None = None  # the image with its saliency map; None if the map is empty
    neighbours: tuple[Neighbour, ...] = ()  # the most similar training images, the nearest first
    is_number: bool = False  # whether labels are the values of a regression, of which none is wrong

    @property
    def is_wrong(self) -> bool:
        """Whether the true label is known and is not the predicted one."""
        return self.is_other(self.true)

    def is_other(self, label: str | None) -> bool:
        """Return whether a label, such as that of a training image, is known and is not the predicted one."""
        return not self.is_number and None not in (label, self.predicted) and label != self.predicted


def reasons_figure(reasons: Sequence[Reason], tile: int = 144) -> Gallery:
    """Draw a row for each image: the image, its saliency overlay, and the most similar training images.

    The title of a wrong prediction is red, and followed by the true label. The title of a training image with another
    label than the predicted one begins with ≠. If no image has an overlay, there is no column of overlays. An image's
    tile has a side of `tile` pixels. Raises a DataError without reasons.
    """
    from saccade.data.gallery import draw_gallery, letters_of_line

    has_overlays = any(reason.overlay is not None for reason in reasons)
    rows = [list(_tiles(reason, letters_of_line(tile), has_overlays=has_overlays)) for reason in reasons]
    num_columns = max(map(len, rows), default=1)
    empty = (None, "", RIGHT)
    tiles = [each for row in rows for each in (*row, *[empty] * (num_columns - len(row)))]
    return draw_gallery(
        [image for image, *_ in tiles],
        [title for _, title, _ in tiles],
        ncol=num_columns,
        resize=tile,
        fontsize=12,
        title_colors=[color for *_, color in tiles],
    )


def _tiles(reason: Reason, width: int, *, has_overlays: bool) -> Iterator[tuple[ImageSource | None, str, str]]:
    """Yield image, title (in lines of `width` letters) and title colour of each tile of a row."""
    predicted = UNREADABLE if reason.predicted is None else reason.predicted
    probability = "" if reason.probability is None else f" · {reason.probability:.0%}"
    has_truth = reason.true is not None and (reason.is_wrong or reason.is_number)
    title = [*_lines(predicted + probability, width), *_lines(f"is {reason.true}" if has_truth else "", width)]
    yield reason.image, "\n".join(title), WRONG if reason.is_wrong else RIGHT
    if has_overlays:
        yield reason.overlay, "saliency", RIGHT
    for neighbour in reason.neighbours:
        is_other = reason.is_other(neighbour.label)
        label = f"{OTHER_SIGN} " * is_other + (neighbour.label or "")
        title = [*_lines(label, width), f"similarity {neighbour.similarity:.2f}"]
        yield neighbour.image, "\n".join(title), OTHER if is_other else RIGHT


def _lines(text: str, width: int) -> list[str]:
    """Wrap a label into at most `MAX_LINES` lines: long labels may differ at their ends only."""
    return textwrap.wrap(" ".join(text.split()), width, max_lines=MAX_LINES, placeholder=" …")
