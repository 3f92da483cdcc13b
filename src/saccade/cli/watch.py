"""``saccade watch``."""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saccade.cli.output import emit_event
from saccade.errors import DataError
from saccade.study.event_log import EventLog
from saccade.study.run_folder import EVENTS, NEW, is_vacant, lock_owner

if TYPE_CHECKING:
    from saccade.study.display.progress import ProgressDisplay

POLL_S = 0.5


def watch(
    run: Annotated[Path, typer.Argument(help="The folder of a run of fit or tune, which may not exist yet.")],
    verbosity: Annotated[
        int, typer.Option(metavar="0-3", min=0, max=3, help="1 result, 2 trials and a live display, 3 epochs.")
    ] = 2,
) -> Any:
    """Follow a run from another terminal until it ends; Ctrl-C ends only the watching.

    The event log of the run is read, and nothing is written. A run that has finished is shown.
    """
    from saccade.cli.results import WatchResult
    from saccade.study.display.progress import ProgressDisplay, make_console
    from saccade.study.display.state import RunState

    state = RunState(clock=time.time)
    console = make_console(stderr=False)
    display = ProgressDisplay(verbosity, "", console, state, pid=None)
    is_ended = is_news = False
    with contextlib.suppress(KeyboardInterrupt):
        with display:
            is_news = _follow(run, display)
        is_ended = True
    if is_ended and not (is_news and state.is_finished):
        display.print_end()
    if is_ended and not state.is_finished:
        raise DataError(_how_it_ended(run))
    best = state.record.best_trial
    return WatchResult.make(
        run=run,
        is_finished=state.is_finished,
        best_trial=None if best is None else best.number,
        score=None if best is None or best.best_report is None else best.best_report.score,
        num_trials=len(state.record.trials),
    )


def _follow(run: Path, display: ProgressDisplay) -> bool:
    """Show the events of a run as they come, until no process works on it; return whether any came after the first."""
    log: EventLog | None = None
    num_reads, is_waiting, is_over, last_s = 0, False, False, 0.0
    while True:
        path = next((each / EVENTS for each in (run / NEW, run) if (each / EVENTS).is_file()), None)
        if path is not None and (log is None or log.path != path):
            log = EventLog(path, as_text=True)
            display.state.metric = _metric(run)
        news = [] if log is None or path is None else list(log.news())
        for event, last_s in news:
            emit_event(event, last_s)
            # On a terminal, the display shows what came before the watching.
            show = display.apply if display.is_live and not num_reads and not is_waiting else display
            show(event, last_s)
        if news:
            num_reads, is_over = num_reads + 1, False
            continue
        if is_over:  # and its last events were read
            display.state.clock = functools.partial(float, last_s)
            return num_reads > 1 or is_waiting
        owner = lock_owner(run)
        if owner is None and log is None and is_vacant(run):
            if not is_waiting:
                display.note(f"There is no run in {run} yet; waiting for it (Ctrl-C ends the watching)")
            is_waiting = True
        elif owner is None:
            if log is None:
                _check_is_run(run)
            is_over = True
            continue
        display.pid = owner or None
        time.sleep(POLL_S)


def _metric(run: Path) -> str:
    """Return the metric of a search of `tune`; a run of `fit` has it in its log."""
    from saccade.tuning.folder import ABOUT, read_about

    return str(read_about(run)["metric"]) if (run / ABOUT).is_file() else ""


def _check_is_run(run: Path) -> None:
    from saccade.fit.run_folder import is_run  # slow to import, as torch is
    from saccade.tuning.folder import ABOUT

    if not (run / ABOUT).is_file() and not is_run(run):
        raise DataError(f"{run} is not a run folder. Pass the folder of a run of saccade fit or saccade.tune")


def _how_it_ended(run: Path) -> str:
    """Return why a run without an end in its log has ended, and how to continue it."""
    from saccade.fit.run_folder import how_to_finish
    from saccade.tuning.folder import ABOUT

    if (run / ABOUT).is_file():
        how = f"Continue the search in {run} in Python: call saccade.tune again, with `resume` set to True"
    else:
        how = how_to_finish(run) or "It failed before a trial had a result; its own output has the reason"
    return f"No process works on the run any more: it was interrupted, was killed or has failed. {how}"
