"""The minimal arithmetic of a training, as a reference for everything else.

Batches are in memory already, as bytes. A step normalises a batch, then runs forward, loss, backward and the optimizer;
validation normalises and runs forward. Layers that the recipe freezes are frozen here too. The numerics are the
fastest, measured without a limit on the time for that.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.photos import photos_of
from saccade.data.augmentation import Augmentation, TrainingTransform, as_tensor, normalise
from saccade.data.examples import read_labelled_examples
from saccade.fit.preparation import prepare_data
from saccade.numerics.device import Numerics, choose_device
from saccade.tasks.metrics import make_metric
from saccade.training.recipes.building import new_classifier, stored_side
from saccade.training.recipes.optimisation import make_optimizer
from saccade.training.recipes.recipe import Recipe, recipe_space
from saccade.training.task import ImageTask, Split
from saccade.training.trial.frozen import train_mode
from saccade.training.trial.trainer import choose_for_trial

VAL_BATCH_SIZE = 32
_MANY_STEPS = 40_000  # enough to measure all numerics in whole batches, and too few to compile


def make_task(
    photos: str | Path,
    config: Mapping[str, Any],
    folder: Path,
    num_images: int | None = None,
    weights: str | None = None,
) -> ImageTask:
    """Return the task that a fit of these photos would train, with decoded images."""
    space = recipe_space(config)
    examples = read_labelled_examples(photos_of(photos, num_images), "label")
    assert examples.labels is not None
    data = prepare_data(
        examples,
        None,
        None,
        folder=folder / "store",
        shorter_side=stored_side(space, examples.labels.nunique()),
        holdout_frac=0.1,
        random_state=0,
        seconds_left=None,
        notify=lambda _: None,
    )
    metric = make_metric(None, data.problem)
    return ImageTask(data.store, data.train, data.val, data.problem, metric, None if weights is None else Path(weights))


class Arithmetic:
    """A network, its optimizer, and batches in memory.

    Parameters
    ----------
    task : ImageTask
        The images.
    config : mapping
        A recipe's hyperparameters.
    """

    def __init__(self, task: ImageTask, config: Mapping[str, Any]) -> None:
        torch.manual_seed(0)
        recipe = Recipe.of(config)
        device = choose_device(task.device)
        default = Numerics.choose(device, recipe.amp, recipe.channels_last)
        self._classifier = classifier = new_classifier(recipe, task.problem, default, task.weights)
        self._problem, self._spec = task.problem, classifier.blueprint.input
        self.network, self._recipe = classifier.network, recipe
        self._optimizer = make_optimizer(self.network, recipe)  # which determines the frozen layers
        train_mode(self.network, recipe)
        self.training, self.inference = choose_for_trial(classifier, recipe, _MANY_STEPS, VAL_BATCH_SIZE)
        classifier.use(self.training, self.inference)
        self._is_training: bool | None = None
        self._scaler = torch.amp.GradScaler(enabled=self.training.dtype is torch.float16)
        vary = TrainingTransform(Augmentation(), self._spec.img_size, self._spec.interpolation)
        rng = np.random.default_rng(0)
        self.train_batches = _batches(task, task.train, lambda image: vary(image, rng), recipe.batch_size, device)
        self.val_batches = _batches(
            task,
            task.val,
            lambda image: classifier.preprocess.resize_and_crop(as_tensor(image)),
            VAL_BATCH_SIZE,
            device,
        )

    def begin_training(self) -> None:
        """Switch the network to the mode for `step`, if necessary."""
        if self._is_training is not True:
            train_mode(self.network, self._recipe)
            self._is_training = True

    def begin_predicting(self) -> None:
        """Switch the network to the mode for `predict`, if necessary."""
        if self._is_training is not False:
            self.network.eval()
            self._is_training = False

    def train_s(self) -> float:
        """Return the seconds of a pass over the training images."""
        self.begin_training()
        wait(self.training.device)
        start_s = time.perf_counter()
        for x_BCHW, y in self.train_batches:
            self.step(x_BCHW, y)
        wait(self.training.device)
        return time.perf_counter() - start_s

    def val_s(self) -> float:
        """Return the seconds of a pass over the validation images."""
        self.begin_predicting()
        wait(self.training.device)
        start_s = time.perf_counter()
        for x_BCHW, _ in self.val_batches:
            self.predict(x_BCHW)
        wait(self.training.device)
        return time.perf_counter() - start_s

    def step(self, x_BCHW: torch.Tensor, y: torch.Tensor) -> None:
        """Take a step with a batch of bytes, after `begin_training`."""
        with self.training.autocast():
            outputs = self.network(self._normalised(x_BCHW))
        loss = self._problem.loss(outputs, y)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()

    @torch.inference_mode()
    def predict(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the outputs of a batch of bytes, after `begin_predicting`."""
        with self.inference.autocast():
            outputs: torch.Tensor = self.network(self._normalised(x_BCHW))
        return outputs

    def _normalised(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return normalise(x_BCHW, self._spec.mean, self._spec.std)


def _batches(
    task: ImageTask, split: Split, transform: Any, batch_size: int, device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return bytes in the memory order of batches from a store, with targets."""
    batches = []
    for rows in np.array_split(np.arange(len(split.indices)), math.ceil(len(split.indices) / batch_size)):
        images = [transform(task.store[int(split.indices[row])]).permute(1, 2, 0) for row in rows]
        y = torch.from_numpy(split.targets[rows])
        batches.append((torch.stack(images).permute(0, 3, 1, 2).to(device), y.to(device)))
    return batches


def wait(device: torch.device) -> None:
    """Wait until a GPU has completed its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def trials_s(pass_s: list[float], num_trials: int) -> float:
    """Return the seconds of several trials: the first as measured, the others without one-time costs.

    Parameters
    ----------
    pass_s : list of float
        Of the passes of one trial, the first of a process.
    num_trials : int
        How many.

    Examples
    --------
    >>> trials_s([3.0, 2.0, 2.0], 2)
    13.0
    """
    later_s = statistics.median(pass_s[1:] or pass_s)
    return sum(pass_s) + (num_trials - 1) * len(pass_s) * later_s
