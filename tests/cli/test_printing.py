"""Remarks on a console."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from saccade.cli.words import print_remark, printable


@pytest.mark.parametrize("width", [20, 60, 100, 200])
def test_remarks_are_broken_between_words_within_the_width(width):
    console = Console(file=io.StringIO(), width=width)
    print_remark(console, "warning", "things", ["many words " * 20, "a [word] in brackets"], "do this")
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("warning  things      many words")
    assert max(map(len, lines)) <= max(width, 51)
    assert " ".join(" ".join(lines).split()) == f"warning things {'many words ' * 20}a [word] in brackets -> do this"
    assert all(line == line.rstrip() for line in lines)


def test_paths_are_not_wrapped():
    console = Console(file=io.StringIO(), width=60)
    path = "a-long/" * 20
    print_remark(console, "OK", "path", [path])
    assert path in console.file.getvalue()


def test_colours_are_for_terminals_only():
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80, color_system="standard")
    print_remark(terminal, "error", "x", ["y"])
    assert "\x1b[31merror" in terminal.file.getvalue()


def test_invalid_unicode_is_replaced():
    assert printable("caf\udce9 é中") == "caf? é中"
