"""The steps of a trial: passes over the training images, and the state that they change."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3

from saccade.data.augmentation import Augmentation, TrainingTransform, Transform, own_transform
from saccade.data.batches import Batches
from saccade.deadline import Deadline
from saccade.errors import DivergedError
from saccade.inference.classifier import Classifier
from saccade.numerics.device import Numerics
from saccade.training.imbalance import balanced_sampling_weights, class_weights
from saccade.training.recipes.optimisation import LearningRate, Mixing, side_in_epoch
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.frozen import FeatureBatches, KeptOutputs, feature_batches, is_backbone_fixed, train_mode
from saccade.training.trial.ranks import ALONE, Ranks

LEAST_STEPS = 4  # steps of an epoch before their average duration is used


class Steps:
    """Takes the steps of a recipe.

    Each epoch has a random seed of its own, and the learning rate depends on the step's number alone. So an epoch is a
    function of the state before it.
    """

    def __init__(
        self, classifier: Classifier, task: ImageTask, recipe: Recipe, optimizer: torch.optim.Optimizer
    ) -> None:
        self.classifier, self.recipe, self.problem = classifier, recipe, task.problem
        self.network = network = classifier.network
        self.optimizer = optimizer
        self.ema = ModelEmaV3(network, recipe.model_ema_decay, use_warmup=True) if recipe.model_ema else None
        targets, problem = task.train.targets, task.problem
        self.class_weights = class_weights(recipe.class_weight, targets, problem, task.class_names)
        self.draw = balanced_sampling_weights(targets, problem) if recipe.balanced_sampling else None
        spec = classifier.blueprint.input
        if recipe.train_transform is not None:
            transform: Transform | TrainingTransform = own_transform(recipe.train_transform.value, spec.img_size)
        else:
            names = ("scale", "ratio", "hflip", "vflip", "color_jitter", "auto_augment", "re_prob")
            augmentation = Augmentation(*(getattr(recipe, name) for name in names))
            transform = TrainingTransform(augmentation, spec.img_size, spec.interpolation)
        self.batches = Batches(
            task.store,
            task.train.indices,
            targets if task.train.soft is None else task.train.soft,
            transform,
            recipe.batch_size,
            spec.mean,
            spec.std,
            classifier.numerics.device,
            task.train.weights,
            self.draw,
            most_in_pass=recipe.images_per_epoch,
            strata=problem.strata(targets),
        )
        train_mode(network, recipe)
        self.kept = KeptOutputs(classifier) if is_backbone_fixed(network) else None
        self.mixing = Mixing(recipe, problem) if recipe.mixup or recipe.cutmix else None
        self.learning_rate = LearningRate(optimizer, recipe, len(self.batches))
        self.num_epochs = 0  # begun so far
        self._features: FeatureBatches | None = None
        self.use(classifier.numerics)

    def use(self, training: Numerics) -> None:
        """Use these numerics, which the classifier uses already, for everything but the network."""
        if self.ema is not None:
            replace(training, compiled=False).place(self.ema.module)
        self._scaler = torch.amp.GradScaler(enabled=training.dtype is torch.float16)

    @property
    def averaged(self) -> torch.nn.Module:
        """The network that is validated and written: the moving average of the weights if there is one."""
        module: torch.nn.Module = self.network if self.ema is None else self.ema.module
        return module

    def keep_features(self, deadline: Deadline) -> bool:
        """Cache the features of a fixed backbone if nothing varies the images; return whether they are cached.

        The features of all images must be complete before the deadline.
        """
        if self.kept is not None and self.mixing is None and self._features is None:
            train_mode(self.network, self.recipe)
            self._features = feature_batches(self.classifier, self.batches, deadline.seconds_left)
        return self._features is not None

    def take_epoch(
        self,
        deadline: Deadline,
        validation_s: Callable[[float], float] = lambda _: 0.0,
        ranks: Ranks = ALONE,
    ) -> tuple[dict[str, float], bool]:
        """Take the steps of an epoch; stop early, after at least one step, if validation might miss the deadline.

        `validation_s` maps the seconds per image in training to those of a validation. Returns ``train_loss``,
        ``train_part`` (fraction of the images), ``data_s`` (waiting for images), ``num_images`` and, for
        classification, ``train_acc``; and whether all steps were taken. Raises a DivergedError if
        the loss is not finite. With several `ranks`, each of them calls this method; the clock of rank 0 decides.
        """
        number, num_steps = self.num_epochs, len(self.batches)
        seed_generators(self.recipe.seed, number)
        train_mode(self.network, self.recipe)
        transform = self.batches.transform
        if self.recipe.first_img_size is not None and isinstance(transform, TrainingTransform):
            last_size = self.classifier.blueprint.input.img_size
            transform.img_size = side_in_epoch(number, self.recipe.epochs, self.recipe.first_img_size, last_size)
        self.num_epochs += 1
        start_s = time.perf_counter()
        inputs = self._features or self.batches
        network = self.network if self._features is None else self.classifier.head
        assert network is not None, "cached features are the inputs of a classifier layer"
        batches = self.batches.shuffled_rows(number)
        loaded = inputs.shuffled(batches, partial(ranks.places, in_pairs=self.mixing is not None))
        if ranks.rank:  # dropout, and custom transforms, draw other numbers than on rank 0; mixup draws the same ones
            torch.manual_seed(torch.initial_seed() + ranks.rank)
            if not isinstance(transform, TrainingTransform):
                seed_generators(self.recipe.seed, number, ranks.rank)

        sum_loss = num_right = num_images = 0.0
        num_possible, is_whole = math.inf, True
        for step, (rows, (x, y, *weights)) in enumerate(zip(batches, loaded, strict=True), start=1):
            self.learning_rate.step(number * num_steps + step - 1, num_possible)
            loss, right = self._step(ranks, network, len(rows), x, y, *weights)
            num_images += len(rows)
            is_over, num_possible = 0.0, 0.0
            if ranks.rank == 0:
                # The number of steps before the deadline, validations included; the first are slower than the others.
                seconds, left_s = time.perf_counter() - start_s, deadline.seconds_left()
                image_s, step_s = seconds / num_images, seconds / step
                val_s = validation_s(step_s / self.recipe.batch_size)
                is_over = float(step < num_steps and left_s < validation_s(image_s) + image_s * len(rows))
                num_possible = (left_s - val_s) / (step_s + val_s / num_steps) if step >= LEAST_STEPS else math.inf
            loss, right, is_over, num_possible = ranks.total(loss, right, is_over, num_possible)
            if not math.isfinite(loss):
                raise DivergedError(f"the loss became {loss} in step {step} of epoch {number + 1}")
            if self.ema is not None:
                self.ema.update(self.network, step=number * num_steps + step)
            sum_loss, num_right = sum_loss + loss * len(rows), num_right + right
            if is_over:
                is_whole = False
                break
        part = 1.0 if is_whole else num_images / self.batches.num_in_pass
        metrics = {"train_loss": sum_loss / num_images, "train_part": part, "data_s": self.batches.waited_s}
        metrics["num_images"] = num_images
        if self.problem.has_classes:
            metrics["train_acc"] = num_right / num_images
        return metrics, is_whole

    def _step(
        self,
        ranks: Ranks,
        network: torch.nn.Module,
        num_images: int,
        x: torch.Tensor,
        y: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> tuple[float, float]:
        """Take one step with a batch of `num_images` in all ranks, of which `x` are those of this one.

        Returns this rank's part of the loss, and of the number of images classified correctly before the step.
        """
        targets, problem, smoothing = y, self.problem, self.recipe.smoothing
        if self.mixing is not None:
            x, targets, weights = self.mixing(x, y, weights)
            smoothing = 0.0  # part of the mixed targets already
        with ranks.batch_norm(), self.classifier.numerics.autocast():
            outputs = network(x)
        by_class = None if self.class_weights is None else torch.as_tensor(self.class_weights, device=y.device)
        q = self.recipe.robust_loss or 0.0
        loss = problem.loss(outputs, targets, smoothing, by_class, weights, q) * (len(y) / num_images)
        self.optimizer.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        ranks.sum_gradients(network.parameters())
        if self.recipe.clip_grad:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_grad)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss.item(), problem.num_right(outputs, y)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that exact resumption needs."""
        return {
            "network": self.network.state_dict(),
            "ema": self.ema and self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "learning_rate": self.learning_rate.place,
            "num_epochs": self.num_epochs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty if the steps before were not taken in float16
            self._scaler.load_state_dict(state["scaler"])
        self.learning_rate.place = state["learning_rate"]
        self.num_epochs = state["num_epochs"]


def seed_generators(*parts: int) -> None:
    """Seed the random generators of torch, Python and NumPy; timm's mixup and custom transforms use the last two."""
    seed = int(np.random.SeedSequence(parts).generate_state(1)[0])
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
