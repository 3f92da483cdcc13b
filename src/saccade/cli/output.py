"""Output for programs (``--json``): JSON lines on standard output in place of text.

The lines are the events of fits while they run, and the last one is the result that the command returns, or the error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Annotated, Any

import typer

from saccade.events import Event, Progressed, Warned
from saccade.space.base import plain
from saccade.study.trackers import listening

Write = Callable[[Mapping[str, Any]], None]
"""Writes one JSON object as a line."""

_writing: ContextVar[Write | None] = ContextVar("writing", default=None)

_FLAG = inspect.Parameter(
    "json",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool, typer.Option("--json", help="Write JSON lines; see saccade schema.", show_default=False)
    ],
)


def with_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that has the option ``--json`` as well; `json_lines` obeys it."""

    @functools.wraps(function)
    def command(*, json: bool = False, **given: Any) -> Any:  # noqa: ARG001
        return function(**given)

    parameters = [*inspect.signature(function, eval_str=True).parameters.values(), _FLAG]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def is_asked(arguments: Iterable[str]) -> bool:
    """Return whether ``--json`` is among the arguments of a command, which may be invalid otherwise; help is text."""
    options = set(itertools.takewhile(lambda each: each != "--", arguments))
    return "--json" in options and not options & {"-h", "--help"}


@contextlib.contextmanager
def json_lines() -> Iterator[Write]:
    """Context in which commands print no text, and fits write their events; yield a function that writes an object."""
    stream = sys.stdout

    def write(record: Mapping[str, Any]) -> None:
        stream.write(json.dumps(json_value(record), allow_nan=False) + "\n")
        stream.flush()  # readers follow a fit

    nowhere = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115
    token = _writing.set(write)
    try:
        with nowhere, contextlib.redirect_stdout(nowhere), listening(emit_event):
            yield write
    finally:
        _writing.reset(token)


def emit(record: Mapping[str, Any]) -> None:
    """Write a JSON object before the result, with ``--json``."""
    if (write := _writing.get()) is not None:
        write(record)


def emit_event(event: Event, at_s: float | None = None) -> None:
    """Write an event as a line, with ``--json``; `at_s` is its time of day, None is now."""
    if not isinstance(event, Progressed):  # as in the event log
        text = {"text": event.shown()} if isinstance(event, Warned) else {}
        at_s = time.time() if at_s is None else at_s
        emit({"kind": event.kind, "time": round(at_s, 3), **vars(event), **text})


def json_value(value: Any) -> Any:
    """Return a value as JSON: NaN and infinity as None, dataclasses as objects, paths and other objects as text."""
    value = plain(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # file names need not be valid Unicode
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {json_value(str(key)): json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_value(part) for part in value]
    if hasattr(value, "model_dump"):  # one of `saccade.cli.results`, which are JSON
        return value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return json_value(vars(value))
    return str(value)
