"""One trial: a recipe, epoch after epoch, judged when somebody needs it, and then ready to continue."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
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
from saccade.training.trial.checkpoint import load_state, state_writer
from saccade.training.trial.drafts import Draft, Drafts
from saccade.training.trial.early_stopping import EarlyStopping
from saccade.training.trial.failures import explained_faults
from saccade.training.trial.frozen import train_mode
from saccade.training.trial.judged_epochs import judged_epochs
from saccade.training.trial.network_costs import network_costs
from saccade.training.trial.numerics import (
    choose_for_probe,
    choose_for_trial,
    lighten,
    numerics_of_state,
    numerics_state,
)
from saccade.training.trial.steps import Steps, seed_generators
from saccade.training.trial.validation import Validation
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
        if self.steps.kept is None:
            lighten(self.classifier, self.recipe)
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
        """Do the probe and the epochs that are still to be done; tell of each whether it is whole."""
        if not self.is_probed:
            self.is_probed = True
            self._choose_for_probe(deadline.seconds_left())
            start_s = time.perf_counter()
            if (probe := self._fit_head(deadline)) is not None:
                if self.steps.ema is not None:
                    self.steps.ema.set(self.network)
                yield self._judge(job.trial, deadline, start_s, probe.figures, is_whole=True, probe=probe), True
        until = self.recipe.epochs if job.until_epoch is None else min(job.until_epoch, self.recipe.epochs)
        if self.num_epochs < until and not self.stop_reason:
            self.choose_numerics(deadline.seconds_left())
        num_train, num_val = self.steps.batches.num_in_pass, self.validation.batches.num_images
        is_judged = judged_epochs(self.recipe, num_train, num_val, None)
        while self.num_epochs < until and not self.stop_reason:
            start_s = time.perf_counter()
            with self.numerics.threads():
                figures, is_whole = self._train(deadline, lambda epoch: epoch == until or is_judged(epoch))
            yield self._judge(job.trial, deadline, start_s, figures, is_whole), is_whole

    def _train(self, deadline: Deadline, is_judged: Callable[[int], bool]) -> tuple[dict[str, float], bool]:
        """Train to the next epoch that is to be judged, or to one after which there may be no time for another."""
        data_s = 0.0
        while True:
            start_s = time.perf_counter()
            figures, is_whole = self.steps.take_epoch(deadline, self._validation_s)
            data_s += figures["data_s"]
            epoch_s = time.perf_counter() - start_s
            next_s = epoch_s + self._validation_s(epoch_s / self.steps.batches.num_in_pass)
            if not is_whole or is_judged(self.num_epochs) or deadline.seconds_left() < next_s:
                return {**figures, "data_s": data_s}, is_whole

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
            weights = drafts.begin("best", partial(save_file, self.steps.weights()))
            state = drafts.begin("last", state_writer(self.state_dict())) if is_continued else None
            val_start_s = time.perf_counter()
            figures = {**figures, **self.validation.figures(self.steps.judged, deadline, is_frozen=probe is not None)}
            val_s = time.perf_counter() - val_start_s
            self.val_s = val_s if probe is None else None  # by kept features it may have taken no time at all
            if probe is not None:
                figures |= self.validation.cv_score(probe)
            score = self._take_score(figures, weights)
            if probe is not None and not self.task.is_refit:
                kept_s = time.perf_counter()
                # Once more takes less than all that was done so far. Of drawn images nobody knows the shares.
                learns = self.steps.draw is None and deadline.seconds_left() > kept_s - start_s
                outputs, by_class = self.validation.outputs, self.steps.class_weights
                keep_probe(self.classifier, self.task, probe, outputs, self.folder, by_class, learns)
                train_s += time.perf_counter() - kept_s
            checkpoint = None if state is None else self._keep_state(state)
        costs = network_costs(self.classifier, self.task.costs)
        metrics = {**figures, **costs, "train_s": train_s, "val_s": val_s, "write_s": drafts.seconds}
        seconds = time.perf_counter() - start_s
        return EpochDone(trial, self.num_epochs, score, seconds, metrics, checkpoint, is_last)

    def _take_score(self, figures: dict[str, float], weights: Draft) -> float:
        """Return the score, having kept the weights if they are worth it, and decided whether to go on."""
        score, epoch = self.task.metric.score(figures[self.task.metric.name]), self.num_epochs
        if not math.isfinite(score):
            raise DivergedError(f"{self.task.metric.name} on the validation images is {score}")
        if score > self.best_score or self.task.is_refit:
            self.best_score, self.best_epoch = score, epoch
            self._keep(weights, weights_file(self.folder, epoch), outputs_file(self.folder, epoch))
        elif self.steps.learning_rate.progress >= NEAR_END:
            self._keep(weights, *end_files(self.folder, epoch))
        if not self.task.is_refit:
            self.stop_reason = self.stopping.reason(score, epoch)
        return score

    def _validation_s(self, train_per_image_s: float) -> float:
        """Return how long validation will take: as long as last time, or guessed from training at first."""
        if self.val_s is not None:
            return self.val_s
        return 0.5 * train_per_image_s * self.validation.batches.num_images  # backward takes twice as long as forward

    def _keep(self, weights: Draft, path: Path, outputs: Path) -> None:
        if self.validation.outputs is not None and not self.task.is_refit:
            save_outputs(outputs, self.validation.outputs)
        weights.keep(path)

    def _keep_state(self, state: Draft) -> str:
        path = state_file(self.folder, self.num_epochs)
        judgement_file(path).write_text(json.dumps(self.judged_state_dict()))
        state.keep(path)
        return path.name

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
            "is_probed": self.is_probed,
            **self.steps.state_dict(),
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
        self.steps.load_state_dict(state)
        self.stopping.load_state_dict(state["stopping"])
        self.is_probed = state["is_probed"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        self.stop_reason = state["stop_reason"]
