"""The study: connects a searcher, a scheduler and an executor, and owns the trials."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from saccade.deadline import Deadline
from saccade.errors import ExhaustedSearchSpaceError, SearchFailedError, count_of
from saccade.events import (
    CV_SCORE,
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    Listener,
    TrialCreated,
    TrialRestarted,
    Warned,
    WorkerJoined,
)
from saccade.space.base import copied
from saccade.study.event_log import EventLog
from saccade.study.life import (
    NO_REPORT,
    Action,
    Budget,
    Cause,
    Fact,
    Reserve,
    StudyRecord,
    all_failed,
    cause_of,
    find_end,
)
from saccade.study.trial import Decision, Job, Status, Trial
from saccade.study.trial_files import CONFIG, TrialFiles, parse_name

if TYPE_CHECKING:
    from saccade.executor import Executor
    from saccade.scheduler.base import Scheduler
    from saccade.searcher.base import Searcher

GRACE_S, GRACE_PART = 2.0, 0.02
"""Seconds, or the part of the limit, for which a job may still run after its time is up; then it is cancelled."""


@dataclass
class Retry:
    """A job that is to be done again."""

    trial: Trial
    until_epoch: int | None
    after: EpochDone | None  # the report to continue after; None trains the trial from its beginning
    failure: JobFailed | None = None  # None if the process of the study was killed
    num_retries: int = 0  # with this one, as in `TrialRestarted`
    num_lost_nodes: int = 0


class Study:
    """One search, from the first configuration to the last report.

    If the event log has events, the study resumes: searcher and scheduler receive all earlier reports in their order,
    and trials that were running are trained first, from their last checkpoints. `saccade.study.life` has the table of
    what happens to trials.
    """

    def __init__(
        self,
        executor: Executor,
        searcher: Searcher,
        scheduler: Scheduler,
        *,
        num_trials: int | None = None,  # the maximum, with those of earlier processes; None means no limit
        deadline: Deadline | None = None,  # when training must have ended
        reserve_s: Reserve = 0.0,  # seconds before the deadline that are not used for training, or a function of none
        trial_time_limit_s: float | None = None,  # seconds of training for one trial, over all of its jobs
        # Seconds after the deadline at which jobs are cancelled while no trial has a score yet, unless their worker is
        # stalled. By default, and for stalled workers, it is the time that jobs have after the end of training
        # otherwise: `GRACE_S`, or `GRACE_PART` of the limit if that is more.
        first_report_grace_s: float | None = None,
        max_score: float | None = None,  # the search ends when a trial reaches it; others stop at their next report
        files: TrialFiles | None = None,  # where the files of the trials are; None if they have none
        log: EventLog | None = None,  # where events are recorded, and restored from; the caller closes it
        listeners: Iterable[Listener] = (),  # called with every event, in this order, after it is logged
    ) -> None:
        self.executor, self.searcher, self.scheduler = executor, searcher, scheduler
        self.num_trials: float = math.inf if num_trials is None else num_trials
        self.budget = Budget(deadline or Deadline(None), reserve_s, trial_time_limit_s)
        limit_s = self.budget.deadline.limit_s
        self._grace_s = max(GRACE_S, GRACE_PART * limit_s) if limit_s < math.inf else GRACE_S
        self._first_report_grace_s = self._grace_s if first_report_grace_s is None else first_report_grace_s
        self.max_score = math.inf if max_score is None else max_score
        self.log, self.listeners = log, list(listeners)
        self.is_exhausted = False  # whether the searcher has no more configurations
        self._record = StudyRecord(files)
        self._good_enough: set[int] = set()  # trials that have reached max_score
        self._retries: deque[Retry] = deque()  # before the scheduler's jobs
        self._has_started = False
        self._wants_worker = True  # whether there may be jobs for one more
        self._unreported: set[int] = set()  # trials of earlier processes that have not reported in this one
        for event in log or ():
            self._apply(event)
        self._has_earlier_trials = bool(self.trials)

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials so far, by number."""
        return self._record.trials

    @property
    def seconds_left(self) -> float:
        """Seconds left for training; inf without a deadline."""
        return self.budget.seconds_left

    @property
    def num_workers(self) -> int:
        """Number of trials that are trained at once."""
        return self.executor.num_workers

    @property
    def reference_speed(self) -> float | None:
        """Speed of the node in whose seconds the costs of trials are counted; None if no speed was measured."""
        return self._record.reference_speed

    @property
    def best_trial(self) -> Trial | None:
        """The trial with the highest score that did not fail, the earliest among equals; None without one."""
        return self._record.best_trial

    def has_time_for(self, trial: Trial) -> bool:
        """Return whether the trial can report one more epoch before the deadline and its own time limit."""
        return self.budget.has_time_for(trial)

    def run(self) -> None:
        """Search until the trials, the time or the space are used up, or until a score is good enough.

        If no trial has a score at the end, a SearchFailedError has the reasons. The search also ends if its first
        `NUM_FAILURES` trials all fail for the same reason.
        """
        self.scheduler.on_start(self)
        if self._has_earlier_trials:
            self._has_earlier_trials = False
            self._resume_open_jobs()
        self._submit_jobs()
        # If preparation took all the time, the first job still gets its grace.
        deadline = self.budget.deadline
        self._first_report_limit_s = max(deadline.limit_s, deadline.elapsed_s()) + self._first_report_grace_s
        self.executor.run_within_limits(self._handle, self._seconds_until_cancelled)
        while self._wants_worker and not self.executor.num_workers and self.seconds_left > 0:
            self.executor.run_within_limits(self._handle, self._seconds_until_cancelled)
        if not self.trials and not self.executor.num_workers:
            raise SearchFailedError(f"No worker started {self.executor.describe()} in the time limit; increase it.")
        while self._retries:
            self._drop_retry(self._retries.popleft())
        if self.trials and self.best_trial is None:
            is_given_up = self._record.is_hopeless and len(self.trials) < self.num_trials
            raise all_failed(self.trials, is_given_up=is_given_up)

    def _seconds_until_cancelled(self) -> dict[int, float]:
        """Return the seconds after which each open job is cancelled, because it hangs or its epoch takes too long."""
        search_s = usual_s = self.seconds_left + self._grace_s
        if self.best_trial is None:
            search_s = self._first_report_limit_s - self.budget.deadline.elapsed_s()
        limit_s, left_s = self.budget.trial_time_limit_s, {}
        for number, job in self._record.jobs.items():
            # Before its first report, a trial may take twice its limit, so that there is a result.
            grace_s = max(GRACE_S, GRACE_PART * limit_s if self.trials[number].reports else limit_s)
            job_s = usual_s if self.executor.is_stalled(number) else search_s
            left_s[number] = min(job_s, job.own_deadline.seconds_left() + grace_s)
        return left_s

    def new_trial(self) -> Trial | None:
        """Create a trial with the searcher's next configuration; None if there may be no more trials."""
        if len(self.trials) >= self.num_trials or self.is_exhausted:
            return None
        if self._record.is_hopeless or not self.budget.has_time_for_a_trial():
            return None
        try:
            self.searcher.seconds_left = self.seconds_left
            config = self.searcher.suggest()
        except ExhaustedSearchSpaceError as exhausted:
            self.is_exhausted = True
            if self.num_trials < math.inf:
                num = count_of(len(self.trials), "trial")
                self._happened(Warned(f"{exhausted} The search ends after {num}."))
            return None
        created = TrialCreated(len(self.trials), config)
        self._apply(created)
        self._write(created)
        if (files := self.trials[-1].files) is not None:
            for kind, epoch in files.list(created.trial):  # of a trial that a damaged log has lost
                files.delete(created.trial, kind, epoch)
        _write_config(self.trials[-1])
        self._tell(created)
        return self.trials[-1]

    def _submit_jobs(self) -> None:
        self._wants_worker = False
        while self.executor.num_free and not self._good_enough:
            # The first job is started even without time, so that there is a result.
            if self.seconds_left <= 0 and (self._has_started or self.best_trial is not None):
                return
            job = self._next_job()
            if job is None:
                return
            self._has_started = True
            seconds_left = self.budget.seconds_left_for(self.trials[job.trial])
            started = JobStarted(job.trial, job.until_epoch, self.executor.next_node)
            self._apply(started)
            self._write(started)
            open_job = self._record.jobs[job.trial]
            open_job.checkpoint, open_job.has_own_limit = job.checkpoint, seconds_left < self.seconds_left
            self.budget.submitted(self.trials[job.trial])
            own_s = self.budget.trial_time_limit_s - self.trials[job.trial].seconds
            open_job.own_deadline = Deadline(own_s)
            if (files := self.trials[job.trial].files) is not None:
                files.clean(job.trial)
            self.executor.submit(replace(job, config=copied(job.config), seconds_left=seconds_left, files=files))
            self._tell(started)  # while the worker trains
        self._wants_worker = not self._good_enough

    def _next_job(self) -> Job | None:
        while self._retries:
            retry = self._retries.popleft()
            trial, after = retry.trial, retry.after
            if not self.has_time_for(trial):
                self._drop_retry(retry)
                continue
            after_epoch = -1 if after is None else after.epoch
            self._happened(TrialRestarted(trial.number, after_epoch, retry.num_retries, retry.num_lost_nodes))
            checkpoint = None if after is None else after.checkpoint
            return Job(trial.number, trial.config, retry.until_epoch, checkpoint)
        job = self.scheduler.next_job(self)
        if job is None:
            return None
        trial = self.trials[job.trial]
        # Not every scheduler checks the time that a paused trial needs.
        return None if trial.status is Status.PAUSED and not self.has_time_for(trial) else job

    def _handle(self, event: Event) -> Decision:
        """Handle an event of the executor; return the decision for the trial."""
        match event:
            case EpochDone():
                decision = self._apply(event)
                if self._good_enough:
                    decision = Decision.STOP
                self._unreported.discard(event.trial)
                decided = replace(event, decision=decision)
                self._record.jobs[event.trial].last = decided
                self._write(decided)
                self._tell(decided)
                return decision
            case JobDone() | JobFailed():
                self._end_job(self.trials[event.trial], cause_of(event), event)
                self._submit_jobs()
            case WorkerJoined():
                self._happened(event)
                self._submit_jobs()
            case _:
                self._happened(event)
        return Decision.CONTINUE

    def _end_job(self, trial: Trial, cause: Cause, event: JobDone | JobFailed | None = None) -> None:
        """Do what `saccade.study.life.ENDS` has for the end of a job; `event` is what its worker has sent."""
        job = self._record.jobs[trial.number]
        facts = self._record.facts(trial)
        if trial.reports and not self.budget.has_own_time(trial):
            facts.add(Fact.OWN_TIME_SPENT)
        if job.checkpoint is not None and trial.number in self._unreported:
            facts.add(Fact.UNTRIED_CHECKPOINT)
        end = find_end(cause, facts)
        failure = event if isinstance(event, JobFailed) else None
        reason = "" if event is None else event.reason
        if failure is not None and failure.is_disk_full:
            # Not logged: the job stays open for a process that resumes the run, which may have more space.
            self._apply(failure)
            self._tell(failure)
        elif end.action is Action.END and end.status is Status.FAILED:
            text = f"{NO_REPORT}: {reason}" if reason else NO_REPORT
            self._happened(failure or JobFailed(trial.number, text))
        elif end.action is Action.END:
            self._happened(JobDone(trial.number, end.status.value, reason if end.reason is None else end.reason))
        elif end.action is Action.RETRY:
            # Files of an earlier process may be gone by now.
            saved = (report for report in reversed(trial.reports) if report.checkpoint is not None)
            may_be_gone = cause is Cause.PROCESS_KILLED
            after = next((each for each in saved if not may_be_gone or _has_readable_checkpoint(trial, each)), None)
            trial.status = end.status
            if cause is Cause.PROCESS_KILLED:
                self._unreported.add(trial.number)
                last = trial.reports[-1] if trial.reports else None
                if last is not None and last.checkpoint is not None and after is not last:
                    self._happened(Warned(f"Checkpoint {last.checkpoint} of trial {trial.number} is missing"))
            else:
                where = "the beginning" if after is None else f"epoch {after.epoch + 1}"
                self._happened(Warned(f"Trial {trial.number} is retried from {where}: {reason}"))
            before = (0, 0) if job.has_new_epoch else (trial.num_retries, trial.num_lost_nodes)
            num_retries = before[0] + (cause is Cause.WORKER_LOST)
            num_lost_nodes = before[1] + (cause is Cause.NODE_LOST)
            self._retries.append(Retry(trial, job.until_epoch, after, failure, num_retries, num_lost_nodes))
        elif end.action is Action.RESTART:
            text = f"Trial {trial.number} is restarted, as training from checkpoint {job.checkpoint} failed: {reason}"
            self._happened(Warned(text))
            self._unreported.discard(trial.number)
            trial.status = end.status
            counts = trial.num_retries, trial.num_lost_nodes
            self._retries.append(Retry(trial, job.until_epoch, None, failure, *counts))

    def _drop_retry(self, retry: Retry) -> None:
        """End a job for whose retry no time is left."""
        cause = Cause.NO_TIME_TO_RESUME if retry.failure is None else Cause.NO_TIME_TO_RETRY
        self._end_job(retry.trial, cause, retry.failure)

    def _resume_open_jobs(self) -> None:
        """Put the jobs that were open when an earlier process ended before all others."""
        for trial in self.trials:
            if trial.status is Status.PAUSED and trial.reports:
                self._unreported.add(trial.number)
                if not _has_readable_checkpoint(trial, trial.reports[-1]):
                    # If the scheduler continues the trial, it is trained from the beginning, and keeps its reports.
                    trial.reports[-1] = replace(trial.reports[-1], checkpoint=None)
        for number in list(self._record.jobs):
            _write_config(self.trials[number])
            self._end_job(self.trials[number], Cause.PROCESS_KILLED)

    def _happened(self, event: Event) -> None:
        """Apply an event, write it to the log, and pass it to the listeners."""
        self._apply(event)
        self._write(event)
        self._tell(event)

    def _write(self, event: Event) -> None:
        if self.log is not None:
            self.log(event)

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def _apply(self, event: Event) -> Decision:
        """Apply an event, as it happens or as it is read from the log, and pass it to searcher and scheduler."""
        is_new = self._record.apply(event)
        match event:
            case TrialCreated() | JobStarted():
                self.searcher.on_begin(self.trials[event.trial].config)
            case EpochDone():
                trial = self.trials[event.trial]
                self.budget.learn(trial)
                if trial.best_report is not None and trial.best_report.score >= self.max_score:
                    self._good_enough.add(trial.number)
                if is_new:
                    score = event.metrics.get(CV_SCORE, event.score)
                    self.searcher.observe(trial.config, event.epoch, score, self._record.costs[event.trial])
                    return self.scheduler.on_report(event)
            case TrialRestarted():
                self._good_enough.discard(event.trial)
            case JobDone() | JobFailed():
                trial = self.trials[event.trial]
                has_failed = trial.status is Status.FAILED
                if has_failed:
                    self._good_enough.discard(trial.number)
                self.scheduler.on_job_end(trial)
                is_complete = trial.status is Status.COMPLETED
                self.searcher.on_end(trial.config, has_failed=has_failed, is_complete=is_complete)
        return Decision.CONTINUE


def _has_readable_checkpoint(trial: Trial, report: EpochDone) -> bool:
    if report.checkpoint is None or trial.files is None:  # without files, checkpoints are the trainable's own affair
        return report.checkpoint is not None
    return trial.files.get(trial.number, *parse_name(report.checkpoint)) is not None


def _write_config(trial: Trial) -> None:
    if trial.files is not None:
        text = json.dumps(trial.config, indent=2, default=repr) + "\n"
        trial.files.put(trial.number, CONFIG, None, lambda path: path.write_text(text, encoding="utf-8"))
