"""Trackers: what else is to receive the events of a run, such as an experiment logger."""

from __future__ import annotations

import contextlib
import csv
import inspect
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.events import EpochDone, Event, Listener, RunStarted, TrialCreated
from saccade.study.event_log import to_json_value
from saccade.study.registry import Registry


class Tracker(ABC):
    """Receives every event of a run; see `saccade.events` for their classes.

    Pass instances in ``callbacks=[...]`` of `fit`, `tune` and the estimators. An entry point in the group
    ``saccade.trackers`` registers a class by name; it is created without arguments. A plain function of one event is a
    tracker as well. An exception of a tracker is a warning: the tracker receives no more events, the run continues.
    Events come one at a time, in the main process; the run waits for a tracker, so slow ones should use a thread.

    Examples
    --------
    >>> class Scores(Tracker):
    ...     def __init__(self):
    ...         self.scores = []
    ...
    ...     def on_event(self, event):
    ...         if event.kind == "epoch_done":
    ...             self.scores.append(event.score)
    >>> import saccade
    >>> from saccade.space import Categorical
    >>> scores = Scores()
    >>> space = {"x": Categorical(1, 3, 2)}
    >>> _ = saccade.tune(lambda config: config["x"], space, searcher="grid", callbacks=[scores], verbosity=0)
    >>> scores.scores
    [1.0, 3.0, 2.0]
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Tracker:
        """Return this tracker, to which clones of an estimator report as well."""
        return self

    @abstractmethod
    def on_event(self, event: Event) -> object:
        """Receive an event; the return value is ignored."""

    def close(self) -> None:  # noqa: B027 (most trackers have nothing to close)
        """Receive the end of the run, however it ended."""


class CsvTracker(Tracker):
    """Writes a line for each epoch to ``epochs.csv`` in the run folder; a resumed run appends to it.

    The columns are trial, epoch, score, seconds, and the trial's configuration as JSON. A search without a folder
    writes nothing.
    """

    def __init__(self) -> None:
        self._file: Path | None = None
        self._configs: dict[int, str] = {}

    def on_event(self, event: Event) -> None:
        """Write a line after an epoch."""
        match event:
            case RunStarted(folder=folder) if folder:
                self._file = Path(folder) / "epochs.csv"
            case TrialCreated():
                self._configs[event.trial] = json.dumps(to_json_value(event.config))
            case EpochDone() if self._file is not None:
                is_new = not self._file.exists()
                with self._file.open("a", encoding="utf-8", newline="") as lines:
                    writer = csv.writer(lines)
                    if is_new:
                        writer.writerow(["trial", "epoch", "score", "seconds", "config"])
                    config = self._configs.get(event.trial, "")
                    writer.writerow([event.trial, event.epoch, event.score, round(event.seconds, 3), config])


TRACKERS: Registry[Tracker] = Registry(
    "tracker",
    Tracker,  # type: ignore[type-abstract]
    {"csv": CsvTracker},
)

Callback = str | Tracker | Callable[[Event], object]
"""A name in `TRACKERS`, a tracker, or a function of one event."""


def check_callbacks(callbacks: Any) -> list[Callback]:
    """Return the callbacks as a list; raise a HyperparameterError or an UnknownNameError for invalid ones."""
    if callbacks is None:
        return []
    if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
        raise HyperparameterError(f"callbacks was given {callbacks!r}; expected a list, such as [print]")
    for callback in callbacks:
        if isinstance(callback, str):
            if callback not in TRACKERS:
                raise UnknownNameError.of("tracker", callback, TRACKERS)
        elif inspect.isclass(callback) or not (isinstance(callback, Tracker) or callable(callback)):
            raise HyperparameterError(
                f"callbacks contains {callback!r}; expected an instance of saccade.study.trackers.Tracker, a function "
                "of one event, or the name of a tracker"
            )
    return list(callbacks)


_everywhere: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Context in which every run passes its events to `listener` too, whose exceptions end the run."""
    token = _everywhere.set((*_everywhere.get(), listener))
    try:
        yield
    finally:
        _everywhere.reset(token)


@contextlib.contextmanager
def connected(callbacks: Sequence[Callback]) -> Iterator[list[Listener]]:
    """Return a listener for each callback; close the trackers in the end."""
    listeners = [_Guarded(TRACKERS.make(one) if isinstance(one, (str, Tracker)) else one) for one in callbacks]
    try:
        yield [*_everywhere.get(), *listeners]
    finally:
        for listener in listeners:
            listener.close()


class _Guarded:
    """Passes events to a tracker until it raises for the first time."""

    def __init__(self, target: Tracker | Callable[[Event], object]) -> None:
        self._target: Tracker | Callable[[Event], object] | None = target

    def __call__(self, event: Event) -> None:
        if self._target is not None:
            self._call(self._target.on_event if isinstance(self._target, Tracker) else self._target, event)

    def close(self) -> None:
        if isinstance(self._target, Tracker):
            self._call(self._target.close)

    def _call(self, function: Callable[..., object], *arguments: Event) -> None:
        try:
            function(*arguments)
        except Exception as error:
            target, self._target = self._target, None
            name = type(target).__name__ if isinstance(target, Tracker) else getattr(target, "__name__", repr(target))
            text = f"The tracker {name} raised {type(error).__name__}: {error}. It receives no more events."
            warnings.warn(text, stacklevel=3)
            if isinstance(target, Tracker) and arguments:
                with contextlib.suppress(Exception):  # one warning is enough
                    target.close()
