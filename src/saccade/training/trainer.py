"""One trial: a recipe, epoch after epoch, judged after each, and always ready to continue."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from timm.utils import ModelEmaV3

from saccade.data.augmentation import TrainingTransform
from saccade.data.batches import Batches
from saccade.deadline import Deadline
from saccade.errors import DivergedError
from saccade.events import EpochDone
from saccade.models.network import check_takes_size
from saccade.training.checkpoint import load_state, state_writer
from saccade.training.classifier import new_classifier
from saccade.training.device import Numerics, choose_device
from saccade.training.drafts import Draft, Drafts
from saccade.training.early_stopping import EarlyStopping
from saccade.training.faults import explained_faults
from saccade.training.final_probe import keep_probe
from saccade.training.frozen import FeatureBatches, KeptOutputs, feature_batches, freeze, is_body_fixed, train_mode
from saccade.training.imbalance import balanced_sampling_weights, class_weights, loss_weights
from saccade.training.network_costs import network_costs
from saccade.training.numerics_of_trials import (
    choose_for_probe,
    choose_for_trial,
    lighten,
    numerics_of_state,
    numerics_state,
)
from saccade.training.optimisation import LearningRate, Mixing, make_optimizer, side_in_epoch
from saccade.training.probe import Probe, fit_head, most_probed
from saccade.training.recipe import Recipe
from saccade.training.robust import robust_loss
from saccade.training.streams import Forward
from saccade.training.task import ImageTask
from saccade.training.train_batches import train_batches
from saccade.training.trial_files import (
    BLUEPRINT,
    drop_files,
    end_files,
    judgement_file,
    outputs_file,
    save_outputs,
    state_file,
    weights_file,
)
from saccade.training.validation import Validation
from saccade.trial import Decision, Job, Reporter

LEAST_STEPS = 4
"""Steps of an epoch after which it is known how long they take."""

NEAR_END = 0.9
"""The part of the learning rate's schedule from which on a training is as good as at its end."""

PROBE_PART = 0.6
"""The part of the time that is left in which a probe may look at images; what it has not seen by then is left out."""


