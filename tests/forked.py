"""Real processes that are forked from the one of the tests, which saves them the seconds of imports."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from typing_extensions import Self

from saccade.cli import app


class Forked:
    """A child of this process that calls a function; its pipes and methods are those of `subprocess.Popen`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        (stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr) = os.pipe(), os.pipe(), os.pipe()
        theirs, ours = (stdin, stdout, stderr), (to_stdin, from_stdout, from_stderr)
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_child, args=(theirs, ours, function, arguments))
        with warnings.catch_warnings():  # Python 3.12 warns of the threads of this process
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        for descriptor in theirs:
            os.close(descriptor)
        self.stdin = os.fdopen(to_stdin, "w", buffering=1)
        self.stdout, self.stderr = os.fdopen(from_stdout), os.fdopen(from_stderr)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.is_alive():
            assert self._process.pid is not None
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self) -> tuple[str, str]:
        """Read what it prints, of which a pipe must hold the errors, and wait for its end."""
        with self:
            return self.stdout.read(), self.stderr.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self.kill()
        self.wait()
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()


def forked_saccade(*arguments: object) -> Forked:
    """Start a command of saccade."""
    return Forked(app, [str(argument) for argument in arguments])


def _child(
    theirs: tuple[int, ...], ours: tuple[int, ...], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    for number, descriptor in enumerate(theirs):
        os.dup2(descriptor, number)
    for descriptor in (*theirs, *ours):
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    function(*arguments)
