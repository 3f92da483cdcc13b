"""optuna-dashboard over copies of the studies of runs, with the reports of the runs beside it."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from saccade.errors import DataError, HyperparameterError, SaccadeError
from saccade.events import Event, TrialCreated
from saccade.study.event_log import EventLog
from saccade.study.life import StudyRecord
from saccade.study.run_folder import EVENTS, NEW
from saccade.study.trial import Status, Trial
from saccade.trackers.base import flat
from saccade.tuning.folder import ABOUT, read_about

Direction = Literal["minimize", "maximize"]
INTERVAL_S = 2.0  # least seconds between two looks at the files of the runs

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Saccade dashboard</title><style>body{{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;
padding:0 1rem;color-scheme:light dark}}</style><h1>Saccade dashboard</h1><ul>{items}</ul></html>"""


class Run:
    """A run folder of `fit` or `tune`, or a saved predictor: read, and never changed."""

    def __init__(self, path: Path) -> None:
        self.folder = path.expanduser().absolute()
        self.is_search = (self.folder / ABOUT).is_file()
        self._logs = self.folder / EVENTS, self.folder / NEW / EVENTS  # the second one of a run that replaces another
        self.read()  # raises an error for a folder without a run

    def read(self) -> tuple[list[Event], Direction, float]:
        """Return the events, the direction of the score, and its sign in them."""
        if self.is_search:
            mode = read_about(self.folder)["mode"]
            events = list(EventLog(self.folder / EVENTS, as_text=True))
            return (events, "minimize", -1.0) if mode == "min" else (events, "maximize", 1.0)
        log = next((file for file in self._logs if file.is_file()), None)
        if log is not None:
            return list(EventLog(log, as_text=True)), "maximize", 1.0
        from saccade.report.record import RunRecord  # slow to import: torch

        return RunRecord.read(self.folder).events, "maximize", 1.0

    def state(self) -> list[tuple[int, int]]:
        """Return what changes when the run does."""
        return [(found.st_size, found.st_mtime_ns) for file in self._logs if file.is_file() and (found := file.stat())]


