"""How a job has ended, which its worker cannot always know."""

from __future__ import annotations

from dataclasses import replace

from saccade.events import JobDone, JobFailed
from saccade.study.budget import Budget
from saccade.study.open_jobs import OpenJob
from saccade.study.trial import Trial

TIME_LIMIT = "time limit"
"""Why a trainable says that it ended when its job's time was up."""

TRIAL_TIME_LIMIT = "trial time limit"
"""The note of a trial that was ended by its own limit, not by that of the search."""


def verdict(trial: Trial, job: OpenJob, event: JobDone | JobFailed, budget: Budget) -> JobDone | JobFailed:
    """Return how a job has ended.

    A trial is complete when a report was its last one, or when whoever trains it found an end before that of the job.
    One that has reached the job's end may go on, and is paused; so is one that the deadline of the search has ended and
    that has saved what it can continue from, for a search that is resumed may have more time. What has spent its own
    time is stopped.

    Parameters
    ----------
    trial : Trial
        Whose job it was.
    job : OpenJob
        What is known of the job.
    event : JobDone or JobFailed
        What its worker said.
    budget : Budget
        Tells whether the trial's own limit leaves it time.

    Examples
    --------
    >>> from saccade.deadline import Deadline
    >>> from saccade.events import EpochDone
    >>> from saccade.study.entries import Reported
    >>> report = EpochDone(0, 3, 0.5, checkpoint="a file")
    >>> trial, budget = Trial(0, {}, reports=[report]), Budget(Deadline(None), 0.0, None)
    >>> verdict(trial, OpenJob(until_epoch=3, last=Reported(report)), JobDone(0), budget).status
    'paused'
    >>> verdict(trial, OpenJob(), JobDone(0, "stopped", TIME_LIMIT), budget)
    JobDone(trial=0, status='paused', reason='time limit')
    """
    if isinstance(event, JobFailed):
        if not event.is_worker_lost or job.end is None:
            return event
        event = JobDone(event.trial, job.end)  # the worker died after the trial's work was done
    if not trial.reports:
        cause = f": {event.reason}" if event.reason else ""
        return JobFailed(event.trial, f"it ended without a single report{cause}")
    if trial.reports[-1].is_last:
        return JobDone(event.trial)
    if event.status == "completed" and job.is_at_its_end:
        event = replace(event, status="paused")
    if event.status == "stopped" and event.reason == TIME_LIMIT:
        if job.has_own_limit:
            return replace(event, reason=TRIAL_TIME_LIMIT)
        # The last report counts: what follows an earlier checkpoint may be a part of an epoch, never the same again.
        if trial.reports[-1].checkpoint is not None:
            event = replace(event, status="paused")
    if event.status == "paused" and not budget.has_own_time(trial):
        return JobDone(event.trial, "stopped", TRIAL_TIME_LIMIT)
    return event
