"""What a search of `tune` says while it works: plain lines on standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from saccade.events import (
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    RunFinished,
    RunStarted,
    TrialCreated,
    Warned,
)
from saccade.study.trial import Trial


class TuneDisplay:
    """Tells a person what happens.

    Parameters
    ----------
    verbosity : int
        0 is silent; 1 shows warnings, failures and the result; 2 shows trials as well; 3 shows every epoch.
    metric : str
        What is tuned for.
    """

    def __init__(self, verbosity: int, metric: str) -> None:
        self.verbosity, self.metric = verbosity, metric
        self._best: dict[int, EpochDone] = {}
        self._new: set[int] = set()  # trials whose first job has not started

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case RunStarted():
                self._say(2, f"tuning {self.metric} ({_limits(event)}){f' in {event.folder}' if event.folder else ''}")
            case Warned():
                self._say(1, f"warning: {event.text}")
            case TrialCreated():
                self._new.add(event.trial)
                what = "  ".join(f"{name}={_shown(value)}" for name, value in event.config.items())
                self._say(2, f"trial {event.trial}  {what}")
            case JobStarted():
                if event.trial not in self._new:
                    self._say(2, f"trial {event.trial}  continues")
                self._new.discard(event.trial)
            case EpochDone():
                self._epoch(event)
            case JobDone():
                reason = f" ({event.reason})" if event.reason and event.status not in event.reason else ""
                self._say(2, f"trial {event.trial}  {event.status}{reason}: {self._best_text(event.trial)}")
            case JobFailed():
                self._say(1, f"trial {event.trial}  failed: {event.reason}")
                self._say(3, event.traceback)
            case RunFinished(best_trial=int(number)):
                best = f"trial {number}, {self._best_text(number)}"
                self._say(1, f"best: {best} ({event.seconds:.1f} s in all)")

    def resume(self, trials: Sequence[Trial]) -> None:
        """Take note of the trials of earlier processes."""
        self._best = {trial.number: trial.best_report for trial in trials if trial.best_report is not None}
        if trials:
            self._say(2, f"goes on after {len(trials)} {'trial' if len(trials) == 1 else 'trials'}")

    def _epoch(self, event: EpochDone) -> None:
        best = self._best.get(event.trial)
        if best is None or event.score > best.score:
            self._best[event.trial] = event
        self._say(3, f"trial {event.trial}  epoch {event.epoch}: {self._figure(event)} ({event.seconds:.1f} s)")

    def _best_text(self, trial: int) -> str:
        best = self._best.get(trial)
        return "" if best is None else f"{self._figure(best)} in epoch {best.epoch}"

    def _figure(self, report: EpochDone) -> str:
        """Return the metric in its own sense: where less is better, the score is its negative."""
        return f"{self.metric} {report.metrics.get(self.metric, report.score):.6g}"

    def _say(self, level: int, text: str) -> None:
        if self.verbosity >= level and text:
            print(text, file=sys.stderr, flush=True)  # noqa: T201 (what it is for)


def _limits(event: RunStarted) -> str:
    time = "no time limit" if event.time_limit_s is None else f"{event.time_limit_s:g} s"
    num = event.num_trials
    return time if num is None else f"{time}, {num} {'trial' if num == 1 else 'trials'}"


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
