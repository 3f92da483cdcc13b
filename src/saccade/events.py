"""What a run tells the world: one small record for each thing that happened.

Workers send the events of their jobs to the study; the study passes everything on to its listeners: the log in the
run folder (`EventLog`), the progress display, and whoever else wants to know.
"""

from __future__ import annotations

import json
import math
import numbers
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from saccade.errors import DivergedError, UnknownNameError


@dataclass(frozen=True)
class Event:
    """The root of all events; `kind` is the name under which an event is logged."""

    kind: ClassVar[str] = "event"


@dataclass(frozen=True)
class RunStarted(Event):
    """A run has begun in `folder`."""

    kind: ClassVar[str] = "run_started"
    folder: str
    num_trials: int | None
    time_limit_s: float | None


@dataclass(frozen=True)
class DataReady(Event):
    """The images are split and decoded."""

    kind: ClassVar[str] = "data_ready"
    num_train: int
    num_val: int
    num_classes: int
    num_unreadable: int
    seconds: float


@dataclass(frozen=True)
class Warned(Event):
    """Something that the user should read."""

    kind: ClassVar[str] = "warned"
    text: str


@dataclass(frozen=True)
class Progressed(Event):
    """`done` of `total` steps of a long piece of work named `what`."""

    kind: ClassVar[str] = "progressed"
    what: str
    done: int
    total: int


@dataclass(frozen=True)
class PhaseDone(Event):
    """A phase of a run has ended.

    Attributes
    ----------
    phase : str
        Its name, such as ``"decoding"``.
    start_s, seconds : float
        Seconds of the run at which it began, and its duration.
    """

    kind: ClassVar[str] = "phase_done"
    phase: str
    start_s: float
    seconds: float


@dataclass(frozen=True)
class TrialStarted(Event):
    """A job of trial number `trial` was handed to a worker."""

    kind: ClassVar[str] = "trial_started"
    trial: int
    config: dict[str, Any]


SURER_SCORE = "surer_score"
"""The name in `EpochDone.metrics` of what searchers learn instead of the score."""


@dataclass(frozen=True)
class EpochDone(Event):
    """A trial has trained and judged one more epoch.

    Attributes
    ----------
    epoch : int
        Epochs completed, from 1.
    score : float
        The validation figure, a finite number; higher is better.
    seconds : float
        What the epoch cost, waiting for data and validation included.
    metrics : dict
        Further figures by name. One named `SURER_SCORE` is the same figure as the score, by more images.
    checkpoint : str or None
        A file from which training can continue after this epoch.
    is_last : bool
        Whether the trial's configuration asks for no more epochs, as far as whoever trains it knows.

    Raises
    ------
    DivergedError
        When the score is NaN or infinite: nothing could be compared with it.
    """

    kind: ClassVar[str] = "epoch_done"
    trial: int
    epoch: int
    score: float
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    checkpoint: str | None = None
    is_last: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise DivergedError(f"the score of epoch {self.epoch} is {self.score}; a score is a finite number")


@dataclass(frozen=True)
class JobDone(Event):
    """A job came to its end: `status` says how (``completed``, ``stopped`` or ``paused``)."""

    kind: ClassVar[str] = "job_done"
    trial: int
    status: str = "completed"
    reason: str = ""


@dataclass(frozen=True)
class JobFailed(Event):
    """A job raised, ran out of memory, diverged, or lost its worker.

    Attributes
    ----------
    reason : str
        One line.
    traceback : str
        Of the error, when there was one.
    is_worker_lost : bool
        Whether the worker crashed or was killed, which need not be the trial's fault.
    """

    kind: ClassVar[str] = "job_failed"
    trial: int
    reason: str
    traceback: str = ""
    is_worker_lost: bool = False


@dataclass(frozen=True)
class WorkerJoined(Event):
    """An executor has one more worker; `num_workers` is the new number."""

    kind: ClassVar[str] = "worker_joined"
    num_workers: int


@dataclass(frozen=True)
class WorkerLost(Event):
    """An executor has lost a worker for good; `num_workers` is the new number. A job that it had fails separately."""

    kind: ClassVar[str] = "worker_lost"
    num_workers: int


@dataclass(frozen=True)
class RunFinished(Event):
    """The run is over; `best_trial` is None when no trial succeeded."""

    kind: ClassVar[str] = "run_finished"
    best_trial: int | None
    score: float | None
    seconds: float


