"""The progress of a run on standard error: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from saccade.errors import count_of
from saccade.events import (
    DataReady,
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    NetworksScreened,
    Progressed,
    PseudoLabelled,
    RunFinished,
    RunPlanned,
    RunStarted,
    TrialCreated,
    Warned,
)
from saccade.study.trial import Trial


class ProgressDisplay:
    """A listener that shows events, on standard error by default; use it as a context manager.

    `verbosity` 0 is silent; 1 shows warnings, failures and the result; 2 shows trials as well; 3 shows every epoch.
    """

    def __init__(self, verbosity: int, metric: str, console: Console | None = None) -> None:
        self.verbosity, self.metric = verbosity, metric
        self.console = console or Console(stderr=True, soft_wrap=True)
        is_live = verbosity >= 2 and self.console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._live = Progress(*columns, console=self.console, transient=True) if is_live else None
        self._bars: dict[object, TaskID] = {}
        self._best: dict[int, EpochDone] = {}
        self._num_epochs: dict[int, int] = {}  # of each trial's configuration
        self._new: set[int] = set()  # trials whose first job has not started

    def __enter__(self) -> ProgressDisplay:  # noqa: PYI034  Self is newer than Python 3.10
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:  # noqa: C901  one case for each event
        """Show one event."""
        match event:
            case RunStarted():
                time = "no time limit" if event.time_limit_s is None else f"time limit {_seconds(event.time_limit_s)}"
                num = event.num_trials
                trials = "any number of trials" if num is None else count_of(num, "trial")
                where = f" in {escape(event.folder)}" if event.folder else ""
                self._print(2, f"[bold]saccade[/bold] run{where}  [dim]({time}, {trials})[/dim]")
            case RunPlanned():
                self._print(2, f"{event.problem}, metric {event.metric}, {event.device}, trials {event.executor}")
                self._print(2, f"[dim]networks: {escape(', '.join(event.networks))}[/dim]")
                self._print(2, event.advice)
            case NetworksScreened():
                kept = ", ".join(f"{name} {_number(score)}" for name, score in event.scores.items())
                text = f"kept {len(event.scores)} of {event.num_networks} networks by short probes: {kept}"
                text = text if event.scores else "no short probe was complete, so no network was dropped by its score"
                self._print(2, f"{escape(text)}  [dim]{_seconds(event.seconds)}[/dim]")
                for name, reason in event.left_out.items():
                    self._print(3, f"[dim]{escape(f'{name} was not probed: {reason}')}[/dim]")
            case Progressed():
                self._bar(event.what, event.what, event.done, event.total)
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
                self._num_epochs[event.trial] = event.config.get("epochs") or 0
                self._print(2, f"trial {event.trial}  [dim]{escape(_config(event.config))}[/dim]")
            case JobStarted():
                if event.trial not in self._new:
                    self._print(2, f"trial {event.trial}  [dim]continues[/dim]")
                self._new.discard(event.trial)
                self._bar(event.trial, f"trial {event.trial}", 0, self._num_epochs.get(event.trial, 0))
            case EpochDone():
                best = self._best.get(event.trial)
                if best is None or event.score > best.score:
                    self._best[event.trial] = event
                name = f"trial {event.trial}"
                self._bar(event.trial, name, event.epoch, self._num_epochs.get(event.trial) or event.epoch)
                epoch = _epoch(event.epoch)
                text = f"  {name}  {epoch}  {self._score(event)}  [dim]{_seconds(event.seconds)}[/dim]"
                self._print(3, text)
            case JobDone():
                self._end_bar(event.trial)
                if best := self._best.get(event.trial):
                    reason = event.reason or ("paused" if event.status == "paused" else "")
                    why = f"  [dim]{escape(reason)}[/dim]" if reason else ""
                    self._print(2, f"  trial {event.trial}  {self._score(best)} in {_epoch(best.epoch)}{why}")
            case JobFailed():
                self._end_bar(event.trial)
                self._print(1, f"trial {event.trial}  [red]failed:[/red] {escape(event.reason)}")
                self._print(3, escape(event.traceback))
            case RunFinished() if event.score is not None:
                best = self._best.get(event.best_trial or 0)
                score = self._score(best) if best else f"{self.metric} {_number(event.score)}"
                text = escape(event.result or f"trial {event.best_trial}, {score}")
                self._print(1, f"[bold]result: {text}[/bold]  [dim]{_seconds(event.seconds)} in all[/dim]")

    def recall(self, trials: Sequence[Trial]) -> None:
        """Add the trials of earlier sessions of the same run."""
        for trial in trials:
            self._num_epochs[trial.number] = trial.config.get("epochs") or 0
            if trial.best_report is not None:
                self._best[trial.number] = trial.best_report
        if self._best:
            best = max(self._best.values(), key=lambda report: report.score)
            num = count_of(len(trials), "trial")
            self._print(2, f"resuming after {num}, the best of which has {self._score(best)}")

    def _score(self, event: EpochDone) -> str:
        """Return the metric: where lower values are better, the score is its negative."""
        return f"{self.metric} {_number(event.metrics.get(self.metric, event.score))}"

    def _print(self, level: int, text: str) -> None:
        if self.verbosity >= level and text:
            self.console.print(text, highlight=False)

    def _bar(self, key: object, text: str, done: int, total: int) -> None:
        if self._live is None or not total:
            return
        if key not in self._bars:
            self._bars[key] = self._live.add_task(text, total=total)
        self._live.update(self._bars[key], completed=done, total=total)
        if done >= total:
            self._end_bar(key)

    def _end_bar(self, key: object) -> None:
        if self._live is not None and key in self._bars:
            self._live.remove_task(self._bars.pop(key))


def _config(config: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return "  ".join(f"{name}={shown(value)}" for name, value in config.items())


def _epoch(number: int) -> str:
    return f"epoch {number}" if number else "epoch 0 (linear probe)"


def _number(value: float) -> str:
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
