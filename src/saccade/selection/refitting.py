"""The best recipe once more, on all images: those that judged it now teach as well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saccade.deadline import Deadline
from saccade.events import EpochDone, Event, JobDone, JobFailed, Listener, Progressed, Warned
from saccade.executor import Executor
from saccade.study.trial import Decision, Job, Trial
from saccade.training.task import ImageTask
from saccade.training.trial.trainable import ImageTrainable
from saccade.training.trial_files import weights_file


def refit(executor: Executor, task: ImageTask, best: Trial, folder: Path, deadline: Deadline, tell: Listener) -> bool:
    """Train the best trial's recipe up to its best epoch on training and validation images together.

    Parameters
    ----------
    executor : Executor
        Idle, with its workers warm.
    task : ImageTask
        The task of the search.
    best : Trial
        Its configuration and its best epoch count.
    folder : Path
        Where the weights go; see `weights_file`.
    deadline : Deadline
        When it must be over. A refit that is not finished by then is of no use.
    tell : callable
        Told of progress, and of the reason when there is no refit.

    Returns
    -------
    bool
        Whether the refit was finished; if not, the best trial's own weights are what there is.
    """
    assert best.best_report is not None
    num_epochs = best.best_report.epoch
    every = task.train.joined(task.val)
    executor.trainable = ImageTrainable(replace(task, train=every, is_refit=True))
    done: list[EpochDone] = []
    problems: list[str] = []

    def handle(event: Event) -> Decision:
        match event:
            case EpochDone():
                done.append(event)
                tell(Progressed("refit on all images", event.epoch, num_epochs))
            case JobDone(reason=reason) if reason:
                problems.append(reason)
            case JobFailed(reason=reason):
                problems.append(reason)
        return Decision.CONTINUE

    executor.submit(
        Job(
            best.number,
            best.config,
            str(folder),
            until_epoch=num_epochs,
            seconds_left=deadline.seconds_left(),
        )
    )
    executor.run(handle)
    is_done = bool(done) and done[-1].epoch == num_epochs and done[-1].metrics["train_part"] == 1.0
    if not is_done or not weights_file(folder, num_epochs).is_file():
        tell(Warned(f"no refit on all images ({'; '.join(problems) or 'it was not finished'}); the best trial is kept"))
        return False
    return True
