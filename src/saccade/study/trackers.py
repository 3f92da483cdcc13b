"""Trackers: what else is to receive the events of a run, such as an experiment logger."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import inspect
import json
import queue
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

from saccade.errors import HyperparameterError
from saccade.events import EpochDone, Event, Listener, TrialCreated
from saccade.study.event_log import to_json_value
from saccade.study.registry import Registry


class Tracker(ABC):
    """Receives every event of a run; see `saccade.events` for their classes.

    Pass instances in ``callbacks=[...]`` of `fit`, `tune` and the estimators. An entry point in the group
    ``saccade.trackers`` registers a class by name; it is created without arguments. A plain function of one event is a
    tracker as well. An exception of a tracker is a warning: the tracker receives no more events, the run continues.
    Events come one at a time, in the main process. The run waits for a tracker, unless its class has
    ``in_background = True``: then `on_event` and `close` run in a thread of their own, and only the end of the run
    waits for them, for `close_timeout_s` seconds at most.

    Attributes
    ----------
    library : str
        Module that the tracker needs, whose extra has the same name; "" if it needs none. If it is missing, a tracker
        that is given by name is an error before anything is trained.
    in_background : bool
        Whether the run does not wait for `on_event`.
    close_timeout_s : float
        Seconds for which the end of the run waits for a tracker in the background; then there is a warning.
    folder : Path or None
        The folder of the run, in which a tracker may write; None for a search without one. When a fit has ended with
        `RunFinished`, the predictor is in its subfolder ``predictor``.

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

    library: ClassVar[str] = ""
    in_background: ClassVar[bool] = False
    close_timeout_s: float = 60.0
    folder: Path | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Tracker:
        """Return this tracker, to which clones of an estimator report as well."""
        return self

    def open(self, folder: Path | None) -> None:
        """Receive the folder of a run that begins, in the thread that called `fit` or `tune`."""
        self.folder = folder

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
        self._configs: dict[int, str] = {}

    def on_event(self, event: Event) -> None:
        """Write a line after an epoch."""
        match event:
            case TrialCreated():
                self._configs[event.trial] = json.dumps(to_json_value(event.config))
            case EpochDone() if self.folder is not None:
                file = self.folder / EPOCHS
                is_new = not file.exists()
                with file.open("a", encoding="utf-8", newline="") as lines:
                    writer = csv.writer(lines)
                    if is_new:
                        writer.writerow(["trial", "epoch", "score", "seconds", "config"])
                    config = self._configs.get(event.trial, "")
                    writer.writerow([event.trial, event.epoch, event.score, round(event.seconds, 3), config])


class OptunaStudy(Tracker):
    """Names the Optuna study that each run folder has anyway; warns if the search has no run folder."""

    def open(self, folder: Path | None) -> None:
        """Warn without a folder."""
        if folder is None:
            warnings.warn("A search without a folder keeps no Optuna study. Pass path=…", stacklevel=2)

    def on_event(self, event: Event) -> None:
        """Do nothing: the study itself writes the file, also for `saccade dashboard`."""


TRACKERS: Registry[Tracker] = Registry(
    "tracker",
    Tracker,  # type: ignore[type-abstract]
    {
        "csv": CsvTracker,
        "mlflow": "saccade.trackers.mlflow:MlflowTracker",
        "optuna": OptunaStudy,
        "tensorboard": "saccade.trackers.tensorboard:TensorBoardTracker",
        "trackio": "saccade.trackers.trackio:TrackioTracker",
        "wandb": "saccade.trackers.wandb:WandbTracker",
    },
)

EPOCHS, TRACKED = "epochs.csv", "trackers.json"
"""Files in a run folder: what the tracker "csv" writes, and the ids of runs in other libraries."""

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
            require_library(TRACKERS[callback])
        elif inspect.isclass(callback) or not (isinstance(callback, Tracker) or callable(callback)):
            raise HyperparameterError(
                f"callbacks contains {callback!r}; expected an instance of saccade.study.trackers.Tracker, a function "
                "of one event, or the name of a tracker"
            )
    return list(callbacks)


def require_library(tracker: object) -> None:
    """Raise a HyperparameterError if the library of a tracker's class is missing."""
    library = getattr(tracker, "library", "")
    if library and importlib.util.find_spec(library) is None:
        raise HyperparameterError(
            f"The tracker {library!r} requires the package {library}, which is not installed. Run "
            f"pip install 'saccade[{library}]'"
        )


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
def connected(callbacks: Sequence[Callback], folder: Path | None = None) -> Iterator[list[Listener]]:
    """Return a listener for each callback of the run in a folder; close the trackers in the end."""
    listeners = [_Guarded(TRACKERS.make(one) if isinstance(one, (str, Tracker)) else one, folder) for one in callbacks]
    try:
        yield [*_everywhere.get(), *listeners]
    finally:
        for listener in listeners:  # all at once: together they wait no longer than the slowest one
            listener.stop()
        start_s = time.monotonic()
        for listener in listeners:
            listener.close(start_s)


class _Guarded:
    """Passes events to a tracker until it raises for the first time."""

    def __init__(self, target: Tracker | Callable[[Event], object], folder: Path | None) -> None:
        self._target: Tracker | Callable[[Event], object] | None = target
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()  # of a tracker in the background
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        if isinstance(target, Tracker):
            self._try(target.open, folder)
            self._warn()
            if self._target is not None and target.in_background:
                name = type(target).__name__
                # A daemon: a library that hangs must not keep the process alive.
                self._thread = threading.Thread(target=self._work, args=(target,), daemon=True, name=name)
                self._thread.start()

    def __call__(self, event: Event) -> None:
        if self._thread is not None:
            self._events.put(event)
        elif self._target is not None:
            self._try(self._target.on_event if isinstance(self._target, Tracker) else self._target, event)
        self._warn()

    def stop(self) -> None:
        """Let a tracker in the background close when it has received the events so far."""
        self._events.put(None)

    def close(self, start_s: float) -> None:
        """Close the tracker, or wait until the one in the background has been closed."""
        if self._thread is None:
            if isinstance(self._target, Tracker):
                self._try(self._target.close)
        elif isinstance(self._target, Tracker):
            limit_s = self._target.close_timeout_s
            with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends the wait; the run has ended already
                self._thread.join(max(0.0, start_s + limit_s - time.monotonic()))
            if self._thread.is_alive():
                name, waited_s = type(self._target).__name__, time.monotonic() - start_s
                text = f"The tracker {name} was not ready {waited_s:.0f} s after the end of the run"
                warnings.warn(f"{text}; what it has recorded is incomplete. See its close_timeout_s.", stacklevel=4)
        self._warn()

    def _work(self, target: Tracker) -> None:
        while self._error is None and (event := self._events.get()) is not None:
            self._try(target.on_event, event)
        if self._error is None:
            self._try(target.close)

    def _try(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception as error:
            if isinstance(self._target, Tracker) and function != self._target.close:
                with contextlib.suppress(Exception):  # one warning is enough
                    self._target.close()
            self._error = error

    def _warn(self) -> None:
        """Warn of an error, in the thread of the run."""
        if self._error is not None and self._target is not None:
            target, self._target = self._target, None
            name = type(target).__name__ if isinstance(target, Tracker) else getattr(target, "__name__", repr(target))
            text = f"The tracker {name} raised {type(self._error).__name__}: {self._error}. It receives no more events."
            warnings.warn(text, stacklevel=4)
