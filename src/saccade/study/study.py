"""The study: asks the searcher what to try and the scheduler what to run, and keeps the clock and the score."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.deadline import Deadline
from saccade.errors import ExhaustedSearchSpaceError
from saccade.events import (
    SURER_SCORE,
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    Listener,
    TrialStarted,
    Warned,
    WorkerJoined,
)
from saccade.space import canonical_key
from saccade.space.constants import copied
from saccade.study.budget import Budget, Reserve
from saccade.study.entries import Begun, BegunAgain, Ended, Entry, Reported, Started, moved, restore
from saccade.study.journal import Journal
from saccade.study.open_jobs import OpenJobs, SecondTry, has_checkpoint, has_readable_checkpoint
from saccade.study.standings import NUM_FAILURES, Standings, all_failed
from saccade.study.trial import Decision, Job, Status, Trial
from saccade.study.verdicts import TIME_LIMIT, verdict

if TYPE_CHECKING:
    from saccade.executor import Executor
    from saccade.scheduler.base import Scheduler
    from saccade.searcher.base import Searcher

__all__ = ["NUM_FAILURES", "NUM_RETRIES", "Study"]

GRACE_S, GRACE_PART = 3.0, 0.05
"""Seconds, or the part of the limit, for which a job may still run after the end of training; then it is cancelled."""

NUM_RETRIES = 1
"""How often a trial is tried again whose worker was lost."""


class Study:
    """One search: the only writer of its trials.

    With a journal that has entries already, the study goes on where the process that wrote them ended. Searcher and
    scheduler are told of all that was reported, in the order in which it was; trials that were running are trained
    first, from their last checkpoints on, and no epoch that was reported is trained again if there is one. A trial that
    the deadline ended is paused if it can be continued, so that a study with a later deadline goes on with it.

    Parameters
    ----------
    executor, searcher, scheduler
        Who runs the jobs, who proposes configurations, who decides which job is next.
    num_trials : int or None
        How many trials to begin at most, those of earlier processes included; None leaves it to the deadline and to the
        size of the space.
    deadline : Deadline or None
        When training must be over.
    reserve_s : float or callable
        Seconds before the deadline that training leaves alone, for what comes after it; or a function that returns
        them, from what has been measured by then.
    trial_time_limit_s : float or None
        Seconds of training that one trial may have, in all of its jobs.
    first_report_grace_s : float or None
        Seconds after the deadline at which jobs are cancelled while no trial has a score yet. None is the time that
        jobs have after the end of training when there is one: `GRACE_S`, or `GRACE_PART` of the limit if that is more.
    max_score : float or None
        A score that is good enough: the search ends when a trial reaches it; other trials stop at their next report.
    folder : Path or None
        Where trials keep their files, each in a numbered folder; None gives them none.
    journal : Journal or None
        Where to write all that happens to trials; its owner closes it.
    listeners : iterable of callables
        Called with every event, in this order.

    Attributes
    ----------
    is_exhausted : bool
        Whether the searcher had nothing left to propose.

    Raises
    ------
    JournalError
        When the journal cannot be read, or is being written by another process.

    Examples
    --------
    >>> from saccade.executor import InlineExecutor
    >>> from saccade.scheduler import FIFOScheduler
    >>> from saccade.searcher import GridSearcher
    >>> from saccade.space import Categorical
    >>> from saccade.study.function import FunctionTrainable
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
        reserve_s: Reserve = 0.0,
        trial_time_limit_s: float | None = None,
        first_report_grace_s: float | None = None,
        max_score: float | None = None,
        folder: Path | None = None,
        journal: Journal | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self.executor, self.searcher, self.scheduler = executor, searcher, scheduler
        self.num_trials: float = math.inf if num_trials is None else num_trials
        self.budget = Budget(deadline or Deadline(None), reserve_s, trial_time_limit_s)
        limit_s = self.budget.deadline.limit_s
        self._grace_s = max(GRACE_S, GRACE_PART * limit_s) if limit_s < math.inf else GRACE_S
        self._first_report_grace_s = self._grace_s if first_report_grace_s is None else first_report_grace_s
        self.max_score = math.inf if max_score is None else max_score
        self.folder, self.journal = folder, journal
        self.listeners = list(listeners)
        self.is_exhausted = False
        self._trials: list[Trial] = []
        self._standings = Standings(self._trials)
        self._good_enough: set[int] = set()
        self._open = OpenJobs()
        self._again: deque[SecondTry] = deque()  # they come before the scheduler's jobs
        self._has_begun = False
        self._earlier: set[Hashable] = set()  # configurations of earlier processes
        self._resumed: set[int] = set()  # trials that have not reported yet since an earlier process ended
        self._is_restored = journal is not None
        if journal is not None:
            self._restore(journal)

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials so far, by number."""
        return self._trials

    @property
    def seconds_left(self) -> float:
        """Seconds left for training; inf without a deadline."""
        return self.budget.seconds_left

    @property
    def num_workers(self) -> int:
        """How many trials are trained at once."""
        return self.executor.num_workers

    @property
    def best_trial(self) -> Trial | None:
        """The trial with the highest score that did not fail, the earliest among equals; None without one."""
        return self._standings.best

    def has_time_for(self, trial: Trial) -> bool:
        """Tell whether the trial could train one more epoch and report it before the deadline and its own limit."""
        return self.budget.has_time_for(trial)

    def run(self) -> None:
        """Search until the trials, the time or the space are used up, or the score is good enough.

        A search whose first trials all fail for one and the same reason is given up: the rest would too. A trial whose
        worker was lost is tried once more, from its last checkpoint.

        Raises
        ------
        SearchFailedError
            When trials were run and none of them has a score; it names the reasons.
        """
        self.scheduler.on_start(self)
        if self._is_restored:
            self._is_restored = False
            self._take_up_open_jobs()
        self._submit_jobs()
        self._run_jobs()
        while self._again:
            self._leave(self._again.popleft())
        if self._trials and self.best_trial is None:
            is_given_up = self._standings.is_hopeless and len(self._trials) < self.num_trials
            raise all_failed(self._trials, is_given_up=is_given_up)

    def _run_jobs(self) -> None:
        """Run jobs to their ends; when time is up, cancel those that hang or whose epoch takes too long.

        An executor that cannot cancel a job is waited for.
        """
        deadline = self.budget.deadline
        # If preparation took all the time, the first job still gets its grace.
        first_report_limit_s = max(deadline.limit_s, deadline.elapsed_s()) + self._first_report_grace_s
        while True:
            if self.best_trial is not None:
                timeout_s = self.seconds_left + self._grace_s
            else:
                timeout_s = first_report_limit_s - deadline.elapsed_s()
            if timeout_s <= 0:
                for number, _ in self._open:
                    self.executor.cancel(number, TIME_LIMIT)
                timeout_s = math.inf
            self.executor.run(self._handle, timeout_s)
            if self.executor.num_free >= self.executor.num_workers:
                return

    def new_trial(self) -> Trial | None:
        """Begin a trial with the searcher's next configuration; None when no more may be begun."""
        if len(self._trials) >= self.num_trials or self.is_exhausted:
            return None
        if self._standings.is_hopeless or not self.budget.has_time_for_a_trial():
            return None
        try:
            config = self._suggest()
        except ExhaustedSearchSpaceError as exhausted:
            self.is_exhausted = True
            if self.num_trials < math.inf:
                self._tell(Warned(f"{exhausted} The search ends after {_num_trials(len(self._trials))}."))
            return None
        number = len(self._trials)
        self._trials.append(Trial(number, config, self._folder_of(number)))
        # The entry comes first: a folder without one would be in the way of the trial that gets this number next.
        self._record(Begun(number, config, self._trials[-1].folder))
        _make_folder(self._trials[-1])
        return self._trials[-1]

    def _suggest(self) -> dict[str, Any]:
        """Return the searcher's next configuration that no earlier process has begun a trial with."""
        self.searcher.seconds_left = self.seconds_left
        config = self.searcher.suggest()
        while self._earlier and canonical_key(config) in self._earlier:
            # A searcher knows those that it observed; others were running, or failed without a report.
            self._earlier.remove(canonical_key(config))
            config = self.searcher.suggest()
        return config

    def _folder_of(self, number: int) -> str:
        return "" if self.folder is None else str(self.folder / f"{number:04d}")

    @property
    def _is_over(self) -> bool:
        """Whether no more jobs are to be done; the first one is always begun, so that there is a result."""
        has_first = self._has_begun or self.best_trial is not None
        return bool(self._good_enough) or (has_first and self.seconds_left <= 0)

    def _submit_jobs(self) -> None:
        while self.executor.num_free and not self._is_over:
            job = self._next_job()
            if job is None:
                return
            trial = self._trials[job.trial]
            seconds_left = self.budget.seconds_left_for(trial)
            trial.status, self._has_begun = Status.RUNNING, True
            self._record(Started(job.trial, job.until_epoch))
            self._open[job.trial].checkpoint = job.checkpoint
            self._open[job.trial].has_own_limit = seconds_left < self.seconds_left
            self._tell(TrialStarted(job.trial, job.config))
            job = replace(job, config=copied(job.config), seconds_left=seconds_left)
            self.executor.submit(job)

    def _next_job(self) -> Job | None:
        while self._again:
            again = self._again.popleft()
            if self.has_time_for(again.trial):
                return self._begin_again(again)
            self._leave(again)
        job = self.scheduler.next_job(self)
        if job is None:
            return None
        trial = self._trials[job.trial]
        has_time = trial.status is not Status.PAUSED or self.has_time_for(trial)  # whether or not the scheduler asked
        return job if has_time else None

    def _handle(self, event: Event) -> Decision:
        decision = Decision.CONTINUE
        match event:
            case EpochDone():
                decision = self._take_report(event)
                self._tell(event)
            case JobDone() | JobFailed():
                if not self._is_tried_again(event):
                    self._end(event)
                self._submit_jobs()
            case WorkerJoined():
                self._tell(event)
                self._submit_jobs()
            case _:
                self._tell(event)
        return decision

    def _take_report(self, report: EpochDone) -> Decision:
        trial = self._trials[report.trial]
        decision = self._learn(trial, report)
        if self._good_enough:
            decision = Decision.STOP
        self._resumed.discard(report.trial)
        self._record(Reported(report, decision))
        return decision

    def _learn(self, trial: Trial, report: EpochDone) -> Decision:
        """Add a report to its trial; what is new in it is told to the searcher and the scheduler."""
        is_news = trial.add(report)
        self.budget.learn(trial)
        self._standings.scored(trial)
        if trial.best_report is not None and trial.best_report.score >= self.max_score:
            self._good_enough.add(trial.number)
        if not is_news:
            return Decision.CONTINUE
        score = report.metrics.get(SURER_SCORE, report.score)
        self.searcher.observe(trial.config, report.epoch, score, trial.seconds)
        return self.scheduler.on_report(report)

    def _is_tried_again(self, event: JobDone | JobFailed) -> bool:
        """Give a trial that may not be at fault another chance, and tell whether it got one."""
        if not isinstance(event, JobFailed):
            return False
        trial, job = self._trials[event.trial], self._open[event.trial]
        if event.is_worker_lost:
            if job.end is not None or trial.num_retries >= NUM_RETRIES:
                return False
            trial.num_retries += 1
            again = SecondTry(trial, job.until_epoch, has_checkpoint, event)
            where = "the beginning" if again.last is None else f"epoch {again.last.epoch + 1}"
            self._tell(Warned(f"Trial {trial.number} is tried once more, from {where} on: {event.reason}"))
        elif job.checkpoint is not None and event.trial in self._resumed:
            again = SecondTry(trial, job.until_epoch, None, event)
            text = f"Trial {trial.number} is begun anew, as it could not be continued from {job.checkpoint}"
            self._tell(Warned(f"{text}: {event.reason}"))
            self._resumed.discard(event.trial)
        else:
            return False
        trial.status = Status.PAUSED
        self._again.append(again)
        return True

    def _begin_again(self, again: SecondTry) -> Job:
        """Put a trial back to its last checkpoint, or to its beginning, and return the job that trains it again."""
        trial, last = again.trial, again.last
        after_epoch = -1 if last is None else last.epoch
        trial.drop_after(after_epoch)
        self._record(BegunAgain(trial.number, after_epoch, trial.num_retries))
        return Job(
            trial.number, trial.config, trial.folder, again.until_epoch, None if last is None else last.checkpoint
        )

    def _leave(self, again: SecondTry) -> None:
        """Give up, for want of time, what was to be done again."""
        trial, failure = again.trial, again.failure
        if failure is not None:
            self._end(JobDone(trial.number, "paused", failure.reason) if trial.reports else failure)
        elif trial.reports:
            self._conclude(Ended(trial.number, Status.PAUSED))

    def _end(self, event: JobDone | JobFailed) -> None:
        """Set how a job has ended, and tell everyone."""
        trial = self._trials[event.trial]
        event = verdict(trial, self._open[event.trial], event, self.budget)
        if isinstance(event, JobFailed):
            self._conclude(Ended(event.trial, Status.FAILED, failure=event))
        else:
            score = None if trial.best_report is None else trial.best_report.score
            self._conclude(Ended(event.trial, Status(event.status), event.reason, best_score=score))
        self._tell(event)

    def _conclude(self, entry: Ended) -> None:
        """Bring a trial to its end, or to its pause."""
        restore(entry, self._trials)
        self._record(entry)
        self._learn_end(entry)

    def _learn_end(self, entry: Ended) -> None:
        trial = self._trials[entry.trial]
        has_failed = trial.status is Status.FAILED
        if has_failed:
            self._standings.failed(trial)
            self._good_enough.discard(trial.number)
        self.scheduler.on_job_end(trial)
        self.searcher.on_end(trial.config, has_failed=has_failed, is_complete=trial.status is Status.COMPLETED)

    def _record(self, entry: Entry) -> None:
        self._open.follow(entry)
        if self.journal is not None:
            self.journal.append(entry)

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def _restore(self, journal: Journal) -> None:
        """Follow what earlier processes wrote, and let searcher and scheduler learn from it."""
        entries = journal.entries()
        for entry in entries if self.folder is None else moved(entries, self._folder_of):
            self._open.follow(entry)
            if isinstance(entry, Reported):
                self._learn(self._trials[entry.trial], entry.report)
                continue
            restore(entry, self._trials)
            if isinstance(entry, Begun):
                self._earlier.add(canonical_key(entry.config))
            elif isinstance(entry, BegunAgain):
                self._good_enough.discard(entry.trial)
            elif isinstance(entry, Ended):
                self._learn_end(entry)

    def _take_up_open_jobs(self) -> None:
        """Put the jobs that were under way when an earlier process ended before all others."""
        for trial in self._trials:
            if trial.status is not Status.PAUSED or not trial.reports:
                continue
            self._resumed.add(trial.number)
            if not has_readable_checkpoint(trial.reports[-1]):
                # It is trained from the beginning if the scheduler wants it, and keeps its reports all the same.
                trial.reports[-1] = replace(trial.reports[-1], checkpoint=None)
        for number, job in self._open:
            trial = self._trials[number]
            _make_folder(trial, exist_ok=True)
            if job.end is not None:
                self._end(JobDone(number, job.end))
                continue
            again = SecondTry(trial, job.until_epoch, has_readable_checkpoint)
            if trial.reports and has_checkpoint(trial.reports[-1]) and again.last is not trial.reports[-1]:
                self._tell(Warned(f"The last checkpoint of trial {number} is gone: {trial.reports[-1].checkpoint}"))
            trial.status = Status.PAUSED
            self._resumed.add(number)
            self._again.append(again)


def _make_folder(trial: Trial, *, exist_ok: bool = False) -> None:
    if not trial.folder:
        return
    folder = Path(trial.folder)
    folder.mkdir(parents=True, exist_ok=exist_ok)
    text = json.dumps(trial.config, indent=2, default=repr)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def _num_trials(num: int) -> str:
    return f"{num} trial" if num == 1 else f"{num} trials"
