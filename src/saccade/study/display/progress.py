"""The progress of a run: lines on standard error, and under them a live display in a terminal or a notebook."""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from saccade.errors import count_of
from saccade.events import (
    DataReady,
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    NetworksScreened,
    PseudoLabelled,
    RunFinished,
    RunPlanned,
    RunStarted,
    TrialCreated,
    Warned,
    WorkerJoined,
    WorkerLost,
)
from saccade.study.display.frame import frame, number
from saccade.study.display.memory import memory_of
from saccade.study.display.screens import NotebookScreen, Screen, TerminalScreen
from saccade.study.display.state import RunState, config_text
from saccade.study.trial import Trial

REFRESH_S = 0.5
MEMORY_DRAWS = 4  # the memory is measured each time that the display was drawn so often


class ProgressDisplay:
    """A listener that shows events, on standard error by default; use it as a context manager.

    `verbosity` 0 is silent; 1 shows warnings, failures and the result; 2 shows trials as well; 3 shows every epoch.
    From 2 a terminal or a notebook has a live display under these lines, until the end of the context.
    """

    def __init__(
        self,
        verbosity: int,
        metric: str,
        console: Console | None = None,
        state: RunState | None = None,
        pid: int | None = 0,
    ) -> None:
        self.verbosity = verbosity
        self.console = console or make_console()
        self.state = state or RunState(metric)
        self._screen: Screen | None = None
        if verbosity >= 2 and self.console.is_jupyter:
            self._screen = NotebookScreen()
        elif verbosity >= 2 and self.console.is_terminal and self.console.is_interactive:
            can_draw = self.console.encoding.startswith("utf") and not self.console.legacy_windows
            self._screen = TerminalScreen(self.console) if can_draw else None
        self.pid = pid  # of the process whose memory is shown; 0 is this one
        self._lock = threading.Lock()  # of the state
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._new: set[int] = set()  # trials whose first job has not started

    def __enter__(self) -> ProgressDisplay:  # noqa: PYI034  Self is newer than Python 3.10
        if self._screen is not None:
            # A notebook knows by the context to which cell the output belongs.
            run = contextvars.copy_context().run
            self._thread = threading.Thread(target=run, args=(self._refresh_repeatedly,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        if self._thread is not None and self._screen is not None:
            try:
                self._thread.join()
            finally:  # a second Ctrl-C must not leave the cursor hidden
                with contextlib.suppress(OSError):  # the terminal was closed
                    self._screen.close()

    def __call__(self, event: Event, at_s: float | None = None) -> None:  # noqa: C901  one case for each event
        """Show one event, which happened at `at_s` of the state's clock; None is now."""
        self.apply(event, at_s)
        trials = self.state.record.trials
        match event:
            case RunStarted():
                time = "no time limit" if event.time_limit_s is None else f"time limit {_seconds(event.time_limit_s)}"
                num = event.num_trials
                how_many = "any number of trials" if num is None else count_of(num, "trial")
                where = f" in {escape(event.folder)}" if event.folder else ""
                self._print(2, f"[bold]saccade[/bold] run{where}  [dim]({time}, {how_many})[/dim]")
            case RunPlanned():
                self._print(2, f"{event.problem}, metric {event.metric}, {event.device}, trials {event.executor}")
                self._print(2, f"[dim]networks: {escape(', '.join(event.networks))}[/dim]")
                self._print(2, event.advice)
            case NetworksScreened():
                kept = ", ".join(f"{name} {number(score)}" for name, score in event.scores.items())
                text = f"kept {len(event.scores)} of {event.num_networks} networks by short probes: {kept}"
                text = text if event.scores else "no short probe was complete, so no network was dropped by its score"
                self._print(2, f"{escape(text)}  [dim]{_seconds(event.seconds)}[/dim]")
                for name, reason in event.left_out.items():
                    self._print(3, f"[dim]{escape(f'{name} was not probed: {reason}')}[/dim]")
            case DataReady():
                classes = f", {event.num_classes} classes" if event.num_classes else ""
                num_images = f"{event.num_train} training images, {event.num_val} validation images{classes}"
                self._print(2, f"{num_images}  [dim]decoded in {_seconds(event.seconds)}[/dim]")
            case PseudoLabelled():
                verb = "train with propagated labels" if event.are_used else "are not used, as they do not help"
                losses = f"out-of-fold log-loss {event.loss_with:.3f} with them, {event.loss:.3f} without"
                self._print(1, f"{event.num_images} unlabeled images {verb}: {losses} (± {event.error:.3f})")
            case Warned():
                self._print(1, f"[yellow]warning:[/yellow] {escape(event.shown())}")
            case TrialCreated():
                self._new.add(event.trial)
                self._print(2, f"trial {event.trial}  [dim]{escape(config_text(event.config))}[/dim]")
            case JobStarted():
                if event.trial not in self._new:
                    self._print(2, f"trial {event.trial}  [dim]continues{self._where(event.trial)}[/dim]")
                self._new.discard(event.trial)
            case EpochDone():
                took = f"[dim]{_seconds(event.seconds)}{self._where(event.trial)}[/dim]"
                text = f"{_epoch(event.epoch)}  {self._score(event)}  {took}"
                self._print(3, f"  trial {event.trial}  {text}")
            case JobDone():
                if best := trials[event.trial].best_report:
                    reason = event.reason or ("paused" if event.status == "paused" else "")
                    why = f"  [dim]{escape(reason)}[/dim]" if reason else ""
                    text = f"{self._score(best)} in {_epoch(best.epoch)}{self._where(event.trial)}{why}"
                    self._print(2, f"  trial {event.trial}  {text}")
            case WorkerJoined() if self.state.nodes[event.node] == 1:
                self._print(2, f"node {escape(event.node)} joined  [dim]{self._num_workers()}[/dim]")
            case WorkerLost() if event.node and event.node not in self.state.nodes:
                self._print(1, f"[yellow]node {escape(event.node)} was lost[/yellow]  [dim]{self._num_workers()}[/dim]")
            case JobFailed():
                self._print(1, f"trial {event.trial}  [red]failed:[/red] {escape(event.reason)}")
                self._print(3, escape(event.traceback))
            case RunFinished() if event.score is not None:
                best = next((each.best_report for each in trials if each.number == event.best_trial), None)
                score = self._score(best) if best else f"{self.state.metric} {number(event.score)}"
                text = escape(event.result or f"trial {event.best_trial}, {score}")
                self._print(1, f"[bold]result: {text}[/bold]  [dim]{_seconds(event.seconds)} in all[/dim]")

    @property
    def is_live(self) -> bool:
        """Whether there is a live display."""
        return self._screen is not None

    def note(self, text: str) -> None:
        """Show a line, unless the display is silent."""
        self._print(1, escape(text))

    def print_end(self) -> None:
        """Print the last frame of the live display, without a run that has not started."""
        if self._screen is not None:
            for line in frame(self.state, self._screen.width, has_colours=self._screen.has_colours):
                self.console.print(line)

    def apply(self, event: Event, at_s: float | None = None) -> None:
        """Apply an event to the state only, which happened at `at_s` of its clock; None is now."""
        with self._lock:
            self.state(event, at_s)

    def recall(self, trials: Sequence[Trial]) -> None:
        """Add the trials of earlier sessions of the same run."""
        with self._lock:
            self.state.recall(trials)
        if (best := self.state.record.best_trial) is not None and best.best_report is not None:
            num = count_of(len(trials), "trial")
            self._print(2, f"resuming after {num}, the best of which has {self._score(best.best_report)}")

    def _refresh_repeatedly(self) -> None:
        """Draw the live display while the run works, in a thread of its own."""
        assert self._screen is not None
        num_draws, memory = 0, None
        while not self._is_over.wait(REFRESH_S):
            if num_draws % MEMORY_DRAWS == 0:
                memory = None if self.pid is None else memory_of(self.pid or os.getpid())
            num_draws += 1
            with self._lock:
                lines = frame(self.state, self._screen.width, memory, has_colours=self._screen.has_colours)
            try:
                self._screen.draw(lines)
            except OSError:  # the terminal was closed, which does not end a run
                return

    def _where(self, trial: int) -> str:
        return escape(self.state.where(trial))

    def _num_workers(self) -> str:
        return f"{count_of(self.state.nodes.total(), 'worker')} now"

    def _score(self, report: EpochDone) -> str:
        return f"{self.state.metric} {number(self.state.value(report))}"

    def _print(self, level: int, text: str) -> None:
        if self.verbosity >= level and text:
            if self._screen is None:
                self.console.print(text, highlight=False)
            else:
                self._screen.print(text)


def make_console(*, stderr: bool = True) -> Console:
    """Return the console of standard error or output, which is interactive only on a terminal of a person.

    Log files of continuous integration may have colours, as by FORCE_COLOR, but nothing in them is erased again.
    """
    stream = sys.stderr if stderr else sys.stdout
    is_terminal = stream is not None and stream.isatty() and not os.environ.get("CI")
    return Console(stderr=stderr, soft_wrap=True, force_interactive=None if is_terminal else False)


def _epoch(number: int) -> str:
    return f"epoch {number}" if number else "epoch 0 (linear probe)"


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
