"""Remarks for people to read: a coloured word, a name, what is to be said, and what to do about it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"OK": "green", "info": "green", "note": "yellow", "warning": "yellow", "problem": "bold red", "error": "red"}
_WORD_WIDTH, _NAME_WIDTH = 9, 12
_LEAST_WIDTH = 30


def print_remark(console: Console, word: str, name: str, texts: Sequence[str], advice: str = "") -> None:
    """Print a remark, broken into lines where the console ends.

    Parameters
    ----------
    console : rich.console.Console
        Where to.
    word : str
        OK, info, note, warning, problem or error; it decides on the colour.
    name : str
        What the remark is about.
    texts : sequence of str
        What there is to say; each begins on a line of its own.
    advice : str
        What to do; it comes last.
    """
    from rich.text import Text  # slow to import

    width = max(console.width - _WORD_WIDTH - _NAME_WIDTH, _LEAST_WIDTH)
    lines = [Text(line) for text in texts for line in _wrapped(text, width)]
    lines += [Text(line, "dim") for line in _wrapped(f"-> {advice}", width) if advice]
    head = Text.assemble((f"{word:<{_WORD_WIDTH}}", _STYLES[word]), (f"{name:<{_NAME_WIDTH}}", "bold"))
    for number, line in enumerate(lines):
        console.print(Text.assemble(head if number == 0 else " " * len(head), line), soft_wrap=True)


def printable(text: str) -> str:
    r"""Return text in which the bytes of file names that are no text are question marks.

    Examples
    --------
    >>> printable("caf\udce9.jpg")
    'caf?.jpg'
    """
    return text.encode("utf-8", "replace").decode()


def _wrapped(text: str, width: int) -> list[str]:
    # A path is to be copied in one piece.
    return textwrap.wrap(printable(text), width, break_on_hyphens=False, break_long_words=False)
