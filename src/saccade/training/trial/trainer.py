"""One trial: a recipe, epoch after epoch, judged when somebody needs it, and then ready to continue."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from saccade.deadline import Deadline
from saccade.errors import DivergedError
from saccade.events import EpochDone
from saccade.models.network import check_takes_size
from saccade.numerics.device import Numerics, choose_device
from saccade.study.trial import Decision, Job, Reporter
from saccade.training.imbalance import loss_weights
from saccade.training.probes.final_probe import keep_probe
from saccade.training.probes.probe import Probe, fit_head, most_probed
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.checkpoint import load_state, save_state
from saccade.training.trial.early_stopping import EarlyStopping
from saccade.training.trial.failures import explained_faults
from saccade.training.trial.frozen import train_mode
from saccade.training.trial.network_costs import network_costs
from saccade.training.trial.numerics import (
    choose_for_probe,
    choose_for_trial,
    numerics_of_state,
    numerics_state,
)
from saccade.training.trial.steps import Steps, seed_generators
from saccade.training.trial.validation import Validation
from saccade.training.trial_files import (
    BLUEPRINT,
    drop_files,
    end_files,
    outputs_file,
    save_outputs,
    state_file,
    weights_file,
)

NEAR_END = 0.9
"""The part of the learning rate's schedule from which on a training is as good as at its end."""

PROBE_PART = 0.6
"""The part of the time that is left in which a probe may look at images; what it has not seen by then is left out."""