class Trainer:
    """Trains one network by one recipe.

    Each epoch draws its random numbers from a seed of its own, and the learning rate depends on the step's number
    alone. So an epoch is a function of the state before it, and training that continues from a checkpoint gives the
    same numbers as training that never stopped.

    Parameters
    ----------
    task : ImageTask
        The images and what is asked of them.
    recipe : Recipe
        How to train.
    folder : Path
        Where the files of `saccade.training.trial_files` go.
    """

    def __init__(self, task: ImageTask, recipe: Recipe, folder: Path) -> None:
        self.task, self.recipe, self.folder = task, recipe, folder
        _seed(recipe.seed)
        numerics = Numerics.choose(choose_device(task.device), recipe.amp, recipe.channels_last, recipe.compile)
        start = {"pretrained": False, "weights": None} if task.start is not None else {}  # its weights replace all
        self.classifier = new_classifier(
            recipe.model_copy(update=start), task.problem, numerics, task.weights, is_loaded_next=task.start is not None
        )
        self.network = self.classifier.network
        if recipe.first_img_size is not None:
            name, in_chans = self.classifier.blueprint.name, recipe.in_chans
            check_takes_size(self.network, name, in_chans, recipe.first_img_size)
        if task.start is not None:
            self.network.load_state_dict(load_file(task.start))
        freeze(self.network, recipe)
        self.ema = ModelEmaV3(self.network, recipe.model_ema_decay, use_warmup=True) if recipe.model_ema else None
        targets, problem = task.train.targets, task.problem
        self.class_weights = class_weights(recipe.class_weight, targets, problem, task.class_names)
        self.draw = balanced_sampling_weights(targets, problem) if recipe.balanced_sampling else None
        spec = self.classifier.blueprint.input
        self.train_batches = train_batches(task, recipe, spec, numerics.device, self.draw)
        train_mode(self.network, self.recipe)
        # Of a body that stays as it is, judging needs the outputs once; and so does training, where nothing varies.
        self.kept = KeptOutputs(self.classifier) if is_body_fixed(self.network) else None
        self.validation = Validation(self.classifier, task, max(32, recipe.batch_size), self.kept)
        self.features: FeatureBatches | None = None
        self.mixing = Mixing(recipe, task.problem) if recipe.mixup or recipe.cutmix else None
        self.optimizer = make_optimizer(self.network, recipe)
        self.learning_rate = LearningRate(self.optimizer, recipe, len(self.train_batches))
        self.scaler = torch.amp.GradScaler(enabled=numerics.dtype is torch.float16)
        self.has_begun = False
        self.stopping = EarlyStopping(recipe)
        self.stop_reason = ""
        self.num_epochs = 0
        self.is_probed = not (recipe.starts_pretrained and recipe.linear_probe) or task.start is not None
        self.best_score = -math.inf
        self.best_epoch = 0
        self.val_s: float | None = None

    @property
    def numerics(self) -> Numerics:
        """How training is computed; validation is as `Classifier.inference` says."""
        return self.classifier.numerics

    def choose_numerics(self, seconds_left: float = math.inf) -> None:
        """Take the fastest numerics for training and for validation: see `saccade.training.numerics`.

        A trial that continues from a checkpoint of this machine goes on as it began.

        Parameters
        ----------
        seconds_left : float
            Until the deadline.
        """
        train_mode(self.network, self.recipe)
        if self.kept is None:
            lighten(self.classifier, self.recipe)
        if not self.has_begun:
            num_steps, size = self.recipe.epochs * len(self.train_batches), self.validation.batches.batch_size
            self._use(*choose_for_trial(self.classifier, self.recipe, num_steps, size, seconds_left))

    def _choose_for_probe(self, seconds_left: float) -> None:
        """Take the fastest numerics for predictions; what is the fastest for training can wait until there is some."""
        size = self.validation.batches.batch_size
        num_images = min(len(self.task.train.indices), most_probed(self.recipe, self.task.problem.num_outputs)) + len(
            self.task.val.indices
        )
        inference = choose_for_probe(self.classifier, self.recipe, num_images / size, size, seconds_left)
        self.classifier.use(self.numerics, inference)

    def _use(self, training: Numerics, inference: Numerics) -> None:
        self.has_begun = True
        self.classifier.use(training, inference)
        if self.ema is not None:
            replace(training, compiled=False).place(self.ema.module)
        self.scaler = torch.amp.GradScaler(enabled=training.dtype is torch.float16)

    def run(self, job: Job, report: Reporter) -> str:
        """Train until the job's or the recipe's last epoch, the deadline, or the study's word; return why it ended."""
        deadline = Deadline(job.seconds_left)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / BLUEPRINT).write_text(json.dumps(self.classifier.blueprint.to_json(), indent=2) + "\n")
        with explained_faults(self.recipe, self.folder):
            for event, is_whole in self._reports(job, deadline):
                decision = report(event)
                self._drop_superseded(event)  # the study has the report now
                if decision is not Decision.CONTINUE:
                    return "stopped by the scheduler"
                if not is_whole or deadline.seconds_left() <= (self.val_s or 0.0):
                    return "time limit"
        return self.stop_reason

    def _reports(self, job: Job, deadline: Deadline) -> Iterator[tuple[EpochDone, bool]]:
        """Do the probe and the epochs that are still to be done; tell of each whether it is whole."""
        if not self.is_probed:
            self.is_probed = True
            self._choose_for_probe(deadline.seconds_left())
            start_s = time.perf_counter()
            if (probe := self._fit_head(deadline)) is not None:
                if self.ema is not None:
                    self.ema.set(self.network)
                yield self._judge(job.trial, deadline, start_s, probe.figures, is_whole=True, probe=probe), True
        until = self.recipe.epochs if job.until_epoch is None else min(job.until_epoch, self.recipe.epochs)
        if self.num_epochs < until and not self.stop_reason:
            self.choose_numerics(deadline.seconds_left())
        while self.num_epochs < until and not self.stop_reason:
            start_s = time.perf_counter()
            with self.numerics.threads():
                figures, is_whole = self._train(deadline)
            self.num_epochs += 1
            yield self._judge(job.trial, deadline, start_s, figures, is_whole), is_whole

    def _fit_head(self, deadline: Deadline) -> Probe | None:
        """Start the last layer from a linear probe, in which images count as they will in training."""
        train, by_image = self.task.train, self.task.train.weights
        if self.draw is not None:
            by_image = self.draw * len(self.draw) * (1.0 if by_image is None else by_image)
        weights = loss_weights(train.targets, self.task.problem, self.class_weights, by_image)
        # Fitting the layer and judging it take time as well, so looking at the images must end before the deadline.
        left = Deadline(PROBE_PART * deadline.seconds_left()).seconds_left
        recipe = self.recipe
        q, most = recipe.robust_loss, most_probed(recipe, self.task.problem.num_outputs)
        return fit_head(
            self.classifier, self.task.store, train, left, recipe.seed, weights, robust_loss=q, most_images=most
        )

    def _judge(
        self,
        trial: int,
        deadline: Deadline,
        start_s: float,
        figures: dict[str, float],
        is_whole: bool,
        probe: Probe | None = None,
    ) -> EpochDone:
        """Validate after an epoch, and save what must be saved; a part of an epoch cannot be continued exactly."""
        train_s = time.perf_counter() - start_s
        is_last = is_whole and self.num_epochs == self.recipe.epochs
        is_continued = is_whole and not is_last and not self.task.is_refit  # nobody asks for the state after the end
        with Drafts(self.folder) as drafts:  # nothing of what is written changes while the network is judged
            weights = drafts.begin("best", partial(save_file, self._weights()))
            state = drafts.begin("last", state_writer(self.state_dict())) if is_continued else None
            val_start_s = time.perf_counter()
            figures = {**figures, **self.validation.figures(self._judged, deadline, is_frozen=probe is not None)}
            val_s = time.perf_counter() - val_start_s
            self.val_s = val_s if probe is None else None  # by kept features it may have taken no time at all
            if probe is not None:
                figures |= self.validation.surer_score(probe)
            score = self._take_score(figures, weights)
            if probe is not None and not self.task.is_refit:
                kept_s = time.perf_counter()
                # Once more takes less than all that was done so far. Of drawn images nobody knows the shares.
                learns = self.draw is None and deadline.seconds_left() > kept_s - start_s
                keep_probe(
                    self.classifier, self.task, probe, self.validation.outputs, self.folder, self.class_weights, learns
                )
                train_s += time.perf_counter() - kept_s
            checkpoint = None if state is None else self._keep_state(state)
        costs = network_costs(self.classifier, self.task.costs)
        metrics = {**figures, **costs, "train_s": train_s, "val_s": val_s, "write_s": drafts.seconds}
        seconds = time.perf_counter() - start_s
        return EpochDone(trial, self.num_epochs, score, seconds, metrics, checkpoint, is_last)

    def _take_score(self, figures: dict[str, float], weights: Draft) -> float:
        """Return the score, having kept the weights if they are worth it, and decided whether to go on."""
        score = self.task.metric.score(figures[self.task.metric.name])
        if not math.isfinite(score):
            raise DivergedError(f"{self.task.metric.name} on the validation images is {score}")
        if score > self.best_score or self.task.is_refit:
            self.best_score, self.best_epoch = score, self.num_epochs
            self._keep(weights, weights_file(self.folder, self.num_epochs), outputs_file(self.folder, self.num_epochs))
        elif self.learning_rate.progress >= NEAR_END:
            self._keep(weights, *end_files(self.folder, self.num_epochs))
        if not self.task.is_refit:
            self.stop_reason = self.stopping.reason(score)
        return score

    def _train(self, deadline: Deadline) -> tuple[dict[str, float], bool]:
        """Take the steps of an epoch; stop early, after one step at least, when validation could come too late."""
        _seed(self.recipe.seed, self.num_epochs)
        train_mode(self.network, self.recipe)
        self._resize_images()
        first_step = self.num_epochs * len(self.train_batches)
        sum_loss = sum_right = num_images = 0.0
        start_s = time.perf_counter()
        inputs = self._inputs(deadline)
        forward = self._forward()
        for step, (x_BCHW, y, *weights) in enumerate(inputs.shuffled(self.num_epochs), start=1):
            self.learning_rate.step(first_step + step - 1, self._steps_possible(deadline, start_s, step - 1))
            loss, right = self._step(forward, x_BCHW, y, *weights)
            if not math.isfinite(loss):
                raise DivergedError(f"the loss became {loss} in step {step} of epoch {self.num_epochs + 1}")
            if self.ema is not None:
                self.ema.update(self.network, step=first_step + step)
            sum_loss, sum_right, num_images = sum_loss + loss * len(y), sum_right + right, num_images + len(y)
            if step < len(self.train_batches):
                per_image_s = (time.perf_counter() - start_s) / num_images
                if deadline.seconds_left() < self._validation_s(per_image_s) + per_image_s * len(y):
                    part = num_images / self.train_batches.num_in_pass
                    return self._train_figures(sum_loss, sum_right, num_images, part), False
        return self._train_figures(sum_loss, sum_right, num_images), True

    def _steps_possible(self, deadline: Deadline, start_s: float, num_steps: int) -> float:
        """Return how many steps there is time for, going by the steps of this epoch."""
        if num_steps < LEAST_STEPS:  # the first ones are slower than the others
            return math.inf
        step_s = (time.perf_counter() - start_s) / num_steps
        val_s = self._validation_s(step_s / self.recipe.batch_size)
        return (deadline.seconds_left() - val_s) / (step_s + val_s / len(self.train_batches))

    def _resize_images(self) -> None:
        """Set the size of the training images for this epoch, where it changes."""
        first, transform = self.recipe.first_img_size, self.train_batches.transform
        if first is not None and isinstance(transform, TrainingTransform):
            last = self.classifier.blueprint.input.img_size
            transform.img_size = side_in_epoch(self.num_epochs, self.recipe.epochs, first, last)

    def _inputs(self, deadline: Deadline) -> Batches | FeatureBatches:
        """Return what a pass goes over: training images, or what frozen layers make of them where that is always so."""
        if self.kept is not None and self.mixing is None and self.features is None:
            self.features = feature_batches(self.classifier, self.train_batches, deadline.seconds_left)
            train_mode(self.network, self.recipe)
        return self.features or self.train_batches

    def _forward(self) -> Forward:
        """Return what an epoch's inputs go through."""
        if self.features is None:
            return Forward(self.network, self.numerics)
        assert self.classifier.head is not None, "features are those before the last layer"
        return Forward(self.classifier.head, replace(self.numerics, num_streams=1))

    def _step(
        self, forward: Forward, x_BCHW: torch.Tensor, y: torch.Tensor, weights: torch.Tensor | None = None
    ) -> tuple[float, float]:
        """Take one step; return the loss and how many images were classified rightly before it."""
        targets, problem, smoothing = y, self.task.problem, self.recipe.smoothing
        if self.mixing is not None:
            x_BCHW, targets, weights = self.mixing(x_BCHW, y, weights)
            smoothing = 0.0  # part of the mixed targets already
        outputs = forward(x_BCHW)
        by_class = None if self.class_weights is None else torch.as_tensor(self.class_weights, device=y.device)
        q = self.recipe.robust_loss or 0.0
        loss = robust_loss(problem, outputs, targets, q, smoothing, by_class, weights)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_grad:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item(), problem.num_right(outputs, y)

    def _train_figures(
        self, sum_loss: float, sum_right: float, num_images: float, part: float = 1.0
    ) -> dict[str, float]:
        figures = {
            "train_loss": sum_loss / num_images,
            "train_part": part,
            "data_s": self.train_batches.waited_s,
        }
        if self.task.problem.is_classification:
            figures["train_acc"] = sum_right / num_images
        return figures

    def _validation_s(self, train_per_image_s: float) -> float:
        """Return how long validation will take: as long as last time, or guessed from training at first."""
        if self.val_s is not None:
            return self.val_s
        return 0.5 * train_per_image_s * self.validation.batches.num_images  # backward takes twice as long as forward

    @property
    def _judged(self) -> torch.nn.Module:
        """The network that is judged, and whose weights are kept."""
        return self.network if self.ema is None else self.ema.module

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.contiguous().cpu() for name, tensor in self._judged.state_dict().items()}

    def _keep(self, weights: Draft, path: Path, outputs: Path) -> None:
        if self.validation.outputs is not None and not self.task.is_refit:
            save_outputs(outputs, self.validation.outputs)
        weights.keep(path)

    def _keep_state(self, state: Draft) -> str:
        path = state_file(self.folder, self.num_epochs)
        judgement_file(path).write_text(json.dumps(self.judged_state_dict()))
        state.keep(path)
        return str(path)

    def _drop_superseded(self, report: EpochDone) -> None:
        """Remove what the files that this report speaks of have superseded."""
        drop_files(self.folder, "best", before_epoch=self.best_epoch)
        drop_files(self.folder, "end", before_epoch=self.num_epochs)
        if report.checkpoint is not None or report.is_last:
            drop_files(self.folder, "last", before_epoch=report.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return all that training must have to continue exactly, but for what `judged_state_dict` returns."""
        return {
            "numerics": numerics_state(self.classifier) if self.has_begun else None,
            "network": self.network.state_dict(),
            "ema": self.ema and self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "learning_rate": self.learning_rate.place,
            "is_probed": self.is_probed,
            "num_epochs": self.num_epochs,
        }

    def judged_state_dict(self) -> dict[str, Any]:
        """Return what the latest epoch's judgement has changed."""
        return {
            "stopping": self.stopping.state_dict(),
            "stop_reason": self.stop_reason,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
        }

    def load_checkpoint(self, path: Path) -> None:
        """Continue from the state in a file, and from the judgement beside it."""
        device = self.numerics.device
        state = load_state(path, device) | json.loads(judgement_file(path).read_text())
        if (numerics := numerics_of_state(state.get("numerics"), device)) is not None:
            self._use(*numerics)
        self.network.load_state_dict(state["network"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.stopping.load_state_dict(state["stopping"])
        self.learning_rate.place = state["learning_rate"]
        self.is_probed, self.num_epochs = state["is_probed"], state["num_epochs"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        self.stop_reason = state["stop_reason"]


def _seed(*parts: int) -> None:
    """Seed what a trial draws from: torch, and the global generators that timm's mixup and own transforms use."""
    seed = int(np.random.SeedSequence(parts).generate_state(1)[0])
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
