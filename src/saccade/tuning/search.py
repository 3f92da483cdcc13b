"""Run a search of `tune`: lock its folder, run its study, return its result."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saccade.deadline import Deadline
from saccade.errors import explained_file_errors
from saccade.events import Event, JobFailed, Listener, RunFinished, RunStarted, Warned
from saccade.executor import Executor
from saccade.scheduler.base import Scheduler
from saccade.searcher.base import Searcher
from saccade.study.event_log import EventLog
from saccade.study.function import MissingScoreError
from saccade.study.optuna_tracker import OptunaTracker
from saccade.study.run_folder import locked
from saccade.study.study import Study
from saccade.study.trial_files import LocalTrialFiles
from saccade.tuning.folder import EVENTS, JOURNAL, TRIALS, FunctionCheckpointKeeper, check_path, start_or_resume
from saccade.tuning.result import TuneResult


class TuningInterrupted(KeyboardInterrupt):
    """Ctrl-C during `tune`; the attribute `result` is the TuneResult so far."""

    def __init__(self, message: str, result: TuneResult) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True)
class Search:
    """The checked arguments of `tune`; see there. The executor has its trainable, and `path` is absolute."""

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
        """Run the search, without a path in a temporary folder that is removed together with the result."""
        if self.path is not None:
            space = self.searcher.space
            check_path(self.path)
            advice = "Then pass resume=True to continue."
            with (
                explained_file_errors(self.path, advice=advice),
                locked(self.path),
                EventLog(self.path / EVENTS, space) as log,
            ):
                is_resumed = start_or_resume(self.path, space, self.metric, self.mode, resume=self.resume)
                deadline.limit_s -= log.seconds_used()
                return self._search(self.path, deadline, log, is_resumed)
        folder = Path(tempfile.mkdtemp(prefix="saccade_tune_"))
        try:
            result = self._search(folder, deadline, None, False)
        except TuningInterrupted as interrupted:
            interrupted.result.remove_at_end(folder)
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        result.remove_at_end(folder)
        return result

    def _search(self, folder: Path, deadline: Deadline, log: EventLog | None, is_resumed: bool) -> TuneResult:
        from saccade.study.progress import ProgressDisplay  # slow to import

        sign = -1.0 if self.mode == "min" else 1.0
        with ProgressDisplay(self.verbosity, self.metric) as display, contextlib.ExitStack() as stack:
            listeners: list[Listener] = [display, *self.trackers]

            def notify(event: Event) -> None:
                if log is not None:
                    log(event)
                for listener in listeners:
                    listener(event)

            study = Study(
                self.executor,
                self.searcher,
                self.scheduler,
                num_trials=self.num_trials,
                deadline=deadline,
                trial_time_limit_s=self.trial_time_limit_s,
                max_score=None if self.target_score is None else sign * self.target_score,
                files=LocalTrialFiles(folder / TRIALS),
                log=log,
                listeners=listeners,
            )
            study.listeners += [FunctionCheckpointKeeper(study.trials), _MetricCheck(study)]
            display.recall(study.trials)
            notify(RunStarted(str(self.path or ""), self.num_trials, self.time_limit_s))
            if self.resume and not is_resumed:
                notify(Warned(f"{self.path} contains no search to resume; a new search starts"))
            if log is not None:
                tracker = OptunaTracker(folder / JOURNAL, study.trials, self.searcher.space)
                study.listeners.append(stack.enter_context(tracker))
            try:
                study.run()
            except KeyboardInterrupt:
                num = len(study.trials)
                text = f"The search was interrupted after it had started {num} {'trial' if num == 1 else 'trials'}."
                if self.path is None:
                    how = "This exception has their `result`."
                else:
                    path = str(self.path)
                    how = f"Resume it: tune(…, path={path!r}, resume=True). Load its result: TuneResult.load({path!r})."
                result = TuneResult.of(study.trials, self.metric, self.mode, self.path)
                raise TuningInterrupted(f"{text} {how}", result) from None
            best = study.best_trial
            score = None if best is None or best.best_report is None else best.best_report.score
            notify(RunFinished(None if best is None else best.number, score, deadline.elapsed_s()))
            return TuneResult.of(study.trials, self.metric, self.mode, self.path)


class _MetricCheck:
    """A listener that ends a search whose function does not report the metric."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def __call__(self, event: Event) -> None:
        name = f"{MissingScoreError.__name__}: "
        if isinstance(event, JobFailed) and event.reason.startswith(name) and self._study.best_trial is None:
            raise MissingScoreError(event.reason.removeprefix(name))
