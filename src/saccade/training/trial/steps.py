"""The steps of a training: pass after pass over its images, and all that they change."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3

from saccade.data.augmentation import TrainingTransform
from saccade.data.batches import Batches
from saccade.deadline import Deadline
from saccade.errors import DivergedError
from saccade.inference.classifier import Classifier
from saccade.numerics.device import Numerics
from saccade.training.imbalance import balanced_sampling_weights, class_weights
from saccade.training.probes.robust import robust_loss
from saccade.training.recipes.optimisation import LearningRate, Mixing, make_optimizer, side_in_epoch
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.frozen import (
    FeatureBatches,
    KeptOutputs,
    feature_batches,
    freeze,
    is_body_fixed,
    train_mode,
)
from saccade.training.trial.train_batches import train_batches

LEAST_STEPS = 4
"""Steps of an epoch after which it is known how long they take."""


class Steps:
    """Takes the steps of a recipe.

    Each epoch draws its random numbers from a seed of its own, and the learning rate depends on the step's number
    alone. So an epoch is a function of the state before it.

    Parameters
    ----------
    classifier : Classifier
        Whose network learns.
    task : ImageTask
        The images.
    recipe : Recipe
        How to train.

    Attributes
    ----------
    batches : Batches
        The training images.
    ema : ModelEmaV3 or None
        The moving average of the weights, where the recipe has one.
    kept : KeptOutputs or None
        Of a body that stays as it is, what it makes of images that are the same in every pass.
    class_weights, draw : ndarray or None
        How much classes count in the loss; and how often images are drawn, where that is not equally often.
    num_epochs : int
        Passes that were begun so far.
    """

    def __init__(self, classifier: Classifier, task: ImageTask, recipe: Recipe) -> None:
        self.classifier, self.recipe, self.problem = classifier, recipe, task.problem
        self.network = network = classifier.network
        freeze(network, recipe)
        self.ema = ModelEmaV3(network, recipe.model_ema_decay, use_warmup=True) if recipe.model_ema else None
        targets, problem = task.train.targets, task.problem
        self.class_weights = class_weights(recipe.class_weight, targets, problem, task.class_names)
        self.draw = balanced_sampling_weights(targets, problem) if recipe.balanced_sampling else None
        self.batches = train_batches(task, recipe, classifier.blueprint.input, classifier.numerics.device, self.draw)
        train_mode(network, recipe)
        self.kept = KeptOutputs(classifier) if is_body_fixed(network) else None
        self.mixing = Mixing(recipe, problem) if recipe.mixup or recipe.cutmix else None
        self.optimizer = make_optimizer(network, recipe)
        self.learning_rate = LearningRate(self.optimizer, recipe, len(self.batches))
        self.num_epochs = 0
        self._features: FeatureBatches | None = None
        self._scaler = _scaler_for(classifier.numerics)

    def use(self, training: Numerics) -> None:
        """Take these numerics, which the classifier has already, for all but the network."""
        if self.ema is not None:
            replace(training, compiled=False).place(self.ema.module)
        self._scaler = _scaler_for(training)

    @property
    def judged(self) -> torch.nn.Module:
        """The network that is judged, and whose weights are kept."""
        module: torch.nn.Module = self.network if self.ema is None else self.ema.module
        return module

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights of the network that is judged, on the CPU."""
        return {name: tensor.contiguous().cpu() for name, tensor in self.judged.state_dict().items()}

    def take_epoch(
        self, deadline: Deadline, validation_s: Callable[[float], float] = lambda _: 0.0
    ) -> tuple[dict[str, float], bool]:
        """Take the steps of an epoch; stop early, after one step at least, when validation could come too late.

        Parameters
        ----------
        deadline : Deadline
            When the epoch must be over, and validated.
        validation_s : callable
            From the seconds that an image takes in training to those of a validation.

        Returns
        -------
        figures : dict
            ``train_loss``, ``train_part`` (of the images of an epoch), ``data_s`` (waiting for images) and, for
            classes, ``train_acc``.
        is_whole : bool
            Whether all steps were taken.

        Raises
        ------
        DivergedError
            When the loss is not finite.
        """
        seed_generators(self.recipe.seed, self.num_epochs)
        train_mode(self.network, self.recipe)
        self._resize_images()
        number, num_steps = self.num_epochs, len(self.batches)
        self.num_epochs += 1
        sum_loss = sum_right = num_images = 0.0
        start_s = time.perf_counter()
        inputs = self._inputs(deadline)
        network = self.network if self._features is None else self.classifier.head
        assert network is not None, "cached features are the inputs of a classifier layer"
        for step, (x_BCHW, y, *weights) in enumerate(inputs.shuffled(number), start=1):
            possible = self._steps_possible(deadline, start_s, step - 1, validation_s)
            self.learning_rate.step(number * num_steps + step - 1, possible)
            loss, right = self._step(network, x_BCHW, y, *weights)
            if not math.isfinite(loss):
                raise DivergedError(f"the loss became {loss} in step {step} of epoch {number + 1}")
            if self.ema is not None:
                self.ema.update(self.network, step=number * num_steps + step)
            sum_loss, sum_right, num_images = sum_loss + loss * len(y), sum_right + right, num_images + len(y)
            if step < num_steps:
                per_image_s = (time.perf_counter() - start_s) / num_images
                if deadline.seconds_left() < validation_s(per_image_s) + per_image_s * len(y):
                    part = num_images / self.batches.num_in_pass
                    return self._figures(sum_loss, sum_right, num_images, part), False
        return self._figures(sum_loss, sum_right, num_images), True

    def _steps_possible(
        self, deadline: Deadline, start_s: float, num_steps: int, validation_s: Callable[[float], float]
    ) -> float:
        """Return how many steps there is time for, going by the steps of this epoch."""
        if num_steps < LEAST_STEPS:  # the first ones are slower than the others
            return math.inf
        step_s = (time.perf_counter() - start_s) / num_steps
        val_s = validation_s(step_s / self.recipe.batch_size)
        return (deadline.seconds_left() - val_s) / (step_s + val_s / len(self.batches))

    def _resize_images(self) -> None:
        """Set the size of the training images for this epoch, where it changes."""
        first, transform = self.recipe.first_img_size, self.batches.transform
        if first is not None and isinstance(transform, TrainingTransform):
            last = self.classifier.blueprint.input.img_size
            transform.img_size = side_in_epoch(self.num_epochs, self.recipe.epochs, first, last)

    def _inputs(self, deadline: Deadline) -> Batches | FeatureBatches:
        """Return what a pass goes over: training images, or what frozen layers make of them where that is always so."""
        if self.kept is not None and self.mixing is None and self._features is None:
            self._features = feature_batches(self.classifier, self.batches, deadline.seconds_left)
            train_mode(self.network, self.recipe)
        return self._features or self.batches

    def _step(
        self, network: torch.nn.Module, x_BCHW: torch.Tensor, y: torch.Tensor, weights: torch.Tensor | None = None
    ) -> tuple[float, float]:
        """Take one step; return the loss and how many images were classified rightly before it."""
        targets, problem, smoothing = y, self.problem, self.recipe.smoothing
        if self.mixing is not None:
            x_BCHW, targets, weights = self.mixing(x_BCHW, y, weights)
            smoothing = 0.0  # part of the mixed targets already
        with self.classifier.numerics.autocast():
            outputs = network(x_BCHW)
        by_class = None if self.class_weights is None else torch.as_tensor(self.class_weights, device=y.device)
        q = self.recipe.robust_loss or 0.0
        loss = robust_loss(problem, outputs, targets, q, smoothing, by_class, weights)
        self.optimizer.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_grad:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_grad)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss.item(), problem.num_right(outputs, y)

    def _figures(self, sum_loss: float, sum_right: float, num_images: float, part: float = 1.0) -> dict[str, float]:
        figures = {"train_loss": sum_loss / num_images, "train_part": part, "data_s": self.batches.waited_s}
        if self.problem.is_classification:
            figures["train_acc"] = sum_right / num_images
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Return all that training must have to continue exactly."""
        return {
            "network": self.network.state_dict(),
            "ema": self.ema and self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "learning_rate": self.learning_rate.place,
            "num_epochs": self.num_epochs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.learning_rate.place = state["learning_rate"]
        self.num_epochs = state["num_epochs"]


def seed_generators(*parts: int) -> None:
    """Seed what a trial draws from: torch, and the global generators that timm's mixup and own transforms use."""
    seed = int(np.random.SeedSequence(parts).generate_state(1)[0])
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def _scaler_for(numerics: Numerics) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(enabled=numerics.dtype is torch.float16)
