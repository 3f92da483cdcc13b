"""The live display on a real pseudo-terminal."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from rich.text import Text

from saccade.study.display.screens import NotebookScreen

pytest.importorskip("pty", reason="pseudo-terminals are those of POSIX systems")

from terminal import Program

SEARCH = """
import sys, time
import saccade
from saccade.space import Categorical

def train(config, report):
    for epoch in range(1, 5):
        time.sleep({sleep_s})
        report(epoch=epoch, score=config["x"] + epoch / 100)
    print("a line of the user", config["x"])

saccade.tune(train, {{"x": Categorical(1, 2, 3)}}, searcher="grid", scheduler="fifo", time_limit={limit}{more})
print("the end", file=sys.stderr)
"""


def search(
    *, width: int = 100, sleep_s: float = 0.12, limit: float = 60, more: str = "", **environment: str
) -> Program:
    command = [sys.executable, "-c", SEARCH.format(sleep_s=sleep_s, limit=limit, more=more)]
    return Program(command, width, 40, **environment)


def test_the_display_is_under_all_lines_and_is_removed_at_the_end() -> None:
    with search() as program:
        program.wait_for("worker 1")
        program.wait_for(
            lambda: re.search("left of 1:00\n.*3 trials.*\nworker 1[^\n]*$", program.screen.text, re.DOTALL)
        )
        rows = program.screen.text.split("\n")
        top = next(number for number, row in enumerate(rows) if "left of 1:00" in row)
        assert 5 <= len(rows) - top <= 12
        assert any("a line of the user 1" in row for row in rows[:top])
        assert not program.screen.is_cursor_shown
        assert program.end() == 0
        assert program.screen.is_cursor_shown
        assert program.is_echoing
        lines = program.screen.text.split("\n")
        assert [line for line in lines if line.startswith("a line")] == [f"a line of the user {x}" for x in (1, 2, 3)]
        assert lines[-1] == "the end"
        assert lines[-2].startswith("result: trial 2, score 3.0400")
        assert "left of" not in program.screen.text
        assert "worker" not in program.screen.text


def test_a_narrower_terminal_leaves_no_rest_of_the_display() -> None:
    with search(width=120, sleep_s=5) as program:
        program.wait_for("worker 1")
        for width in (60, 45, 100):
            program.resize(width)
            program.wait_for(
                lambda width=width: any(
                    map(re.compile(f".{{{width - 17}}}left of 1:00").fullmatch, program.screen.text.split("\n"))
                )
            )
            assert program.screen.text.count("left of 1:00") == 1
        program.press("\x03")
        assert program.end() != 0
        assert "left of" not in program.screen.text
        assert "worker" not in program.screen.text


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}, {"PYTHONIOENCODING": "latin-1"}])
def test_without_a_terminal_of_a_person_there_are_lines_only(environment: dict[str, str]) -> None:
    with search(sleep_s=0.02, **environment) as program:
        assert program.end() == 0
        assert b"\x1b[2K" not in program.output
        assert b"\x1b[?25" not in program.output
        assert "trial 2  score 3.0400 in epoch 4" in program.screen.text


def test_no_color_keeps_the_display_and_drops_the_colours() -> None:
    with search(NO_COLOR="1") as program:
        program.wait_for("worker 1")
        assert program.end() == 0
        assert b"\x1b[3" not in program.output
        assert b"\x1b[9" not in program.output


def test_ctrl_c_ends_with_a_readable_message_and_a_restored_terminal() -> None:
    with search(sleep_s=0.3) as program:
        program.wait_for("worker 1")
        program.press("\x03")
        assert program.end() != 0
        assert program.screen.is_cursor_shown
        assert "TuningInterrupted: The search was interrupted after it had started 1 trial." in program.screen.text
        assert "left of" not in program.screen.text


def test_a_notebook_has_the_latest_lines_and_a_frame_and_finally_all_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    shown: list[str] = []

    class Handle:
        def update(self, page: Any) -> None:
            shown.append(page.data)

    monkeypatch.setattr(display, "display", lambda page, **_: (shown.append(page.data), Handle())[1])
    screen = NotebookScreen()
    for number in range(12):
        screen.print(f"[bold]line {number}[/bold] <b>")
    screen.draw([Text("frame & more")])
    screen.draw([Text("frame & more")])
    screen.close()
    assert len(shown) == 2
    assert "line 3" not in shown[0]
    assert "line 4</span> &lt;b&gt;" in shown[0]
    assert "frame &amp; more" in shown[0]
    assert all(f"line {number}<" in shown[1] for number in range(12))
    assert "frame" not in shown[1]
    NotebookScreen().close()  # nothing was shown
    assert len(shown) == 2