Listener = Callable[[Event], None]

_KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in Event.__subclasses__()}


def to_json(event: Event) -> dict[str, Any]:
    """Return the event as a JSON-able dictionary.

    Numbers that JSON lacks (NaN, infinities) become None, and objects that it lacks become their `repr`.

    Examples
    --------
    >>> to_json(EpochDone(trial=7, epoch=1, score=0.5, metrics={"loss": math.inf}))["metrics"]
    {'loss': None}
    """
    return {"kind": event.kind, **{name: _jsonable(value) for name, value in vars(event).items()}}


def from_json(record: dict[str, Any]) -> Event:
    """Return the event that `to_json` wrote; a metric that it could not write is NaN.

    Raises
    ------
    UnknownNameError
        When this version knows no event of that kind.
    """
    fields = {name: value for name, value in record.items() if name not in ("kind", "time")}
    kind = record["kind"]
    if kind not in _KINDS:
        raise UnknownNameError.of("kind of event", kind, _KINDS)
    if kind == EpochDone.kind:
        metrics = fields["metrics"].items()
        fields["metrics"] = {name: math.nan if value is None else value for name, value in metrics}
    return _KINDS[kind](**fields)


class LineFile:
    """A file that only grows, by whole lines, each of which is with the operating system when `append` returns.

    So a process that is killed loses nothing that it wrote. A last line that a kill, or a full disk, cut short gives
    way when the file is opened again, which `append` does by itself. The file stays open, because to open it for each
    line takes longer than to write the line.

    Parameters
    ----------
    path : Path
        The file; it is created with its folder when the first line comes.

    Examples
    --------
    >>> import tempfile
    >>> file = LineFile(Path(tempfile.mkdtemp()) / "lines")
    >>> file.append(b"one", b"two")
    >>> list(file)
    [b'one', b'two']
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # A plain descriptor can be closed by `__del__`; a file object would warn that nobody had closed it.
        self._descriptor: int | None = None

    def append(self, *lines: bytes) -> None:
        """Write lines, in one piece; they contain no line break."""
        if self._descriptor is None:
            self._descriptor = self._open()
        rest = memoryview(b"".join(line + b"\n" for line in lines))
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BaseException:
            self.close()  # what was written in part is cut when the file is opened again
            raise

    def __iter__(self) -> Iterator[bytes]:
        """Read the whole lines that there are now, first to last."""
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]

    def close(self) -> None:
        """Close the file, which Windows needs before it can be moved or removed; the next line opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            _cut_torn_line(file)
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))


def _cut_torn_line(file: BinaryIO) -> None:
    """Shorten a file to its last whole line."""
    size = end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        file.truncate(end)


_BLOCK = 65_536
"""Bytes in which the end of a file is searched for a line break."""


class EventLog:
    """An append-only log: one JSON object a line, flushed as it happens.

    Passing progress is not logged; it tells nothing afterwards. A last line that was cut short by a kill is not
    read, and the next event takes its place.

    Parameters
    ----------
    path : Path
        The file; it is created with its folder when the first event comes.

    Examples
    --------
    >>> import tempfile
    >>> log = EventLog(Path(tempfile.mkdtemp()) / "events.jsonl")
    >>> log(Warned("3 images cannot be read"))
    >>> list(log)
    [Warned(text='3 images cannot be read')]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = LineFile(path)

    def __call__(self, event: Event) -> None:
        """Write one event."""
        if not isinstance(event, Progressed):
            line = json.dumps({"time": round(time.time(), 3), **to_json(event)})
            self._file.append(line.encode("ascii"))

    def __iter__(self) -> Iterator[Event]:
        """Read the events back, oldest first."""
        self.close()
        for line in self._file:
            yield from_json(json.loads(line))

    def close(self) -> None:
        """Close the file; the next event opens it again."""
        self._file.close()


def _jsonable(value: Any) -> Any:
    match value:
        case None | bool() | str():
            return value
        case dict():
            return {str(key): _jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [_jsonable(item) for item in value]
        case numbers.Integral():  # NumPy's numbers too
            return int(value)
        case numbers.Real():
            return float(value) if math.isfinite(value) else None
        case _:
            return repr(value)
