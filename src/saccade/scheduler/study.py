"""The study: asks the searcher what to try and the scheduler what to run, and keeps the clock and the score."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.deadline import Deadline
from saccade.errors import ExhaustedSearchSpaceError, SearchFailedError
from saccade.events import EpochDone, Event, JobDone, JobFailed, Listener, TrialStarted, Warned
from saccade.executor import Executor
from saccade.scheduler.base import Scheduler
from saccade.searcher import Searcher
from saccade.space.constants import copied
from saccade.trial import Decision, Status, Trial

NUM_FAILURES = 10
"""When this many trials have failed, all that there were and all for the same reason, no more are begun."""


class Study:
    """One search: the only writer of its trials.

    Parameters
    ----------
    executor, searcher, scheduler
        Who runs the jobs, who proposes configurations, who decides which job is next.
    num_trials : int or None
        How many trials to begin at most; None leaves it to the deadline and to the size of the space.
    deadline : Deadline or None
        When training must be over.
    reserve_s : float
        Seconds before the deadline that training leaves alone, for what comes after it.
    max_score : float or None
        A score that is good enough: the search ends when a trial reaches it; other trials stop at their next report.
    folder : Path or None
        Where trials keep their files, each in a numbered folder; None gives them none.
    listeners : iterable of callables
        Called with every event, in this order.

    Attributes
    ----------
    is_exhausted : bool
        Whether the searcher had nothing left to propose.

    Examples
    --------
    >>> from saccade.executor import InlineExecutor
    >>> from saccade.scheduler import FIFOScheduler
    >>> from saccade.searcher import GridSearcher
    >>> from saccade.space import Categorical
    >>> from saccade.trial import FunctionTrainable
    >>> trainable = FunctionTrainable(lambda config, report: report(epoch=1, score=config["x"]))
    >>> study = Study(InlineExecutor(trainable), GridSearcher({"x": Categorical(1, 3, 2)}), FIFOScheduler())
    >>> study.run()
    >>> study.best_trial.config
    {'x': 3}
    """

    def __init__(
        self,
        executor: Executor,
        searcher: Searcher,
        scheduler: Scheduler,
        *,
        num_trials: int | None = None,
        deadline: Deadline | None = None,
        reserve_s: float = 0.0,
        max_score: float | None = None,
        folder: Path | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self.executor, self.searcher, self.scheduler = executor, searcher, scheduler
        self.num_trials = math.inf if num_trials is None else num_trials
        self.deadline = deadline or Deadline(None)
        self.reserve_s = reserve_s
        self.max_score = math.inf if max_score is None else max_score
        self.folder = folder
        self.listeners = list(listeners)
        self.is_exhausted = False
        self._trials: list[Trial] = []
        self._good_enough: set[int] = set()

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials so far, by number."""
        return self._trials

    @property
    def seconds_left(self) -> float:
        """Seconds left for training."""
        return self.deadline.seconds_left() - self.reserve_s

    @property
    def best_trial(self) -> Trial | None:
        """The trial with the highest score that did not fail, the earliest among equals; None without one."""
        scored = [trial for trial in self._trials if trial.reports and trial.status is not Status.FAILED]
        return max(scored, key=_best_score, default=None)

    def run(self) -> None:
        """Search until the trials, the time or the space are used up, or the score is good enough.

        A search whose first trials all fail for one and the same reason is given up: the rest would too.

        Raises
        ------
        SearchFailedError
            When trials were run and every one of them failed; it names the reasons.
        """
        self._submit_jobs()
        self.executor.run(self._handle)
        if self._trials and all(trial.status is Status.FAILED for trial in self._trials):
            raise _all_failed(self._trials, is_given_up=self._is_hopeless and len(self._trials) < self.num_trials)

    def new_trial(self) -> Trial | None:
        """Begin a trial with the searcher's next configuration; None when no more may be begun."""
        if len(self._trials) >= self.num_trials or self.is_exhausted:
            return None
        if self._is_hopeless or not self._is_time_for_a_trial():
            return None
        try:
            config = self.searcher.suggest()
        except ExhaustedSearchSpaceError as exhausted:
            self.is_exhausted = True
            if self.num_trials < math.inf:
                self._tell(Warned(f"{exhausted} The search ends after {_num_trials(len(self._trials))}."))
            return None
        number = len(self._trials)
        self._trials.append(Trial(number, config, self._make_folder(number, config)))
        return self._trials[-1]

    def _make_folder(self, number: int, config: dict[str, Any]) -> str:
        if self.folder is None:
            return ""
        folder = self.folder / f"{number:04d}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2, default=repr) + "\n", encoding="utf-8")
        return str(folder)

    @property
    def _is_over(self) -> bool:
        """Whether no more jobs are to be done; the first one is always begun, so that there is a result."""
        return bool(self._good_enough) or (bool(self._trials) and self.seconds_left <= 0)

    @property
    def _is_hopeless(self) -> bool:
        first = self._trials[0].failure if len(self._trials) >= NUM_FAILURES else None
        return first is not None and all(
            trial.failure is not None and trial.failure.reason == first.reason for trial in self._trials
        )

    def _is_time_for_a_trial(self) -> bool:
        """Tell whether a new trial could report before the deadline, as far as those before it tell."""
        first_epochs_s = (trial.reports[0].seconds for trial in self._trials if trial.reports)
        return self.seconds_left > min(first_epochs_s, default=-math.inf)

    def _submit_jobs(self) -> None:
        while self.executor.num_free and not self._is_over:
            job = self.scheduler.next_job(self)
            if job is None:
                return
            self._trials[job.trial].status = Status.RUNNING
            self._tell(TrialStarted(job.trial, job.config))
            self.executor.submit(replace(job, config=copied(job.config), seconds_left=self.seconds_left))

    def _handle(self, event: Event) -> Decision:
        decision = Decision.CONTINUE
        match event:
            case EpochDone():
                trial = self._trials[event.trial]
                trial.reports.append(event)
                self.searcher.observe(trial.config, event.epoch, event.score, trial.seconds)
                decision = self.scheduler.on_report(event)
                if event.score >= self.max_score:
                    self._good_enough.add(event.trial)
                if self._good_enough:
                    decision = Decision.STOP
            case JobDone():
                trial = self._trials[event.trial]
                trial.status, trial.note = Status(event.status), event.reason
                if not trial.reports:
                    event = JobFailed(event.trial, "it ended without a single report")
                    trial.status, trial.failure = Status.FAILED, event
            case JobFailed():
                trial = self._trials[event.trial]
                trial.status, trial.failure = Status.FAILED, event
                self._good_enough.discard(event.trial)
        self._tell(event)
        if isinstance(event, JobDone | JobFailed):
            self._submit_jobs()
        return decision

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


def _best_score(trial: Trial) -> float:
    return trial.best_report.score if trial.best_report else -math.inf


def _num_trials(num: int) -> str:
    return f"{num} trial" if num == 1 else f"{num} trials"


def _all_failed(trials: Sequence[Trial], is_given_up: bool) -> SearchFailedError:
    failures = [trial.failure for trial in trials if trial.failure is not None]
    reasons = list(dict.fromkeys(failure.reason for failure in failures))
    num = "The only trial" if len(failures) == 1 else f"All {len(failures)} trials"
    if is_given_up:
        num = f"The search was given up after {len(failures)} trials, which all"
    if len(reasons) == 1:
        message = f"{num} failed: {reasons[0]}"
    else:
        message = f"{num} failed, for {len(reasons)} reasons:\n" + "\n".join(f"  - {reason}" for reason in reasons)
    first = failures[0].traceback.strip()
    return SearchFailedError(f"{message}\n\nThe first one's traceback:\n{first}" if first else message)
