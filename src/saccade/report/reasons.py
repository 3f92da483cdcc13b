"""Pictures of reasons: an image, where the network looks in it, and the training images that are most like it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saccade.report.pictures import RIGHT, WRONG

if TYPE_CHECKING:
    from saccade.data.decoding import ImageSource
    from saccade.data.gallery import Gallery

OTHER = "#a85400"
"""Colour of the titles of training images that have another label; these begin with `OTHER_SIGN` as well."""

OTHER_SIGN = "≠"

UNREADABLE = "cannot be read"

MOST_LINES = 3
"""Of a label in a title."""


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A training image that is like another image.

    Attributes
    ----------
    image : path, bytes, Pillow image or array
        The training image.
    label : str or None
        Its label, the name of its class, or its value; None where it is not known.
    similarity : float
        The cosine of the features of both.
    """

    image: ImageSource
    label: str | None
    similarity: float


@dataclass(frozen=True, eq=False)
class Reason:
    """What a predictor says of an image, and why.

    Attributes
    ----------
    image : path, bytes, Pillow image or array
        The image.
    predicted : str or None
        The label that is given, or all of them, or a value; None where the image cannot be read.
    probability : float or None
        Of that label, from 0 to 1; None where it is not a single label.
    true : str or None
        The true label or value; None where it is not known.
    overlay : path, bytes, Pillow image, array or None
        The image with the places that speak for the label; None where there are none, and its place stays empty.
    neighbours : tuple of Neighbour
        The training images most like it, the nearest first.
    is_number : bool
        Labels are numbers to be predicted as such, which are never quite the same, so that none is wrong.

    Examples
    --------
    >>> Reason("cat.jpg", "cat", 0.9).is_wrong, Reason("cat.jpg", "cat", 0.9, true="dog").is_wrong
    (False, True)
    """

    image: ImageSource
    predicted: str | None
    probability: float | None = None
    true: str | None = None
    overlay: ImageSource | None = None
    neighbours: tuple[Neighbour, ...] = ()
    is_number: bool = False

    @property
    def is_wrong(self) -> bool:
        """Whether the label that is given is known to be another one than the true one."""
        return self._is_other(self.true)

    def is_other(self, neighbour: Neighbour) -> bool:
        """Tell whether a training image has another label than the one that is given."""
        return self._is_other(neighbour.label)

    def _is_other(self, label: str | None) -> bool:
        return not self.is_number and None not in (label, self.predicted) and label != self.predicted


def reasons_figure(reasons: Sequence[Reason], tile: int = 144) -> Gallery:
    """Draw a row for each image: the image, where the network looks in it, and the training images most like it.

    The title of a wrong prediction is red, and followed by the true label; that of a training image with another label
    than the one that is given begins with ≠.

    Parameters
    ----------
    reasons : sequence of Reason
        What there is to say of each image. Where none has an overlay, there is no column of them.
    tile : int
        Side of an image's tile in pixels.

    Returns
    -------
    Gallery
        A `matplotlib.figure.Figure`; ``savefig`` writes it, and notebooks show it.

    Raises
    ------
    DataError
        If there are no images.

    Examples
    --------
    >>> from PIL import Image
    >>> grey = Image.new("L", (8, 8))
    >>> near = Neighbour(grey, "dog", 0.93), Neighbour(grey, "cat", 0.9)
    >>> reason = Reason(grey, "cat", 0.61, "dog", neighbours=near)
    >>> [axes.texts[0].get_text().splitlines() for axes in reasons_figure([reason]).axes]
    [['cat · 61%', 'is dog'], ['≠ dog', 'similarity 0.93'], ['cat', 'similarity 0.90']]
    """
    from saccade.data.gallery import draw_gallery, letters_of_line

    has_overlays = any(reason.overlay is not None for reason in reasons)
    rows = [list(_tiles(reason, letters_of_line(tile), has_overlays=has_overlays)) for reason in reasons]
    num_columns = max(map(len, rows), default=1)
    places = [place for row in rows for place in (*row, *[_EMPTY] * (num_columns - len(row)))]
    return draw_gallery(
        [image for image, *_ in places],
        [title for _, title, _ in places],
        ncol=num_columns,
        resize=tile,
        fontsize=12,
        title_colors=[color for *_, color in places],
    )


_EMPTY = (None, "", RIGHT)


def _tiles(reason: Reason, width: int, *, has_overlays: bool) -> Iterator[tuple[ImageSource | None, str, str]]:
    """Yield the images of a row, with their titles, of lines of `width` letters, and the colours of these."""
    yield reason.image, _verdict(reason, width), WRONG if reason.is_wrong else RIGHT
    if has_overlays:
        yield reason.overlay, "where it looks", RIGHT
    for neighbour in reason.neighbours:
        is_other = reason.is_other(neighbour)
        label = f"{OTHER_SIGN} " * is_other + (neighbour.label or "")
        title = [*_in_lines(label, width), f"similarity {neighbour.similarity:.2f}"]
        yield neighbour.image, "\n".join(title), OTHER if is_other else RIGHT


def _verdict(reason: Reason, width: int) -> str:
    predicted = UNREADABLE if reason.predicted is None else reason.predicted
    sure = "" if reason.probability is None else f" · {reason.probability:.0%}"
    is_told = reason.true is not None and (reason.is_wrong or reason.is_number)
    truth = f"is {reason.true}" if is_told else ""
    return "\n".join(_in_lines(f"{predicted}{sure}", width) + _in_lines(truth, width))


def _in_lines(text: str, width: int) -> list[str]:
    """Break a name into lines, and nowhere else, since two long ones may differ in their last letters only."""
    return textwrap.wrap(" ".join(text.split()), width, max_lines=MOST_LINES, placeholder=" …")
