"""The style of the report's figures, and their form as SVG in a page that is light or dark."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
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


def time_unit(seconds: float) -> tuple[float, str]:
    """Return the unit in which an axis of so many seconds is read, in seconds, and its name."""
    return (1.0, "s") if seconds < 180 else (60.0, "min") if seconds < 3 * 3600 else (3600.0, "h")


def set_log_scale(axes: Axes, axis: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers: matplotlib's are formulas, which `report_style` disables."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f"{axis}scale": "log"})
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    low, high = chosen.get_data_interval()
    chosen.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,), numticks=6))
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}"))
    chosen.set_minor_formatter(NullFormatter())


def name_at_side(axes: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Write the names of lines at the right side of axes: each name, the end of its line (x, y), and its colour.

    Names are moved apart, and are connected with the ends of their lines.
    """
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    inches = axes.get_figure(root=True).get_figheight()  # type: ignore[union-attr]
    least = 11 / (72 * 0.75 * inches)  # of the axes' height, which is about three quarters, from name to name
    ends = sorted(ends, key=lambda end: end[2])
    places: list[float] = []
    for *_, y, _ in ends:
        places.append(max((y - low) / (high - low), places[-1] + least if places else 0.0))
    for number in range(len(places) - 1, -1, -1):  # from the top down
        places[number] = min(places[number], 1.0 if number + 1 == len(places) else places[number + 1] - least)
    for (name, x, y, color), place in zip(ends, places, strict=True):
        axes.annotate(
            name,
            (x, y),
            (1.03, place),
            textcoords="axes fraction",
            color=color,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.6,
                "linestyle": ":",
                "shrinkA": 1,
                "shrinkB": 4,
            },
            annotation_clip=False,
        )


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


def widths_css(page: str) -> str:
    """Return the rules for the widths of the figures in a page."""
    # On a phone, a figure becomes smaller until its text is hard to read; then it scrolls.
    widths = sorted({int(width) for width in re.findall(r'<svg class="w(\d+)"', page)})
    return "".join(f".w{w} {{ max-width: {w}px; min-width: {round(0.72 * w)}px; }}\n" for w in widths)


def svg_of(figure: Figure, name: str) -> str:
    """Return a figure as an ``<svg>`` element: colours are variables, and ids are those of this section.

    Call it in `report_style`.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace("<svg", f'<svg class="w{round(figure.get_figwidth() * 96)}"', 1)
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
