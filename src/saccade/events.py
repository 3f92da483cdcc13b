"""What a run tells the world: one small record for each thing that happened.

Workers send the events of their jobs to the study; the study passes everything on to its listeners: the log in the
run folder (`EventLog`), the progress display, and whoever else wants to know.
"""

from __future__ import annotations

import json
import math
import numbers
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
class TrialStarted(Event):
    """A job of trial number `trial` was handed to a worker."""

    kind: ClassVar[str] = "trial_started"
    trial: int
    config: dict[str, Any]


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
        Further figures by name.
    checkpoint : str or None
        A file from which training can continue after this epoch.

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
    """A job raised, ran out of memory, diverged, or lost its worker."""

    kind: ClassVar[str] = "job_failed"
    trial: int
    reason: str
    traceback: str = ""


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

    def __call__(self, event: Event) -> None:
        """Write one event."""
        if isinstance(event, Progressed):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"time": round(time.time(), 3), **to_json(event)})
        with self.path.open("ab") as file:
            _cut_torn_line(self.path, file)
            file.write(line.encode("ascii") + b"\n")

    def __iter__(self) -> Iterator[Event]:
        """Read the events back, oldest first."""
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield from_json(json.loads(line))


def _cut_torn_line(path: Path, log: BinaryIO) -> None:
    """Shorten the log, which is open at its end, to its last whole line."""
    end = log.tell()
    if not end:
        return
    with path.open("rb") as file:
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            log.truncate(file.read().rfind(b"\n") + 1)


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
