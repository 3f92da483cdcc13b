"""Where the live display is drawn: in a terminal, or in the output of a notebook's cell."""

from __future__ import annotations

import io
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.terminal_theme import TerminalTheme
from rich.text import Text

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

# Colours that are legible on white and on black: black, red, green, yellow, blue, magenta, cyan and white.
_GREY = (136, 136, 136)
_COLOURS = [_GREY, (214, 69, 65), (46, 158, 68), (176, 125, 0), (59, 130, 214), (168, 85, 190), (26, 154, 168), _GREY]
_THEME = TerminalTheme((255, 255, 255), (0, 0, 0), _COLOURS)
_STYLE = "margin:0;line-height:1.3;font-size:13px;background:transparent"
_NOTEBOOK_WIDTH = 100
_LATEST = 8  # lines above the display in a notebook while the run works; all of them at its end


class Screen(ABC):
    """Shows the frames of a live display, and lines that stay above it."""

    has_colours = True

    @property
    @abstractmethod
    def width(self) -> int:
        """Columns of a frame."""

    @abstractmethod
    def draw(self, lines: Sequence[Text]) -> None:
        """Show a frame in place of the last one."""

    @abstractmethod
    def print(self, text: str) -> None:
        """Show a line, with rich's markup, that stays."""

    @abstractmethod
    def close(self) -> None:
        """Remove the frame."""


class TerminalScreen(Screen):
    """The last lines of a terminal, by rich; other output of this process appears above them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.has_colours = console.color_system is not None and not console.no_color
        self._live: Live | None = None
        self._lines: Sequence[Text] = ()

    @property
    def width(self) -> int:
        """Columns of the terminal, with room for the ^C^C that it shows when the user ends the run."""
        return max(20, self._console.width - 5)

    def draw(self, lines: Sequence[Text]) -> None:
        """Show a frame in place of the last one, in one write; nothing is written if it is the same."""
        is_same = [(line.plain, line.spans) for line in lines] == [(line.plain, line.spans) for line in self._lines]
        if is_same or not lines:
            return
        if self._live is None:  # only now, since short work needs no display
            is_stdout_shown = sys.stdout is not None and sys.stdout.isatty()
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=is_stdout_shown
            )
            self._live.start()
        self._unwrap()
        self._lines = lines
        self._live.update(Text("\n").join(lines), refresh=True)

    def print(self, text: str) -> None:
        """Print above the frame."""
        self._unwrap()
        self._console.print(text, highlight=False)

    def close(self) -> None:
        """Remove the frame, and show the cursor again."""
        if self._live is not None:
            self._unwrap()
            self._live.stop()

    def _unwrap(self) -> None:
        """Erase the rows that a frame has got because the terminal became narrower, and wrapped its lines."""
        width = self._console.width
        num_rows = sum(math.ceil(line.cell_len / width) or 1 for line in self._lines)
        if more := num_rows - len(self._lines):
            upwards = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)]
            self._console.control(Control(*upwards * more))
            self._lines = [Text() for _ in self._lines]


class NotebookScreen(Screen):
    """The output of the cell that IPython executes: the same lines as HTML, replaced as a whole."""

    width = _NOTEBOOK_WIDTH

    def __init__(self) -> None:
        self._printed: list[Text] = []
        self._handle: DisplayHandle | None = None
        self._shown = ""

    def draw(self, lines: Sequence[Text]) -> None:
        """Show the latest lines and a frame."""
        latest = html_of(self._printed[-_LATEST:], "white-space:pre-wrap")
        self._show(latest + html_of(lines, "overflow-x:auto"))

    def print(self, text: str) -> None:
        """Add a line."""
        self._printed.append(Text.from_markup(text))

    def close(self) -> None:
        """Show all lines, without a frame."""
        if self._handle is not None or self._printed:
            self._show(html_of(self._printed, "white-space:pre-wrap"))

    def _show(self, html: str) -> None:
        from IPython import display

        if html == self._shown:
            return
        self._shown = html
        if self._handle is None:
            self._handle = display.display(display.HTML(html), display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(display.HTML(html))  # type: ignore[no-untyped-call]


def html_of(lines: Sequence[Text], style: str = "") -> str:
    """Return lines of a terminal as HTML."""
    options: dict[str, Any] = {"force_terminal": True, "force_jupyter": False, "color_system": "truecolor"}
    console = Console(file=io.StringIO(), record=True, **options)
    console.print(Text("\n").join(lines), soft_wrap=True)
    page = f'<pre style="{_STYLE};{style}">{{code}}</pre>'
    return console.export_html(theme=_THEME, inline_styles=True, code_format=page)
