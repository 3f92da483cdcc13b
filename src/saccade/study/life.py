"""The life of a trial in one place: what each event changes, what becomes of it when a job ends, and its time.

A trial is created, is given to a worker as a *job*, reports epochs, and is paused, completed, stopped or failed when
the job ends. A paused trial may get further jobs. `StudyRecord.apply` is the effect of every event, for events as they
happen and for events that are read from the event log. `ENDS` is the table of the ends of jobs.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from saccade.deadline import Deadline
from saccade.errors import SearchFailedError
from saccade.events import (
    Decision,
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    TrialCreated,
    TrialRestarted,
    WorkerJoined,
)
from saccade.study.trial import Status, Trial
from saccade.study.trial_files import TrialFiles

NUM_FAILURES = 10  # a search ends if this many trials have failed for the same reason, and none has not failed
NUM_RETRIES = 1  # how often a trial is retried that has lost its worker, without a new epoch between
NUM_LOST_NODES = 5  # the same for a worker that was lost together with its node
TIME_LIMIT = "time limit"  # the reason a trainable gives when the time of its job is up

TRIAL_TIME_LIMIT = "trial time limit"
"""The reason of a trial that was stopped by its own limit, not by the deadline of the search."""

NO_REPORT = "the job ended without a report"


class Cause(Enum):
    """Why a job has ended.

    An exception in the worker is FAILED, whatever it is; a worker that the operating system kills is WORKER_LOST. An
    exception in the study itself, such as a full disk when the event log is written, ends the process, and the next one
    that resumes the run finds the job open: PROCESS_KILLED.
    """

    COMPLETED = "the trainable has returned without a reason"
    PAUSED = "the trainable has paused, as the scheduler decided"
    STOPPED = "the trainable has stopped, by a decision or for a reason of its own"
    TIME_LIMIT = "the time of the job is up"
    FAILED = "the trainable has raised an error"
    WORKER_LOST = "the worker has crashed, or was killed"
    NODE_LOST = "the node of the worker was lost, or the connection to it"
    PROCESS_KILLED = "the process of the study was killed, and another one resumes the run"
    NO_TIME_TO_RETRY = "a retry was due, and there is no time for it"
    NO_TIME_TO_RESUME = "an open job of an earlier process was due, and there is no time for it"


class Fact(Enum):
    """A condition on the trial and its job."""

    NO_REPORT = "the trial has no report"
    LAST_EPOCH = "the last report is of the last epoch of the configuration"
    STOP_DUE = "the scheduler has answered the last report with STOP"
    PAUSE_DUE = "the scheduler has answered it with PAUSE, or it is of the last epoch of the job"
    CHECKPOINT = "the last report has a checkpoint"
    OWN_LIMIT = "the trial's own time limit comes before the deadline of the search"
    OWN_TIME_SPENT = "the trial's own time limit leaves no time for another epoch"
    RETRIED = "the trial has had all of its retries since its last new epoch"
    NODES_LOST = "it has lost too many nodes since then"
    UNTRIED_CHECKPOINT = "the job continued from a checkpoint of an earlier process, and has not reported"


class Action(Enum):
    """What the study does."""

    END = "log and announce the end of the job"
    RETRY = "train the trial again from its last checkpoint, before all other jobs"
    RESTART = "train the trial again from its beginning, before all other jobs"
    WAIT = "leave the job open, for a process with more time"


@dataclass(frozen=True)
class End:
    """One row of `ENDS`: one of the causes has ended the job, and all of the facts hold."""

    causes: tuple[Cause, ...]
    facts: frozenset[Fact]
    status: Status  # of the trial afterwards
    action: Action = Action.END
    reason: str | None = None  # that is logged; None is the reason of the worker


def _row(causes: str, facts: str, status: Status, action: Action = Action.END, reason: str | None = None) -> End:
    return End(
        tuple(Cause[name] for name in causes.split()), frozenset(Fact[name] for name in facts.split()), status, action,
        reason,
    )  # fmt: skip


LOST = "WORKER_LOST NODE_LOST PROCESS_KILLED"

# fmt: off
ENDS: tuple[End, ...] = (
    _row("COMPLETED PAUSED STOPPED TIME_LIMIT", "NO_REPORT", Status.FAILED, reason=NO_REPORT),
    _row(f"COMPLETED PAUSED STOPPED TIME_LIMIT {LOST}", "LAST_EPOCH", Status.COMPLETED, reason=""),
    # The worker's last report was answered, so its work was done although it did not return.
    _row(LOST, "STOP_DUE", Status.STOPPED, reason=""),
    _row(f"COMPLETED {LOST}", "PAUSE_DUE OWN_TIME_SPENT", Status.STOPPED, reason=TRIAL_TIME_LIMIT),
    _row(f"COMPLETED {LOST}", "PAUSE_DUE", Status.PAUSED, reason=""),
    # The trainable has found an end before that of the configuration.
    _row("COMPLETED", "", Status.COMPLETED),
    _row("PAUSED", "OWN_TIME_SPENT", Status.STOPPED, reason=TRIAL_TIME_LIMIT),
    _row("PAUSED", "", Status.PAUSED, reason=""),
    _row("STOPPED", "", Status.STOPPED),
    # A trial that the deadline ends is paused if it can be continued: a resumed search may have more time.
    _row("TIME_LIMIT", "OWN_LIMIT", Status.STOPPED, reason=TRIAL_TIME_LIMIT),
    _row("TIME_LIMIT", "CHECKPOINT OWN_TIME_SPENT", Status.STOPPED, reason=TRIAL_TIME_LIMIT),
    _row("TIME_LIMIT", "CHECKPOINT", Status.PAUSED),
    _row("TIME_LIMIT", "", Status.STOPPED),
    # The checkpoint may be damaged.
    _row("FAILED", "UNTRIED_CHECKPOINT", Status.PAUSED, Action.RESTART),
    _row("FAILED", "", Status.FAILED),
    # The trial may be the cause, so it is not retried for ever.
    _row("WORKER_LOST", "RETRIED", Status.FAILED),
    _row("NODE_LOST", "NODES_LOST", Status.FAILED),
    _row(LOST, "", Status.PAUSED, Action.RETRY),
    _row("NO_TIME_TO_RETRY", "NO_REPORT", Status.FAILED),
    _row("NO_TIME_TO_RESUME", "NO_REPORT", Status.PAUSED, Action.WAIT),
    _row("NO_TIME_TO_RETRY NO_TIME_TO_RESUME", "OWN_TIME_SPENT", Status.STOPPED, reason=TRIAL_TIME_LIMIT),
    _row("NO_TIME_TO_RETRY NO_TIME_TO_RESUME", "", Status.PAUSED),
)
"""The ends of jobs, in order of precedence: the first row that fits decides."""
# fmt: on


def find_end(cause: Cause, facts: Collection[Fact]) -> End:
    """Return the row of `ENDS` for a job that has ended."""
    return next(end for end in ENDS if cause in end.causes and end.facts <= set(facts))


def cause_of(event: JobDone | JobFailed) -> Cause:
    """Return why a job has ended, by what its worker has sent."""
    if isinstance(event, JobFailed):
        return Cause.NODE_LOST if event.is_node_lost else Cause.WORKER_LOST if event.is_worker_lost else Cause.FAILED
    if event.status == "stopped" and event.reason == TIME_LIMIT:
        return Cause.TIME_LIMIT
    return Cause[event.status.upper()]


@dataclass
class OpenJob:
    """A job that has not ended."""

    until_epoch: int | None = None  # as in `Job`
    checkpoint: str | None = None  # that it continues from, if this process has started it
    has_own_limit: bool = False  # whether the trial's own time limit comes before the deadline of the search
    own_deadline: Deadline = field(default_factory=lambda: Deadline(None))  # the trial's own time limit
    last: EpochDone | None = None  # its last report, with the decision
    has_new_epoch: bool = False  # whether it has reported an epoch that no earlier job has


class StudyRecord:
    """The trials and the open jobs of a study, as its events so far leave them.

    Jobs are in the order in which they were started, by the numbers of their trials. A trial that was created has a job
    at once.
    """

    def __init__(self, files: TrialFiles | None = None) -> None:
        self.files = files
        self.trials: list[Trial] = []
        self.jobs: dict[int, OpenJob] = {}
        # A heap: the best score first, the earliest trial among equals. Outdated entries are dropped when met.
        self._scores: list[tuple[float, int]] = []
        self._failed: set[int] = set()
        self.costs: dict[int, float] = {}  # seconds of training on the reference node, by trial
        self._speeds: dict[str, float] = {}  # of nodes, where they are known
        self._reasons: set[str] = set()

    @classmethod
    def load(cls, events: Iterable[Event], files: TrialFiles | None = None) -> StudyRecord:
        """Return the record after these events, such as those of an `EventLog`."""
        record = cls(files)
        for event in events:
            record.apply(event)
        return record

    def apply(self, event: Event) -> bool:
        """Apply one event; return whether it is new, unlike an epoch that is trained again and was reported before."""
        match event:
            case TrialCreated():
                self.trials.append(Trial(event.trial, event.config, self.files))
                self.jobs[event.trial] = OpenJob()
            case JobStarted():
                self.trials[event.trial].status = Status.RUNNING
                self.jobs.pop(event.trial, None)  # to keep the order of the starts
                self.jobs[event.trial] = OpenJob(event.until_epoch)
            case WorkerJoined():
                if event.speed is not None:
                    self._speeds[event.node] = event.speed
            case EpochDone():
                self.jobs[event.trial].last = event
                seconds = event.seconds * self.relative_speed(event.node)
                self.costs[event.trial] = self.costs.get(event.trial, 0.0) + seconds
                trial = self.trials[event.trial]
                is_new = trial.add(event)
                self.jobs[event.trial].has_new_epoch |= is_new
                if trial.best_report is trial.reports[-1]:
                    heapq.heappush(self._scores, (-trial.reports[-1].score, event.trial))
                return is_new
            case TrialRestarted():
                trial = self.trials[event.trial]
                trial.drop_after(event.after_epoch)
                trial.status = Status.PAUSED
                trial.num_retries, trial.num_lost_nodes = event.num_retries, event.num_lost_nodes
                self.jobs[event.trial].last = None
            case JobDone():
                trial = self.trials[event.trial]
                trial.status, trial.note, trial.failure = Status(event.status), event.reason, None
                del self.jobs[event.trial]
            case JobFailed():
                trial = self.trials[event.trial]
                trial.status, trial.note, trial.failure = Status.FAILED, "", event
                del self.jobs[event.trial]
                self._failed.add(event.trial)
                self._reasons.add(event.reason)
        return True

    @property
    def reference_speed(self) -> float | None:
        """The speed of the reference node, the first one whose speed is known; None without one."""
        return next(iter(self._speeds.values()), None)

    def relative_speed(self, node: str) -> float:
        """Return the speed of a node relative to the reference node, 1 if it is not known."""
        reference = self.reference_speed
        return 1.0 if reference is None else self._speeds.get(node, reference) / reference

    @property
    def best_trial(self) -> Trial | None:
        """The trial with the highest score that did not fail, the earliest among equals; None without one."""
        while self._scores:
            negative_score, number = self._scores[0]
            trial = self.trials[number]
            best = trial.best_report
            if trial.status is not Status.FAILED and best is not None and -best.score == negative_score:
                return trial
            heapq.heappop(self._scores)
        return None

    @property
    def is_hopeless(self) -> bool:
        """Whether all of at least `NUM_FAILURES` trials have failed for the same reason."""
        num = len(self.trials)
        return num >= NUM_FAILURES and num == len(self._failed) and len(self._reasons) == 1

    def facts(self, trial: Trial) -> set[Fact]:
        """Return the facts about a trial and its open job that the record has; time limits are not among them."""
        job = self.jobs[trial.number]
        last, decision = job.last, None if job.last is None else job.last.decision
        is_job_done = last is not None and job.until_epoch is not None and last.epoch >= job.until_epoch
        known = {
            Fact.NO_REPORT: not trial.reports,
            Fact.LAST_EPOCH: bool(trial.reports) and trial.reports[-1].is_last,
            Fact.STOP_DUE: decision is Decision.STOP,
            Fact.PAUSE_DUE: decision is Decision.PAUSE or (is_job_done and decision is not Decision.STOP),
            Fact.CHECKPOINT: bool(trial.reports) and trial.reports[-1].checkpoint is not None,
            Fact.OWN_LIMIT: job.has_own_limit,
            Fact.RETRIED: trial.num_retries >= NUM_RETRIES and not job.has_new_epoch,
            Fact.NODES_LOST: trial.num_lost_nodes >= NUM_LOST_NODES and not job.has_new_epoch,
        }
        return {fact for fact, holds in known.items() if holds}


def all_failed(trials: Sequence[Trial], *, is_given_up: bool) -> SearchFailedError:
    """Return the error with the reasons of failed trials and the first traceback."""
    failures = [trial.failure for trial in trials if trial.failure is not None]
    if not failures:
        return SearchFailedError(f"The time limit ended before any of {len(trials)} trials had a score; increase it.")
    reasons = list(dict.fromkeys(failure.reason for failure in failures))
    if is_given_up:
        num = f"The search was stopped after {len(failures)} trials, which all"
    else:
        num = "The only trial" if len(failures) == 1 else f"All {len(failures)} trials"
    if len(reasons) == 1:
        message = f"{num} failed: {reasons[0]}"
    else:
        message = f"{num} failed, for {len(reasons)} reasons:\n" + "\n".join(f"  - {reason}" for reason in reasons)
    first = failures[0].traceback.strip()
    return SearchFailedError(f"{message}\n\nTraceback of the first failure:\n{first}" if first else message)


Reserve = float | Callable[[], float]
"""Seconds before a deadline that are not used for training; or a function that returns them."""


class Budget:
    """The time of a search; its arguments are those of `Study`."""

    def __init__(self, deadline: Deadline, reserve_s: Reserve, trial_time_limit_s: float | None) -> None:
        self.deadline = deadline
        self.reserve_s = reserve_s
        self.trial_time_limit_s = math.inf if trial_time_limit_s is None else float(trial_time_limit_s)
        self._shortest_first_epoch_s = math.inf
        self._submitted_s: dict[int, float] = {}
        self._setup_s = math.inf  # the shortest time from a job's start to its first report, without the epoch itself

    @property
    def seconds_left(self) -> float:
        """Seconds left for training."""
        return self.deadline.seconds_left() - (self.reserve_s() if callable(self.reserve_s) else self.reserve_s)

    def seconds_left_for(self, trial: Trial) -> float:
        """Return the seconds that a job of the trial may take."""
        return min(self.seconds_left, self.trial_time_limit_s - trial.seconds)

    @property
    def setup_s(self) -> float:
        """Seconds that a job takes before its first epoch: building a network, loading weights, measuring numerics."""
        return 0.0 if math.isinf(self._setup_s) else self._setup_s

    def submitted(self, trial: Trial) -> None:
        """Note the start of a job."""
        self._submitted_s[trial.number] = self.deadline.elapsed_s()

    def learn(self, trial: Trial) -> None:
        """Update the shortest set-up and the shortest first epoch from a trial's latest report."""
        if (submitted_s := self._submitted_s.pop(trial.number, None)) is not None:
            setup_s = self.deadline.elapsed_s() - submitted_s - trial.reports[-1].seconds
            self._setup_s = min(self._setup_s, max(0.0, setup_s))
        if len(trial.reports) == 1:
            self._shortest_first_epoch_s = min(self._shortest_first_epoch_s, trial.reports[0].seconds)

    def has_time_for_a_trial(self) -> bool:
        """Return whether a new trial could report in time, estimated from the trials so far; True before the first."""
        first_s = self._shortest_first_epoch_s
        return math.isinf(first_s) or self.seconds_left > first_s + self.setup_s

    def has_time_for(self, trial: Trial) -> bool:
        """Return whether a trial that is not running could report one more epoch in time."""
        if not trial.reports:
            return self.has_time_for_a_trial()
        return self.seconds_left > _next_report_s(trial) + self.setup_s and self.has_own_time(trial)

    def has_own_time(self, trial: Trial) -> bool:
        """Return whether the trial's own limit leaves time for one more epoch."""
        return math.isinf(self.trial_time_limit_s) or self.trial_time_limit_s - trial.seconds >= _next_report_s(trial)


def _next_report_s(trial: Trial) -> float:
    """Return the duration of the next epoch if it is that of the last one, plus that of epochs to be trained again."""
    last = trial.reports[-1]
    again_s = 0.0 if last.checkpoint is not None else sum(report.seconds for report in trial.reports)
    return again_s + last.seconds
