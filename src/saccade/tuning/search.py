"""One search of `tune`, its arguments checked: its folder, its listeners, its study, its end."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.deadline import Deadline
from saccade.events import Event, JobFailed, Listener, RunFinished, RunStarted, Warned
from saccade.executor import Executor
from saccade.scheduler.base import Scheduler
from saccade.searcher.base import Searcher
from saccade.study.event_log import EventLog
from saccade.study.function import MissingScoreError
from saccade.study.optuna_tracker import OptunaTracker
from saccade.study.run_folder import locked
from saccade.study.study import Study
from saccade.tuning.folder import EVENTS, JOURNAL, TRIALS, FunctionCheckpointKeeper, check_path, start_or_resume
from saccade.tuning.result import TuneResult

if TYPE_CHECKING:
    from saccade.study.progress import ProgressDisplay


class TuningInterrupted(KeyboardInterrupt):
    """Ctrl-C while `tune` was at work.

    Attributes
    ----------
    result : TuneResult
        What had been found by then.
    """

    def __init__(self, message: str, result: TuneResult) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True)
class Search:
    """What was asked of `tune`; see there.

    Attributes
    ----------
    executor : Executor
        Has its trainable.
    path : Path or None
        Absolute.
    """

    executor: Executor
    searcher: Searcher
    scheduler: Scheduler
    metric: str
    mode: str
    num_trials: int | None
    time_limit_s: float | None
    trial_time_limit_s: float | None
    target_score: float | None
    path: Path | None
    resume: bool
    verbosity: int
    trackers: Sequence[Listener] = ()

    def run(self, deadline: Deadline) -> TuneResult:
        """Search, in a folder that is removed with the result if none was named."""
        if self.path is not None:
            space = self.searcher.space
            check_path(self.path)
            with locked(self.path), EventLog(self.path / EVENTS, space) as log:
                is_resumed = start_or_resume(self.path, space, self.metric, self.mode, resume=self.resume)
                deadline.limit_s -= log.seconds_used()
                return self._run(self.path, deadline, log, is_resumed)
        folder = Path(tempfile.mkdtemp(prefix="saccade_tune_"))
        try:
            result = self._run(folder, deadline, None, False)
        except TuningInterrupted as interrupted:
            interrupted.result.remove_at_end(folder)
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        result.remove_at_end(folder)
        return result

    def _run(self, folder: Path, deadline: Deadline, log: EventLog | None, is_resumed: bool) -> TuneResult:
        from saccade.study.progress import ProgressDisplay  # slow to import

        with ProgressDisplay(self.verbosity, self.metric) as display:
            return self._search(folder, deadline, log, is_resumed, display)

    def _search(
        self, folder: Path, deadline: Deadline, log: EventLog | None, is_resumed: bool, display: ProgressDisplay
    ) -> TuneResult:
        study = Study(
            self.executor,
            self.searcher,
            self.scheduler,
            num_trials=self.num_trials,
            deadline=deadline,
            trial_time_limit_s=self.trial_time_limit_s,
            max_score=None if self.target_score is None else self._sign * self.target_score,
            folder=folder / TRIALS,
            log=log,
            listeners=[display, *self.trackers],
        )

        def tell(event: Event) -> None:
            if log is not None:
                log(event)
            listeners: list[Listener] = [display, *self.trackers]
            for listener in listeners:
                listener(event)

        study.listeners += [FunctionCheckpointKeeper(study.trials), _MetricCheck(study)]
        display.recall(study.trials)
        tell(RunStarted(str(self.path or ""), self.num_trials, self.time_limit_s))
        if self.resume and not is_resumed:
            tell(Warned(f"there is nothing to resume in {self.path}: a new search begins"))
        tracker = None if log is None else OptunaTracker(folder / JOURNAL, study.trials, self.searcher.space)
        try:
            with tracker or contextlib.nullcontext():
                study.listeners += [tracker] if tracker is not None else []
                study.run()
        except KeyboardInterrupt:
            raise self._interrupted(study) from None
        best = study.best_trial
        score = None if best is None or best.best_report is None else best.best_report.score
        tell(RunFinished(None if best is None else best.number, score, deadline.elapsed_s()))
        return self._result(study)

    @property
    def _sign(self) -> float:
        return -1.0 if self.mode == "min" else 1.0

    def _result(self, study: Study) -> TuneResult:
        return TuneResult.of(study.trials, self.metric, self.mode, self.path)

    def _interrupted(self, study: Study) -> TuningInterrupted:
        num = len(study.trials)
        begun = f"The search was interrupted after it had begun {num} {'trial' if num == 1 else 'trials'}."
        if self.path is None:
            return TuningInterrupted(f"{begun} What it found is the `result` of this exception.", self._result(study))
        path = str(self.path)
        how = f"tune(…, path={path!r}, resume=True) goes on with it; TuneResult.load({path!r}) has what it found."
        return TuningInterrupted(f"{begun} {how}", self._result(study))


class _MetricCheck:
    """Ends a search whose function does not report the metric, which no other configuration would change."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def __call__(self, event: Event) -> None:
        name = f"{MissingScoreError.__name__}: "
        if isinstance(event, JobFailed) and event.reason.startswith(name) and self._study.best_trial is None:
            raise MissingScoreError(event.reason.removeprefix(name))