class Site:
    """The pages: ``/`` with links, ``/reports/N`` of run N, and optuna-dashboard at all other addresses.

    The studies are copies in memory, made again when the files of a run have changed. Reports that a run does not have,
    or that are older than its last event, are written to a temporary folder.
    """

    def __init__(self, runs: Sequence[Run], scratch: Path) -> None:
        self.runs, self._scratch = runs, scratch
        given = [run.folder.name for run in runs]
        self.names = [str(run.folder) if given.count(run.folder.name) > 1 else run.folder.name for run in runs]
        self._lock = threading.Lock()
        self._states: list[Any] = []
        self._dashboard: Callable[..., Iterable[bytes]] | None = None
        self._next_s = 0.0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request; a WSGI application."""
        path = environ.get("PATH_INFO", "/").rstrip("/")
        if path and not path.startswith("/reports/"):
            return self._current_dashboard()(environ, start_response)
        status, page = "200 OK", ""
        try:
            page = self._report(path.rpartition("/")[2]) if path else self._index()
        except SaccadeError as error:
            status, page = "404 Not Found", f"<!doctype html><title>No report</title><p>{escape(str(error))}"
        body = page.encode()
        start_response(status, [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))])
        return [body]

    def _index(self) -> str:
        items = (
            f'<li><b>{escape(name)}</b>: <a href="/dashboard/studies/{number}">study</a>'
            + ("" if run.is_search else f', <a href="/reports/{number}">report</a>')
            + f"<br><small>{escape(str(run.folder))}</small></li>"
            for number, (name, run) in enumerate(zip(self.names, self.runs, strict=True))
        )
        return _PAGE.format(items="".join(items))

    def _report(self, number: str) -> str:
        if not number.isascii() or not number.isdecimal() or int(number) >= len(self.runs):
            raise DataError(f"Run {number!r} does not exist; the runs are 0 to {len(self.runs) - 1}")
        run = self.runs[int(number)]
        if run.is_search:
            raise DataError(f"{run.folder} is a search of tune, which has no report")
        own, log = run.folder / "report.html", run.folder / EVENTS
        with self._lock:
            if own.is_file() and (not log.is_file() or own.stat().st_mtime >= log.stat().st_mtime - 60):
                return own.read_text(encoding="utf-8")
            from saccade.report.report import Report  # slow to import: torch

            return Report.read(run.folder).save(self._scratch / f"report-{number}.html").read_text(encoding="utf-8")

    def _current_dashboard(self) -> Callable[..., Iterable[bytes]]:
        import optuna
        import optuna_dashboard

        with self._lock:
            if self._dashboard is None or time.monotonic() >= self._next_s:
                states = [run.state() for run in self.runs]
                if self._dashboard is None or states != self._states:
                    storage = optuna.storages.InMemoryStorage()
                    for name, run in zip(self.names, self.runs, strict=True):
                        events, direction, sign = run.read()
                        _copy_study(storage, name, events, direction, sign)
                    self._dashboard, self._states = optuna_dashboard.wsgi(storage), states
                self._next_s = time.monotonic() + INTERVAL_S
            return self._dashboard


def _copy_study(storage: Any, name: str, events: Sequence[Event], direction: Direction, sign: float) -> None:
    """Add the trials after some events to a storage, with the hyperparameters that differ between them."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState, create_trial

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # or it prints that there is a new study
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    finally:
        optuna.logging.set_verbosity(verbosity)
    trials = StudyRecord.load(events).trials
    configs = [flat(event.config) for event in events if isinstance(event, TrialCreated)]
    distributions: dict[str, BaseDistribution] = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [config[key] for config in configs if key in config]
        numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
        if len(numbers) < len(values):
            distributions[key] = CategoricalDistribution(list(dict.fromkeys(values)))
        else:
            low, high = min(numbers), max(numbers)
            kind: Any = IntDistribution if all(isinstance(each, int) for each in numbers) else FloatDistribution
            distributions[key] = kind(low, high, log=low > 0 and high / low > 100)
    for trial, config in zip(trials, configs, strict=True):
        state, value = TrialState.RUNNING, None
        if trial.status not in (Status.RUNNING, Status.PAUSED):
            is_failed = trial.status is Status.FAILED or trial.best_report is None
            state = TrialState.FAIL if is_failed else TrialState.COMPLETE
        if state is TrialState.COMPLETE and trial.best_report is not None:
            value = sign * trial.best_report.score
        study.add_trial(
            create_trial(
                state=state,
                value=value,
                params=config,
                distributions={key: distributions[key] for key in config},
                user_attrs={"status": _status(trial)},
                intermediate_values={report.epoch: sign * report.score for report in trial.reports},
            )
        )


def _status(trial: Trial) -> str:
    reason = trial.note if trial.failure is None else trial.failure.reason
    return f"{trial.status.value}: {reason}" if reason else trial.status.value


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Print nothing for a request."""


def run_dashboard(
    paths: Sequence[Path],
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    opens_browser: bool = True,
    on_start: Callable[[str], object] | None = None,
) -> str:
    """Show the studies and reports of runs over HTTP until Ctrl-C; return the address.

    Raises a HyperparameterError without the library, and a DataError for a folder without a run, or an address that is
    not available. `on_start` receives the address when requests are accepted.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise HyperparameterError(
            "The dashboard requires the package optuna-dashboard, which is not installed. Run "
            "pip install 'saccade[dashboard]'"
        )
    runs = [Run(path) for path in {path.expanduser().absolute(): path for path in paths}.values()]
    with tempfile.TemporaryDirectory(prefix="saccade_dashboard_") as scratch:
        site = Site(runs, Path(scratch))
        try:
            server = make_server(host, port, site, server_class=_Server, handler_class=_QuietHandler)
        except (OSError, OverflowError) as error:
            is_used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            why = "is in use" if is_used else f"is not available ({getattr(error, 'strerror', None) or error})"
            raise DataError(f"Port {port} of {host} {why}. Pass another --port, or 0 for a free one") from None
        with server:
            url = f"http://{host}:{server.server_port}"
            lines = [f"Dashboard {url}/dashboard of {', '.join(site.names)} (Ctrl-C stops it)"]
            searches = [run.is_search for run in runs]
            lines += [f"Report {url}/reports/{n} of {site.names[n]}" for n in range(len(runs)) if not searches[n]]
            sys.stdout.write("\n".join([*lines, ""]))
            sys.stdout.flush()
            if on_start is not None:
                on_start(url)
            has_screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
            if opens_browser and has_screen:
                webbrowser.open(url)
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
    return url
