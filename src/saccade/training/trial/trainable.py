"""Images as something that a study can train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saccade.deadline import Deadline
from saccade.numerics.device import cpu_threads
from saccade.study.trial import Job, Reporter, Trainable
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.trainer import Trainer


class ImageTrainable(Trainable):
    """Trains the networks of one task.

    Parameters
    ----------
    task : ImageTask
        The images and what is asked of them.
    """

    def __init__(self, task: ImageTask) -> None:
        self.task = task

    def train(self, job: Job, report: Reporter) -> str:
        """Train the job's recipe in the job's folder, from its checkpoint where it has one."""
        deadline = Deadline(job.seconds_left)
        with cpu_threads(self.task.num_threads):
            trainer = Trainer(self.task, Recipe.of(job.config), Path(job.folder))
            if job.checkpoint is not None:
                trainer.load_checkpoint(Path(job.folder, job.checkpoint))
            return trainer.run(replace(job, seconds_left=deadline.seconds_left()), report)
