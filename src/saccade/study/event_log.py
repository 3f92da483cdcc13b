"""The event log: the one durable record of a run, from which its study is restored."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

from saccade.errors import DivergedError, JournalError, SaccadeError, SpaceError, UnknownNameError, count_of
from saccade.events import DataChecked, Decision, EpochDone, Event, Progressed, RunStarted, TrialCreated, Warned
from saccade.space import Dict, encode, from_optuna
from saccade.space.base import plain
from saccade.study.life import StudyRecord
from saccade.study.trial_files import sync

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from pydantic import BaseModel
    from typing_extensions import Self

VERSION, OLDEST = 3, 2  # of the format, in the first line of each log; events of version 2 have fewer fields

_HEADER = "event_log"
_KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in Event.__subclasses__()}
_CLOCKS = ("time", "session_s")
_COUNTS = ("trial", "epoch", "until_epoch", "seconds")  # fields that are not negative
DAMAGED = ".damaged"  # suffix of the file to which the lines of a damaged log are moved

_COLLECTIONS: dict[str, Callable[[list[Any]], Any]] = {"!tuple": tuple, "!set": set, "!frozenset": frozenset}


@dataclass(frozen=True)
class _Line:
    """A valid line: the bytes of the file up to its end, its JSON object, and its event, with objects as text."""

    end: int
    record: dict[str, Any]
    event: Event | None  # None for the header


class EventLog:
    """An append-only file of events, one JSON object a line; it can be read while it grows, and one process writes it.

    An event is with the operating system when the call returns, so a kill loses nothing. A log is read up to its first
    line that is cut short, invalid, or does not fit the lines before it. The first write removes the rest; whole lines
    of it are moved to ``events.jsonl.damaged``, with a warning. Reading raises a JournalError if the file was written
    by another version; the first write does if another process writes it.

    Each line has the time of day (``time``, seconds since 1970) and the seconds since this object was created
    (``session_s``), which do not change when the clock is set. Configurations are written as `to_json_value` does;
    objects without a JSON form are stored by their position in `space`, and are read as their `repr` with `as_text`.
    """

    def __init__(self, path: Path, space: Dict | None = None, *, as_text: bool = False) -> None:
        self.path, self.space, self._as_text = path, space, as_text
        self._start_s = time.monotonic()
        self._descriptor: int | None = None
        self._lock: BaseFileLock | None = None
        self._seen = (0, 0, StudyRecord())  # by `news`: the file's inode, its bytes, and the state after them

    def __call__(self, event: Event) -> None:
        """Write one event."""
        if isinstance(event, Progressed):
            return
        fields = {name: to_json_value(value) for name, value in vars(event).items() if name != "decision"}
        if isinstance(event, EpochDone) and event.decision is not None:
            fields["decision"] = event.decision.value
        record = {"kind": event.kind, **fields}
        if isinstance(event, TrialCreated) and self.space is not None and '"!lost"' in json.dumps(fields["config"]):
            with contextlib.suppress(SpaceError):  # a user's starting configuration may be outside the space
                record["params"] = encode(self.space, event.config)
        self._write(record)

    def __iter__(self) -> Iterator[Event]:
        """Read the events that the file has now, the oldest first; none if the file does not exist."""
        return (event for event, _, _ in self.timed())

    def timed(self) -> Iterator[tuple[Event, float, float]]:
        """Read each event with its time of day, and with the seconds that the run had used until then."""
        for line, used_s in self._lines_with_seconds():
            if line.event is not None:
                event = line.event
                if isinstance(event, TrialCreated) and not self._as_text:
                    event = replace(event, config=self._config(line.record))
                yield event, line.record["time"], used_s

    def news(self) -> Iterator[tuple[Event, float]]:
        """Read each event that was written since the last call, with its time of day.

        If the file was replaced, such as by the run that overwrites it, all events of the new one come.
        """
        if not self.path.exists():
            return
        stat = self.path.stat()
        inode, end, study = self._seen
        if inode != stat.st_ino or end > stat.st_size:
            end, study = 0, StudyRecord()
        for line in self._lines(end, study):
            self._seen = stat.st_ino, line.end, study
            if line.event is not None:
                yield line.event, line.record["time"]

    def seconds_used(self) -> float:
        """Return how long the run has taken: the sum over its sessions, each from `RunStarted` to its last event."""
        return max((used_s for _, used_s in self._lines_with_seconds()), default=0.0)

    def _lines_with_seconds(self) -> Iterator[tuple[_Line, float]]:
        used_s, before_s = 0.0, math.inf
        for line in self._lines():
            if line.event is not None:
                if line.record["kind"] != RunStarted.kind:
                    used_s += max(0.0, line.record["session_s"] - before_s)
                before_s = line.record["session_s"]
            yield line, used_s

    def close(self) -> None:
        """Close the file, so that others can write it; the next event opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _write(self, record: dict[str, Any]) -> None:
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        clocks = {"time": round(time.time(), 3), "session_s": round(time.monotonic() - self._start_s, 3)}
        line = json.dumps({**clocks, **record}, separators=(",", ":"), allow_nan=False)
        rest = memoryview(line.encode("ascii") + b"\n")
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BaseException:
            self.close()  # a line that is written in part is removed when the file is opened again
            raise

    def _open(self) -> None:
        """Lock the file, remove what is invalid, and write the header of a new one."""
        import filelock  # slow to import

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(self.path.with_name(self.path.name + ".lock"), thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            self._lock = None
            raise JournalError(
                f"{self.path} is being written by another run, in another process or in this one. Wait until that run "
                "has ended, or stop it."
            ) from error
        end = 0
        for line in self._lines():
            end = line.end
        if self.path.exists() and (rest := self.path.read_bytes()[end:]):
            # Whole lines after the last valid one are kept in another file.
            lines = [line for line in rest.splitlines(keepends=True) if line.endswith(b"\n") and line.strip(b"\0\r\n ")]
            if lines:
                kept = self.path.with_name(self.path.name + DAMAGED)
                with kept.open("ab") as file:
                    file.write(rest)
                sync(kept)
                what = count_of(len(lines), "line")
                text = f"{self.path} is damaged. The run continues without its last {what}, which are in {kept}."
                warnings.warn(text, stacklevel=2)
            os.truncate(self.path, end)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(self.path, flags, 0o666)
        if end == 0:
            self._write({"kind": _HEADER, "version": VERSION})

    def _lines(self, end: int = 0, study: StudyRecord | None = None) -> Iterator[_Line]:
        """Read the valid lines after the first `end` bytes, which have left the study in this state."""
        if not self.path.exists():
            return
        if not self.path.is_file():
            raise JournalError(f"{self.path} is not a regular file. Restore a copy of it, or start a new run")
        study = study or StudyRecord()
        with self.path.open("rb") as file:
            file.seek(end)
            for line in file:
                event = None
                try:
                    record = _parsed(line)
                    if end == 0:
                        self._check_header(record)
                    else:
                        event = _event(record)
                        if isinstance(event, TrialCreated) and event.trial != len(study.trials):
                            raise ValueError(f"trial {event.trial} follows {len(study.trials)} trials")
                        study.apply(event)
                except JournalError:
                    raise
                except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError, DivergedError):
                    return
                end += len(line)
                yield _Line(end, record, event)

    def _check_header(self, record: dict[str, Any]) -> None:
        version = record["version"] if record.get("kind") == _HEADER else 0
        if type(version) is not int:
            raise TypeError("the version is not a number")
        if version < OLDEST:
            raise JournalError(
                f"{self.path} was written by a version of Saccade before the first release. Such a run cannot be "
                "resumed; start a new one."
            )
        if version > VERSION:
            raise JournalError(
                f"{self.path} was written by a newer version of Saccade (log version {version}; this one reads up to "
                f"{VERSION}). Continue the run with that version."
            )

    def _config(self, record: dict[str, Any]) -> Any:
        """Return the configuration of a new trial; objects without a JSON form are taken from the space."""
        try:
            return from_json_value(record["config"])
        except LostObjectError as lost:
            if self.space is not None and "params" in record:
                with contextlib.suppress(SaccadeError):  # of another space
                    return from_optuna(self.space, record["params"])
            raise JournalError(
                f"The configuration of trial {record['trial']} in {self.path} has the value {lost}, which has no JSON "
                "form. Pass the space with which the run was started."
            ) from None


