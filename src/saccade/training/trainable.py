"""Images as something that a study can train."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from saccade.training.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trainer import Trainer
from saccade.trial import Job, Reporter, Trainable


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
        with _threads(self.task.num_threads):
            trainer = Trainer(self.task, Recipe.of(job.config), Path(job.folder))
            if job.checkpoint is not None:
                trainer.load_checkpoint(Path(job.checkpoint))
            return trainer.run(job, report)


@contextlib.contextmanager
def _threads(num: int | None) -> Iterator[None]:
    """Give torch so many threads for the while; None leaves it as it is."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(num or before)
        yield
    finally:
        torch.set_num_threads(before)
