"""The event log: the one durable record of a run, from which its study is restored."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import JournalError, SaccadeError, SpaceError, UnknownNameError
from saccade.events import Decision, EpochDone, Event, Progressed, RunStarted, TrialCreated
from saccade.space import Dict, encode, from_optuna
from saccade.study.json_values import LostObjectError, from_json_value, to_json_value

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from typing_extensions import Self

VERSION = 2
"""Version of the format, in the first line of each log. Lines of version 1 have no ``session_s``."""

_HEADER = "event_log"
_KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in Event.__subclasses__()}


class EventLog:
    """An append-only file of events, one JSON object a line.

    An event is with the operating system when the call returns, so a process that is killed loses nothing. The file can
    be read while it grows. A damaged end (a line cut short, or bytes that were never written, after a power failure) is
    not read, and the next event replaces it. One process writes a log at a time.

    Each line has the time of day (``time``, seconds since 1970) and the seconds since this object was created
    (``session_s``), which do not change when the clock is set. `Progressed` is not logged. Values that JSON lacks (NaN,
    tuples, sets) are written as `saccade.study.json_values` describes. Objects in a configuration that have no JSON
    form are stored by their position in the space.

    Parameters
    ----------
    path : Path
        The file; it is created, with its folder, by the first event.
    space : saccade.space.Dict or None
        The search space; only needed if configurations hold objects that have no JSON form.
    as_text : bool
        Whether to read such objects as their `repr`, to show them.

    Raises
    ------
    JournalError
        By reading, if the file is damaged before its end, or was written by another version; by the first write, if
        another process writes the file.

    Examples
    --------
    >>> import tempfile
    >>> from saccade.events import Warned
    >>> with EventLog(Path(tempfile.mkdtemp()) / "events.jsonl") as log:
    ...     log(Warned("3 images cannot be read"))
    >>> list(log)
    [Warned(text='3 images cannot be read')]
    """

    def __init__(self, path: Path, space: Dict | None = None, *, as_text: bool = False) -> None:
        self.path, self.space, self._as_text = path, space, as_text
        self._start_s = time.monotonic()
        self._descriptor: int | None = None
        self._lock: BaseFileLock | None = None

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
        for number, record in self._records():
            try:
                yield self._event(record)
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, JournalError):
                    raise
                raise self._damaged(number, error) from error

    def seconds_used(self) -> float:
        """Return how long the run has taken, the sum over its sessions.

        A session lasts from its `RunStarted` to the last event before the next one. Its time is measured with a
        monotonic clock, so setting the time of day does not change it. Lines of format version 1 have only the time of
        day; between them, a clock that is set back counts as no time.
        """
        used_s = 0.0
        previous: dict[str, Any] | None = None
        for _, record in self._records():
            if previous is not None and record["kind"] != RunStarted.kind:
                clock = "session_s" if "session_s" in record and "session_s" in previous else "time"
                used_s += max(0.0, record[clock] - previous[clock])
            previous = record
        return used_s

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
        """Lock the file, remove a damaged end, and write the header of a new one."""
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
        data = self.path.read_bytes() if self.path.exists() else b""
        end = data.rfind(b"\n") + 1
        while end and _parsed(data[(start := data.rfind(b"\n", 0, end - 1) + 1) : end]) is None:
            end = start
        if end < len(data):
            os.truncate(self.path, end)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(self.path, flags, 0o666)
        if end == 0:
            self._write({"kind": _HEADER, "version": VERSION})

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Read whole lines with their numbers, from 1; a line that is damaged is an error if a sound one follows."""
        if not self.path.exists():
            return
        damaged = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                record = _parsed(line)
                if record is None:
                    damaged = damaged or number
                elif damaged:
                    raise self._damaged(damaged, ValueError("expected a JSON object"))
                elif number == 1:
                    self._check_header(record)
                else:
                    yield number, record

    def _check_header(self, record: dict[str, Any]) -> None:
        version = record.get("version") if record.get("kind") == _HEADER else None
        if version is None:
            raise JournalError(
                f"{self.path} was written by a version of Saccade before the first release, which kept the study in "
                "journal.log. Such a run cannot be resumed; start a new one."
            )
        if version > VERSION:
            raise JournalError(
                f"{self.path} was written by a newer version of Saccade (log version {version}; this one reads up to "
                f"{VERSION}). Continue the run with that version."
            )

    def _event(self, record: dict[str, Any]) -> Event:
        kind = record["kind"]
        if kind not in _KINDS:
            raise UnknownNameError.of("kind of event", kind, _KINDS)
        fields = {name: value for name, value in record.items() if name not in ("kind", "time", "session_s", "params")}
        if "decision" in fields:
            fields["decision"] = Decision(fields["decision"])
        try:
            return _KINDS[kind](
                **{name: from_json_value(value, as_text=self._as_text) for name, value in fields.items()}
            )
        except LostObjectError as lost:
            if self.space is not None and "params" in record:
                try:
                    return TrialCreated(record["trial"], from_optuna(self.space, record["params"]))
                except SaccadeError:  # of another space
                    pass
            raise JournalError(
                f"The configuration of trial {record['trial']} in {self.path} has the value {lost}, which has no JSON "
                "form. Pass the space with which the run was started."
            ) from None

    def _damaged(self, number: int, error: Exception) -> JournalError:
        return JournalError(
            f"{self.path}, line {number}, is invalid ({type(error).__name__}: {error}). The file is damaged, or was "
            "written by another version of Saccade; restore a copy, or start a new run."
        )


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line; None if the line is cut short or damaged."""
    # A power failure may leave zeros where data was never written.
    text = line.strip(b"\0\r\n ")
    if not line.endswith(b"\n") or not text:
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
