"""The style of the report's figures, and their form as SVG in a page that is light or dark."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#5b6773", "#d3dae1"
"""Colours of text, of ticks and secondary text, and of lines of a grid."""

SERIES = ("#00695c", "#b3540a", "#3f51b5", "#a0195b", "#5d6b0b", "#6a3ab2", "#00708c", "#8a4b2d")
"""Colours of lines, points and bars, by number. On white each has a contrast of at least 4.5."""

GOOD, BAD = SERIES[0], "#c62828"

COLORS = {INK: "ink", MUTED: "muted", GRID: "grid", BAD: "bad"} | {
    color: f"series-{number}" for number, color in enumerate(SERIES)
}
"""The colours of figures that the page replaces by variables of ``report.css``, where each has a dark form."""

WIDTH, HEIGHT = 6.6, 3.4  # inches of a figure; 634 pixels of CSS


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """Return an empty figure, without pyplot; sizes are in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def set_log_scale(axes: Axes, axis: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers: matplotlib's are formulas, which `report_style` disables."""
    from matplotlib.ticker import NullFormatter

    axes.set(**{f"{axis}scale": "log"})
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_formatter("{x:g}")
    chosen.set_minor_formatter(NullFormatter())


@contextlib.contextmanager
def report_style() -> Iterator[None]:
    """Context in which figures have the report's colours, and ``$`` in names is not a formula."""
    import matplotlib as mpl  # slow to import
    from cycler import cycler

    style: dict[str, Any] = {
        "axes.edgecolor": MUTED,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.labelcolor": INK,
        "axes.prop_cycle": cycler(color=SERIES),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": INK,
        "axes.titlesize": 10,
        "axes.unicode_minus": True,
        "figure.dpi": 100,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.labelcolor": INK,
        "lines.linewidth": 1.4,
        "svg.fonttype": "none",
        "svg.hashsalt": "saccade",
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
    }
    with warnings.catch_warnings(), mpl.rc_context(style):
        # The page's fonts have more letters than matplotlib's, which only measures them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font|Matplotlib currently does not support")
        yield


def svg_of(figure: Figure, name: str) -> str:
    """Return a figure as an ``<svg>`` element: colours are variables, and ids are those of this section.

    Call it in `report_style`.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # On a phone, a figure shrinks until its text is hard to read; then it scrolls.
    inches = figure.get_figwidth()
    size = "small" if inches < 4.5 else "medium" if inches < 6 else "large" if inches < 8 else "huge"
    text = text.replace("<svg", f'<svg class="{size}"', 1)
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", text))
    text = re.sub(r'\bid="([^"]+)"', lambda found: f'id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r"((?:href=\"|url\()#)", rf"\g<1>{name}-", text)
    text = re.sub(r'xlink:(href="#)', r"\1", text)
    text = re.sub(r' (?:xmlns(?::xlink)?|version)="[^"]*"', "", text)
    for color, variable in COLORS.items():
        text = text.replace(color, f"var(--{variable})")
    # Text has the fonts of the page, which are there for all scripts.
    text = re.sub(r"font: ((?:\w+ )*)([\d.]+)px [^;\"]*", r"font: \1\2px var(--font)", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)
    return re.sub(r"\s*\n\s*", "\n", text)
