"""A study whose jobs are done by hand, one report after the other."""

from __future__ import annotations

import math

from saccade.events import EpochDone
from saccade.study.trial import Decision, Status, Trial


class StudyByHand:
    """A study without workers: jobs are done by calling `train`."""

    num_workers = 1

    def __init__(self, scheduler, num_trials=10**9, seconds_left=math.inf):
        self.scheduler, self.num_trials, self.seconds_left = scheduler, num_trials, seconds_left
        self.trials, self.without_time = [], set()

    def new_trial(self):
        if len(self.trials) >= self.num_trials:
            return None
        self.trials.append(Trial(len(self.trials), {}, "a folder"))
        return self.trials[-1]

    def has_time_for(self, trial):
        return trial.number not in self.without_time

    def next_job(self):
        job = self.scheduler.next_job(self)
        if job is not None:
            self.trials[job.trial].status = Status.RUNNING
        return job

    def train(self, trial, scores, first_epoch=1, num_epochs=None, has_checkpoints=True):
        """Report epochs until the trial is told to do something else; its last one is `num_epochs`."""
        trial = self.trials[trial]
        for epoch, score in enumerate(scores, start=first_epoch):
            checkpoint = f"after {epoch}" if has_checkpoints else None
            report = EpochDone(trial.number, epoch, score, 1.0, {}, checkpoint, is_last=epoch == num_epochs)
            trial.reports.append(report)
            decision = self.scheduler.on_report(report)
            if decision is not Decision.CONTINUE:
                break
        if report.is_last:
            decision = Decision.CONTINUE
        statuses = {Decision.PAUSE: Status.PAUSED, Decision.STOP: Status.STOPPED, Decision.CONTINUE: Status.COMPLETED}
        self.end(trial.number, statuses[decision])
        return decision

    def end(self, trial, status):
        self.trials[trial].status = status
        self.scheduler.on_job_end(self.trials[trial])

    def begin(self, scores, **options):
        """Begin a trial, and train it as far as it goes."""
        job = self.next_job()
        assert not self.trials[job.trial].reports
        self.train(job.trial, scores, **options)
