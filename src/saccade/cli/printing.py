"""Findings on the console: a coloured severity, a name, the text, and advice."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from saccade.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"OK": "green", "info": "green", "note": "yellow", "warning": "yellow", "problem": "bold red", "error": "red"}
_WORD_WIDTH, _NAME_WIDTH = 9, 12
_LEAST_WIDTH = 30


def print_remark(console: Console, word: str, name: str, texts: Sequence[str], advice: str = "") -> None:
    """Print a finding, wrapped at the width of the console; each text is a paragraph, and the advice comes last.

    The colour is that of `word`: OK, info, note, warning, problem or error.
    """
    from rich.text import Text  # slow to import

    width = max(console.width - _WORD_WIDTH - _NAME_WIDTH, _LEAST_WIDTH)
    lines = [Text(line) for text in texts for line in _wrapped(text, width)]
    lines += [Text(line, "dim") for line in _wrapped(f"-> {advice}", width) if advice]
    head = Text.assemble((f"{word:<{_WORD_WIDTH}}", _STYLES[word]), (f"{name:<{_NAME_WIDTH}}", "bold"))
    for number, line in enumerate(lines):
        console.print(Text.assemble(head if number == 0 else " " * len(head), line), soft_wrap=True)


def check_output(path: Path | None) -> None:
    """Raise a DataError, before the work is done, if a file cannot be written."""
    if path is None:
        return
    if path.is_dir():
        raise DataError(f"{path} is a folder; pass the name of a file, such as {path / 'table.csv'}")
    if not path.parent.is_dir():
        raise DataError(f"The folder {path.parent} of {path.name} does not exist; make it, or pass another path")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise DataError(f"{path} cannot be written; check the permissions, or pass another path")


def print_places(run: str, *, has_report: bool = True) -> None:
    """Print where the run is, and its report or how to write it."""
    from saccade.fit.run_folder import REPORT

    typer.echo(f"run {run}")
    if (file := Path(run) / REPORT).is_file():
        typer.echo(f"report {file}")
    elif has_report:
        typer.echo(f"no report was written; write it: saccade report {run}")


def printable(text: str) -> str:
    """Return text with question marks for the bytes of file names that are not valid text."""
    return text.encode("utf-8", "replace").decode()


def _wrapped(text: str, width: int) -> list[str]:
    # Paths stay in one piece, so that they can be copied.
    return textwrap.wrap(printable(text), width, break_on_hyphens=False, break_long_words=False)
