"""The report as one HTML file, which needs no other file, script or network."""

from __future__ import annotations

import functools
import math
import numbers
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from saccade._version import __version__
from saccade.errors import DataWarning, count_of

if TYPE_CHECKING:
    from saccade.report.report import Report
    from saccade.report.sections import Section

NO_TIME = "Left out, as the time limit of the fit was over. saccade report RUN, or predictor.report(), makes it."

MAX_TEXT = 300  # letters of a cell


@dataclass(frozen=True)
class _Content:
    section: Section
    html: Markup


@functools.cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell_text
    environment.globals["count_of"] = count_of
    return environment


def render(report: Report) -> str:
    """Return the page. A section that cannot be made is a warning, and its error is in its place."""
    from saccade.report.style import widths_css

    made = {}
    for section in sorted(report.sections.values(), key=lambda section: section.is_slow):
        has_time = report.record.seconds_left() > 0
        made[section.name] = _content(report, section) if has_time else Markup('<p class="note">{}</p>').format(NO_TIME)
    groups = []
    for title, sections in report.groups:
        contents = [_Content(section, html) for section in sections if (html := made[section.name]) is not None]
        if contents:
            groups.append((title, contents))
    css = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    css += widths_css("".join(html for html in made.values() if html is not None))
    template = _environment().get_template("report.html.j2")
    return template.render(title=report.title, groups=groups, css=Markup(css), version=__version__)  # noqa: S704


def _content(report: Report, section: Section) -> Markup | None:
    try:
        if section.name not in report.frames:  # `get` would make all frames, to suggest their names
            return None
        frame = report.frames[section.name]
        if section.html is not None:
            return section.html(report.record, frame)
        note = Markup('<p class="note">{}</p>').format(frame.attrs["note"]) if frame.attrs.get("note") else Markup()
        return (
            note
            + figure(section, frame)
            + table(frame, section.title, max_rows=section.max_rows, shown_rows=section.shown_rows)
        )
    except Exception as error:  # a bug in one section leaves the others
        text = f"The section {section.title!r} of the report cannot be made: {type(error).__name__}: {error}"
        warnings.warn(DataWarning(text), stacklevel=2)
        return Markup('<p class="warning">{}</p>').format(text)


def figure(section: Section, frame: pd.DataFrame) -> Markup:
    """Return the plot of a section in a box that scrolls."""
    if section.plot is None:
        return Markup()
    from saccade.report.style import report_style, svg_of

    with report_style():
        svg = svg_of(section.plot(frame), section.name)
    label = f"{section.title}. {section.summary(frame)}".strip()
    return _part("figure", svg=Markup(svg), label=label)  # noqa: S704  matplotlib escapes text


def table(frame: pd.DataFrame, caption: str, *, max_rows: int = 100, shown_rows: int = 0) -> Markup:
    """Return a table, of which the rows after the first `shown_rows` are in a part that opens.

    The first column is the head of the rows. A table of more than `max_rows` has its first rows only.
    """
    columns = [(str(name), pd.api.types.is_numeric_dtype(frame[name])) for name in frame.columns]
    rows = list(frame.head(max_rows).itertuples(index=False, name=None))
    return _part(
        "table",
        columns=columns,
        shown=rows[:shown_rows],
        folded=rows[shown_rows:],
        num_rows=len(frame),
        caption=caption,
    )


def cards(shown: Sequence[Mapping[str, Any]], empty: str, note: str) -> Markup:
    """Return images with their captions, saliency maps and neighbours; a sentence if there are none."""
    return _part("cards", shown=shown, empty=empty, note=note)


def _part(name: str, **values: Any) -> Markup:
    html: Markup = getattr(_environment().get_template("parts.html.j2").module, name)(**values)
    return html


def cell_text(value: Any) -> str:
    """Return the text of a value in a table: four digits, no text for a missing value.

    Examples
    --------
    >>> cell_text(0.123456), cell_text(1234567), cell_text(float("nan")), cell_text(True)
    ('0.1235', '1,234,567', '', 'yes')
    """
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    if isinstance(value, numbers.Real):
        number = float(value)
        return f"{number:,.0f}" if 1e4 <= abs(number) < 1e15 else f"{number:.4g}"
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
