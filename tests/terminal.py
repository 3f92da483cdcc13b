"""A small terminal for tests: runs a program on a pseudo-terminal, and keeps what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence

_CODE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b\][^\x07]*\x07|\x1b[()].|\x1b.|.|\n", re.DOTALL)


class Screen:
    """Rows of characters that a stream of text with control codes leaves; lines reflow when the width changes."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rows: list[str] = [""]  # with those that have scrolled away
        self.is_joined: list[bool] = [False]  # whether a row continues the one above
        self.row = self.column = 0
        self.is_cursor_shown = True
        self._rest = ""

    def write(self, text: str) -> None:
        text = self._rest + text
        escape = text.rfind("\x1b", -20)
        is_cut = escape >= 0 and not re.match(r"\x1b(\[[?\d;]*[A-Za-z]|[^\[])", text[escape:])
        self._rest, text = (text[escape:], text[:escape]) if is_cut else ("", text)
        for match in _CODE.finditer(text):
            self._apply(match)

    def _apply(self, match: re.Match[str]) -> None:
        token, (numbers, letter) = match.group(), match.groups()
        count = int(numbers) if numbers and numbers.isdigit() else 1
        row = self.rows[self.row]
        if letter == "A":
            self.row = max(self.row - count, len(self.rows) - self.height, 0)
        elif letter == "B":
            self.row = min(self.row + count, len(self.rows) - 1)
        elif letter == "K":
            self.rows[self.row] = "" if numbers == "2" else row[: self.column]
        elif letter in ("h", "l") and numbers == "?25":
            self.is_cursor_shown = letter == "h"
        elif letter not in (None, "m"):
            raise NotImplementedError(f"control code {token!r}")
        elif token == "\r":
            self.column = 0
        elif token == "\n":
            self._next_row(is_joined=False)
        elif len(token) == 1 and token >= " ":
            if self.column == self.width:
                self._next_row(is_joined=True)
                self.column, row = 0, self.rows[self.row]
            self.rows[self.row] = row[: self.column].ljust(self.column) + token + row[self.column + 1 :]
            self.column += 1

    def _next_row(self, *, is_joined: bool) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")
            self.is_joined.append(is_joined)

    def resize(self, width: int) -> None:
        lines: list[str] = []
        for row, is_joined in zip(self.rows, self.is_joined, strict=True):
            lines[-1:] = [lines[-1] + row] if is_joined else [*lines[-1:], row]
        assert not any(self.rows[self.row + 1 :]), "the cursor is expected in the last row with text"
        lines = lines[: len(lines) - (len(self.rows) - 1 - self.row)]
        self.width = width
        self.rows, self.is_joined = [], []
        for line in lines:
            parts = [line[start : start + width] for start in range(0, max(1, len(line)), width)]
            self.rows += parts
            self.is_joined += [number > 0 for number in range(len(parts))]
        self.row, self.column = len(self.rows) - 1, len(self.rows[-1])

    @property
    def text(self) -> str:
        return "\n".join(row.rstrip() for row in self.rows).rstrip()


class Program:
    """A program whose standard streams are a pseudo-terminal, in a session of its own."""

    def __init__(self, command: Sequence[str], width: int = 100, height: int = 40, **environment: str) -> None:
        self.screen = Screen(width, height)
        self.output = b""
        self.times: list[tuple[float, bytes]] = []
        self._own, other = pty.openpty()
        self._set_size(width, height)
        hidden = {"CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}
        inherited = {name: value for name, value in os.environ.items() if name not in hidden}
        self.process = subprocess.Popen(
            command,
            stdin=other,
            stdout=other,
            stderr=other,
            env={**inherited, "TERM": "xterm-256color", **environment},
            preexec_fn=_lead_session,  # so that Ctrl-C of the terminal reaches the program
        )
        os.close(other)

    def __enter__(self) -> Program:  # noqa: PYI034  Self is newer than Python 3.10
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._own)

    def read(self, timeout_s: float = 0.05) -> bool:
        """Read what the program writes; return False at its end."""
        if not select.select([self._own], [], [], timeout_s)[0]:
            return True
        try:
            read = os.read(self._own, 65536)
        except OSError:  # the program has closed the terminal
            return False
        self.output += read
        self.times.append((time.monotonic(), read))
        self.screen.write(read.decode(errors="replace"))
        return bool(read)

    def wait_for(self, what: str | Callable[[], object], timeout_s: float = 120.0) -> None:
        """Read until a text is on the screen, wherever its lines are wrapped, or until a function returns true."""
        end_s = time.monotonic() + timeout_s
        is_there = what if callable(what) else lambda: what in " ".join(self.screen.text.split())
        while not is_there():
            is_running = self.read()
            assert is_there() or is_running, f"the program has ended:\n{self.screen.text}"
            assert time.monotonic() < end_s, f"{what!r} did not appear:\n{self.screen.text}"

    def press(self, keys: str) -> None:
        """Type keys; ``"\\x03"`` is Ctrl-C, which the terminal turns into a signal."""
        os.write(self._own, keys.encode())

    def resize(self, width: int) -> None:
        self.screen.resize(width)
        self._set_size(width, self.screen.height)

    def end(self, timeout_s: float = 120.0) -> int:
        """Read to the end of the program; return its exit code."""
        end_s = time.monotonic() + timeout_s
        while self.read() and time.monotonic() < end_s:
            pass
        self.is_echoing = bool(termios.tcgetattr(self._own)[3] & termios.ECHO)
        return self.process.wait(timeout=max(1.0, end_s - time.monotonic()))

    def _set_size(self, width: int, height: int) -> None:
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def _lead_session() -> None:
    import signal

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
