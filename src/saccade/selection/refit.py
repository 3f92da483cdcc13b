"""Training of the best recipe once more, on training and validation images together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saccade.deadline import Deadline
from saccade.events import EpochDone, Event, JobDone, JobFailed, Listener, Progressed, Warned
from saccade.executor import Executor
from saccade.selection.candidates import Candidate, TrainedCandidate
from saccade.study.study import GRACE_S
from saccade.study.trial import Decision, Job
from saccade.study.trial_files import LocalTrialFiles
from saccade.training.task import ImageTask
from saccade.training.trial.trainer import ImageTrainable
from saccade.training.trial_files import BEST


def refit(
    executor: Executor, task: ImageTask, best: Candidate, folder: Path, deadline: Deadline, notify: Listener
) -> Candidate | None:
    """Train a candidate's recipe up to its epoch on training and validation images together.

    Returns the new network with the predictions of `best`, since no image is left to evaluate it; or None after a
    warning unless it is complete before the deadline.
    """
    executor.trainable = ImageTrainable(replace(task, train=task.train.joined(task.val), is_refit=True))
    done: list[EpochDone] = []
    problems: list[str] = []

    def handle(event: Event) -> Decision:
        match event:
            case EpochDone():
                done.append(event)
                notify(Progressed("refit on all images", event.epoch, best.epoch))
            case JobDone(reason=reason) if reason:
                problems.append(reason)
            case JobFailed(reason=reason):
                problems.append(reason)
        return Decision.CONTINUE

    files = LocalTrialFiles(folder)
    job = Job(best.trial, best.config, best.epoch, seconds_left=deadline.seconds_left(), files=files)
    executor.submit(job)
    executor.run_within_limits(handle, lambda: {job.trial: deadline.seconds_left() + GRACE_S})
    weights = files.get(best.trial, BEST, best.epoch)
    is_done = bool(done) and done[-1].epoch == best.epoch and done[-1].metrics["train_part"] == 1.0
    if not is_done or weights is None:
        notify(
            Warned(f"no refit on all images ({'; '.join(problems) or 'it was not finished'}); the best trial is kept")
        )
        return None
    return TrainedCandidate(
        best.trial, best.config, best.blueprint, best.predictions, best.epoch, weights, is_refit=True
    )
