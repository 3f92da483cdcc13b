"""A section of the report: a table, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup
    from matplotlib.figure import Figure

MAX_ROWS = 100  # of a table in the page


@dataclass(frozen=True)
class Section:
    """A part of the report; each number that the page shows is in its frame."""

    name: str
    """Key of `Report.frames`, argument of `Report.plot`, and the id in the page."""
    title: str
    how_to_read: str
    """One or two sentences under the title."""
    frame: Callable[[Any], pd.DataFrame | None]
    """Make the table of a `RunRecord`, or of `ComparedRuns`; None if the section does not apply, and is left out."""
    plot: Callable[[pd.DataFrame], Figure] | None = None
    """Draw the table: within `report_style`, a figure of `new_figure`."""
    html: Callable[[Any, pd.DataFrame], Markup] | None = None
    """Make the content of the page in place of the plot and the table; `page.table` makes a part of it."""
    summary: Callable[[pd.DataFrame], str] = lambda _: ""
    """The main numbers of the figure in a sentence, for readers who do not see it."""
    is_slow: bool = False
    """Whether it decodes images or computes networks: such sections are made last, if time is left."""
    max_rows: int = MAX_ROWS
    """Rows of the table in the page. All are in the frame."""
    shown_rows: int = 0
    """Rows that are shown at once; the others are in a part that opens. With a plot, usually 0."""