class Trainer:
    """Trains one network by one recipe.

    An epoch is a function of the state before it (see `saccade.training.trial.steps.Steps`), so that training that
    continues from a checkpoint gives the same numbers as training that never stopped.

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
        seed_generators(recipe.seed)
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
        self.steps = Steps(self.classifier, task, recipe)
        self.validation = Validation(self.classifier, task, max(32, recipe.batch_size), self.steps.kept)
        self.has_begun = False
        self.stopping = EarlyStopping(recipe)
        self.stop_reason = ""
        self.is_probed = not (recipe.starts_pretrained and recipe.linear_probe) or task.start is not None
        self.best_score = -math.inf
        self.best_epoch = 0
        self.val_s: float | None = None

    @property
    def numerics(self) -> Numerics:
        """How training is computed; validation is as `Classifier.inference` says."""
        return self.classifier.numerics

    @property
    def num_epochs(self) -> int:
        """Epochs that were trained so far."""
        return self.steps.num_epochs

    def choose_numerics(self, seconds_left: float = math.inf) -> None:
        """Take the fastest numerics for training and for validation: see `saccade.numerics.choice`.

        A trial that continues from a checkpoint of this machine goes on as it began.

        Parameters
        ----------
        seconds_left : float
            Until the deadline.
        """
        train_mode(self.network, self.recipe)
        if not self.has_begun:
            num_steps, size = self.recipe.epochs * len(self.steps.batches), self.validation.batches.batch_size
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
        self.steps.use(training)

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
        """Fit the probe and train the remaining epochs; yield each report, and whether its epoch is whole."""
        if not self.is_probed:
            self.is_probed = True
            self._choose_for_probe(deadline.seconds_left())
            start_s = time.perf_counter()
            if (probe := self._fit_head(deadline)) is not None:
                if self.steps.ema is not None:
                    self.steps.ema.set(self.network)
                yield self._validate(job.trial, deadline, start_s, probe.figures, is_whole=True, probe=probe), True
        last_epoch = self.recipe.epochs if job.until_epoch is None else min(job.until_epoch, self.recipe.epochs)
        if self.num_epochs < last_epoch and not self.stop_reason:
            self.choose_numerics(deadline.seconds_left())
        while self.num_epochs < last_epoch and not self.stop_reason:
            start_s = time.perf_counter()
            with self.numerics.threads():
                metrics, is_whole = self._train(deadline, last_epoch)
            yield self._validate(job.trial, deadline, start_s, metrics, is_whole), is_whole

    def _train(self, deadline: Deadline, last_epoch: int) -> tuple[dict[str, float], bool]:
        """Train to the next epoch to validate: by `val_interval`, the last one, or the last before the deadline."""
        data_s = 0.0
        while True:
            start_s = time.perf_counter()
            metrics, is_whole = self.steps.take_epoch(deadline, self._validation_s)
            data_s += metrics["data_s"]
            epoch_s = time.perf_counter() - start_s
            next_s = epoch_s + self._validation_s(epoch_s / self.steps.batches.num_in_pass)
            is_validated = self.num_epochs % self.recipe.val_interval == 0 or self.num_epochs == last_epoch
            if not is_whole or is_validated or deadline.seconds_left() < next_s:
                return {**metrics, "data_s": data_s}, is_whole

    def _fit_head(self, deadline: Deadline) -> Probe | None:
        """Start the last layer from a linear probe, in which images count as they will in training."""
        train, by_image = self.task.train, self.task.train.weights
        if (draw := self.steps.draw) is not None:
            by_image = draw * len(draw) * (1.0 if by_image is None else by_image)
        weights = loss_weights(train.targets, self.task.problem, self.steps.class_weights, by_image)
        # Fitting the layer and judging it take time as well, so looking at the images must end before the deadline.
        left = Deadline(PROBE_PART * deadline.seconds_left()).seconds_left
        recipe = self.recipe
        q, most = recipe.robust_loss, most_probed(recipe, self.task.problem.num_outputs)
        return fit_head(
            self.classifier, self.task.store, train, left, recipe.seed, weights, robust_loss=q, most_images=most
        )

    def _validate(
        self,
        trial: int,
        deadline: Deadline,
        start_s: float,
        metrics: dict[str, float],
        is_whole: bool,
        probe: Probe | None = None,
    ) -> EpochDone:
        """Validate after an epoch, and write weights and checkpoint; part of an epoch cannot be resumed exactly."""
        train_s = time.perf_counter() - start_s
        val_start_s = time.perf_counter()
        metrics = {**metrics, **self.validation.figures(self.steps.judged, deadline, is_frozen=probe is not None)}
        val_s = time.perf_counter() - val_start_s
        self.val_s = val_s if probe is None else None  # cached features may have taken no time at all
        if probe is not None:
            metrics |= self.validation.cv_score(probe)
        score, epoch = self.task.metric.score(metrics[self.task.metric.name]), self.num_epochs
        if not math.isfinite(score):
            raise DivergedError(f"{self.task.metric.name} on the validation images is {score}")
        is_last = is_whole and epoch == self.recipe.epochs
        is_best = score > self.best_score or self.task.is_refit
        if is_best:
            self.best_score, self.best_epoch = score, epoch
        if not self.task.is_refit:
            self.stop_reason = self.stopping.reason(score, epoch)
        if probe is not None and not self.task.is_refit:
            kept_s = time.perf_counter()
            # One more fit takes less time than all before. With drawn images the class priors are not known.
            learns = self.steps.draw is None and deadline.seconds_left() > kept_s - start_s
            outputs, by_class = self.validation.outputs, self.steps.class_weights
            keep_probe(self.classifier, self.task, probe, outputs, self.folder, by_class, learns)
            train_s += time.perf_counter() - kept_s
        # Everything is on disk before the report, so that the study never names a file that does not exist.
        write_start_s = time.perf_counter()
        if is_best:
            self._write_weights(weights_file(self.folder, epoch), outputs_file(self.folder, epoch))
        elif self.steps.learning_rate.progress >= NEAR_END:
            self._write_weights(*end_files(self.folder, epoch))
        checkpoint = None
        if is_whole and not is_last and not self.task.is_refit:  # nothing resumes after the end
            path = state_file(self.folder, epoch)
            save_state(path, self.state_dict())
            checkpoint = path.name
        write_s = time.perf_counter() - write_start_s
        costs = network_costs(self.classifier, self.task.costs)
        metrics = {**metrics, **costs, "train_s": train_s, "val_s": val_s, "write_s": write_s}
        seconds = time.perf_counter() - start_s
        return EpochDone(trial, epoch, score, seconds, metrics, checkpoint, is_last)

    def _validation_s(self, train_per_image_s: float) -> float:
        """Return how long validation takes: as long as last time, or an estimate from training at first."""
        if self.val_s is not None:
            return self.val_s
        return 0.5 * train_per_image_s * self.validation.batches.num_images  # backward takes twice as long as forward

    def _write_weights(self, path: Path, outputs: Path) -> None:
        """Write the outputs for the validation images, then the weights; each file is complete or absent."""
        if self.validation.outputs is not None and not self.task.is_refit:
            save_outputs(outputs, self.validation.outputs)
        temporary = path.with_name(path.name + ".part")
        save_file(self.steps.weights(), temporary)
        temporary.replace(path)

    def _drop_superseded(self, report: EpochDone) -> None:
        """Remove what the files that this report speaks of have superseded."""
        drop_files(self.folder, "best", before_epoch=self.best_epoch)
        drop_files(self.folder, "end", before_epoch=self.num_epochs)
        if report.checkpoint is not None or report.is_last:
            drop_files(self.folder, "last", before_epoch=report.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that exact resumption needs."""
        return {
            "numerics": numerics_state(self.classifier) if self.has_begun else None,
            "is_probed": self.is_probed,
            "stopping": self.stopping.state_dict(),
            "stop_reason": self.stop_reason,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            **self.steps.state_dict(),
        }

    def load_checkpoint(self, path: Path) -> None:
        """Resume from a checkpoint file."""
        device = self.numerics.device
        state = load_state(path, device)
        if (numerics := numerics_of_state(state.get("numerics"), device)) is not None:
            self._use(*numerics)
        self.steps.load_state_dict(state)
        self.stopping.load_state_dict(state["stopping"])
        self.is_probed = state["is_probed"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        self.stop_reason = state["stop_reason"]