def copy_events(source: Path, target: Path, *, is_public: bool = False) -> None:
    """Write the valid lines of a log to another file, in one step; no file without a log.

    `is_public` leaves out what has paths of this machine: warnings, tracebacks, the folder, and examples of findings.
    """
    lines = []
    for line in EventLog(source)._lines():
        record = line.record
        if is_public and isinstance(line.event, Warned):
            continue
        if is_public:
            record = {**record, **{name: "" for name in ("folder", "traceback") if name in record}}
            if isinstance(line.event, DataChecked):
                record["findings"] = [{**finding, "examples": []} for finding in line.event.findings]
        lines.append(json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n")
    if lines:
        part = target.with_name(f"{target.name}.part")
        part.write_text("".join(lines), encoding="ascii")
        part.replace(target)


def _parsed(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line; raise a ValueError if the line is cut short or damaged."""

    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    # A power failure may leave zeros where data was never written.
    if not line.endswith(b"\n"):
        raise ValueError("the line is cut short")
    record = json.loads(line.strip(b"\0\r\n "), parse_constant=refuse_constant)
    if not isinstance(record, dict):
        raise ValueError("expected a JSON object")
    for clock in set(_CLOCKS) & record.keys():
        if type(record[clock]) not in (int, float) or not math.isfinite(record[clock]):
            raise ValueError(f"{clock} is not a number")
    return record


def _event(record: dict[str, Any]) -> Event:
    """Return the event of a line, with objects without a JSON form as text; the types of its fields are checked."""
    if record["kind"] not in _KINDS:
        raise UnknownNameError.of("kind of event", record["kind"], _KINDS)
    if not record.keys() >= set(_CLOCKS):
        raise ValueError("the line has no time")
    cls = _KINDS[record["kind"]]
    fields = {name: value for name, value in record.items() if name not in ("kind", *_CLOCKS, "params")}
    fields = {name: from_json_value(value, as_text=True) for name, value in fields.items()}
    if fields.get("decision") is not None:
        fields["decision"] = Decision(fields["decision"])
    event = cls(**fields)
    _schema(cls.kind).model_validate(vars(event))
    return event


@functools.cache
def _schema(kind: str) -> type[BaseModel]:
    """Return the types of the fields of a kind of event."""
    from pydantic import ConfigDict, Field, create_model  # slow to import

    fields: dict[str, Any] = {}
    for name, hint in get_type_hints(_KINDS[kind]).items():
        if name == "config":  # its keys may be any objects
            hint = dict
        if name != "kind":
            fields[name] = (hint, Field(ge=0, lt=1e15) if name in _COUNTS else Field())
    return create_model(kind, __config__=ConfigDict(strict=True), **fields)


class LostObjectError(ValueError):
    """A value was stored as its `repr` only, which is the message."""


def to_json_value(value: Any) -> Any:
    """Return a JSON value from which `from_json_value` restores the value; of objects without a JSON form, the `repr`.

    What JSON lacks becomes an object with a single key that starts with an exclamation mark.
    """
    value = plain(value)
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"!float": str(value)}
    if kind is list:
        return [to_json_value(part) for part in value]
    if kind is dict:
        if all(type(key) is str for key in value) and _tag(value) is None:
            return {key: to_json_value(part) for key, part in value.items()}
        return {"!dict": [[to_json_value(part) for part in item] for item in value.items()]}
    if kind in (tuple, set, frozenset):
        return {f"!{kind.__name__}": [to_json_value(part) for part in value]}
    return {"!lost": repr(value)}


def from_json_value(value: Any, *, as_text: bool = False) -> Any:
    """Return the value from which `to_json_value` made this one.

    An object of which only the `repr` was stored raises a LostObjectError, or is returned as that text (`as_text`).
    """
    restored = functools.partial(from_json_value, as_text=as_text)
    if isinstance(value, list):
        return [restored(part) for part in value]
    if not isinstance(value, dict):
        return value
    tag = _tag(value)
    if tag is None:
        return {key: restored(part) for key, part in value.items()}
    inner = value[tag]
    if tag == "!float":
        return float(inner)
    if tag in _COLLECTIONS:
        return _COLLECTIONS[tag](restored(inner))
    if tag == "!dict":
        return dict(restored(inner))
    if as_text:
        return str(inner)
    raise LostObjectError(str(inner))


def _tag(value: dict[Any, Any]) -> str | None:
    """Return the single key of a dict if it starts with an exclamation mark."""
    key = next(iter(value)) if len(value) == 1 else None
    return key if isinstance(key, str) and key.startswith("!") else None
