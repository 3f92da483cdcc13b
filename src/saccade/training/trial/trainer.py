"""One trial: train a recipe epoch by epoch, validate, write weights and checkpoints, and report."""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from safetensors import SafetensorError

from saccade.data.store.store import ImageStore
from saccade.deadline import Deadline
from saccade.errors import DiskFullError, DivergedError, HyperparameterError, OutOfMemoryError, is_disk_full
from saccade.events import ENGINE_GAIN, EpochDone
from saccade.inference.classifier import Classifier
from saccade.models.network import check_takes_size, classifier_parameters
from saccade.models.weights import read_weights, write_weights
from saccade.numerics.choice import (
    INFERENCE_PART,
    PREDICTION_PART,
    TRAINING_PART,
    candidates,
    choose_numerics,
    num_steps_for_measuring,
    processor,
)
from saccade.numerics.device import Numerics, choose_device, cpu_threads, is_half_native
from saccade.study.trial import Decision, Job, LocalFiles, Reporter, Trainable
from saccade.study.trial_files import LocalTrialFiles, TrialFiles, parse_name
from saccade.training.imbalance import loss_weights
from saccade.training.probes.final_probe import final_probe
from saccade.training.probes.probe import Probe, fit_head, max_probe_images
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.lora import add_updates, merged_weights
from saccade.training.recipes.optimisation import make_optimizer
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.frozen import freeze, train_mode
from saccade.training.trial.network_costs import network_costs
from saccade.training.trial.ranks import ALONE, EPOCH, RELEASE, Ranks, data_parallel, join
from saccade.training.trial.steps import Steps, seed_generators
from saccade.training.trial.validation import Validation
from saccade.training.trial_files import (
    BEST,
    BEST_OUTPUTS,
    BLUEPRINT,
    END,
    END_OUTPUTS,
    LAST,
    PROBE,
    load_state,
    origin,
    save_outputs,
    save_state,
)

NEAR_END = 0.9  # progress of the schedule from which weights are written even if they are not the best so far
STEP_PASSES = 3.0  # time of a training step in forward passes of its images
PROBE_PART = 0.6  # of the remaining time in which a probe may extract features; other images are left out
LIMIT_PART = 0.04  # fraction of the time until a deadline that measuring numerics may take
FORWARD_PART = 1 / 3  # arithmetic of a forward pass relative to a training step of the same images


class ImageTrainable(Trainable):
    """Trains networks of one task."""

    def __init__(self, task: ImageTask) -> None:
        self.task = task

    def train(self, job: Job, report: Reporter) -> str:
        """Train the job's recipe, from its checkpoint if there is one."""
        assert job.files is not None
        deadline = Deadline(job.seconds_left)
        with cpu_threads(self.task.num_threads), ranks_of(self.task) as ranks:
            trainer = Trainer(self.task, Recipe.of(job.config), job.files, job.trial, ranks)
            if job.checkpoint is not None:
                trainer.load_checkpoint(job.checkpoint)
            return trainer.run(replace(job, seconds_left=deadline.seconds_left()), report)

    def portable(self, job: Job) -> tuple[Job, LocalFiles]:
        """Return the job with the file of its pretrained weights, and the files of `ImageTask.portable`."""
        config, files = self.task.portable(job.config, job.seconds_left)
        return replace(job, config=config), files


class Trainer:
    """Trains one network by one recipe, and writes the files of `saccade.training.trial_files` to a folder.

    An epoch is a function of the state before it (see `saccade.training.trial.steps.Steps`), so a resumed trial gives
    the same numbers as one that never stopped.
    """

    def __init__(
        self, task: ImageTask, recipe: Recipe, files: TrialFiles, trial: int = 0, ranks: Ranks = ALONE
    ) -> None:
        self.task, self.recipe, self.files, self.trial, self.ranks = task, recipe, files, trial, ranks
        if recipe.compile and ranks.size > 1:
            raise HyperparameterError(
                "compile=True is not supported with several processes for a trial. Remove compile, or pass "
                "nprocs_per_trial=1"
            )
        seed_generators(recipe.seed)
        numerics = Numerics.choose(choose_device(task.device), recipe.amp, recipe.channels_last, recipe.compile)
        # With start weights or those of rank 0, which replace all others, pretrained ones are not read.
        is_loaded_next = task.start is not None or ranks.rank > 0
        source = recipe.model_copy(update={"pretrained": False, "weights": None}) if is_loaded_next else recipe
        self.classifier = new_classifier(source, task.problem, numerics, task.weights, is_loaded_next=is_loaded_next)
        self.network = self.classifier.network
        if recipe.first_img_size is not None:
            name, in_chans = self.classifier.blueprint.name, recipe.in_chans
            check_takes_size(self.network, name, in_chans, recipe.first_img_size)
        if task.start is not None and ranks.rank == 0:
            own = {} if task.start_has_head else self.network.state_dict()
            head = {name: own[name] for name in classifier_parameters(self.network) if name in own}
            self.network.load_state_dict({**read_weights(task.start)[0], **head})
        freeze(self.network, recipe)
        if recipe.lora_rank is not None:
            add_updates(self.network, recipe.lora_rank, str(recipe.model))
        self.steps = Steps(self.classifier, task, recipe, make_optimizer(self.network, recipe))
        self.validation = Validation(self.classifier, task, max(32, recipe.batch_size), self.steps.kept)
        self.has_numerics = False
        self.stopping = EarlyStopping(recipe)
        self.stop_reason = ""
        has_backbone_only = recipe.starts_pretrained if task.start is None else not task.start_has_head
        self.is_probed = not (has_backbone_only and recipe.linear_probe)
        self.best_score = -math.inf
        self.best_epoch = 0
        self.val_s: float | None = None
        self._probe_image_s = 0.0  # of a forward pass and the fit of a probe; 0 if its features were known

    def choose_numerics(self, seconds_left: float = math.inf) -> None:
        """Choose the fastest numerics for training and validation; a trial resumed on this machine keeps its own."""
        train_mode(self.network, self.recipe)
        if not self.has_numerics:
            num_steps, size = self.recipe.epochs * len(self.steps.batches), self.validation.batches.batch_size
            own = self.recipe.model_copy(update={"batch_size": -(-self.recipe.batch_size // self.ranks.size)})
            self._use(*choose_for_trial(self.classifier, own, num_steps, size, seconds_left))

    def _use(self, training: Numerics, inference: Numerics) -> None:
        self.has_numerics = True
        self.classifier.use(training, inference)
        self.steps.use(training)

    def run(self, job: Job, report: Reporter) -> str:
        """Train until the job's or the recipe's last epoch, the deadline, or a decision to stop; return the reason."""
        deadline = Deadline(job.seconds_left)
        blueprint = json.dumps(self.classifier.blueprint.to_json(), indent=2) + "\n"
        with explained_failures(self.recipe, self.files.folder(self.trial)):
            self.files.put(self.trial, BLUEPRINT, None, lambda path: path.write_text(blueprint))
            for event, is_whole in self._reports(job.until_epoch, deadline):
                decision = report(event)
                # The study has recorded the report, so files that it replaces are not needed any more.
                self.files.drop(self.trial, BEST, BEST_OUTPUTS, before_epoch=self.best_epoch)
                self.files.drop(self.trial, END, END_OUTPUTS, before_epoch=self.steps.num_epochs)
                if event.checkpoint is not None or event.is_last:
                    self.files.drop(self.trial, LAST, before_epoch=event.epoch)
                if decision is not Decision.CONTINUE:
                    return "stopped by the scheduler"
                if not is_whole or deadline.seconds_left() <= self._next_report_s():
                    return "time limit"
        return self.stop_reason

    def _reports(self, until_epoch: int | None, deadline: Deadline) -> Iterator[tuple[EpochDone, bool]]:
        """Fit the probe and train the remaining epochs; yield each report, and whether its epoch is whole."""
        if not self.is_probed:
            self.is_probed = True
            # Numerics for inference; those for training are chosen only if there will be any.
            most = max_probe_images(self.recipe, self.task.problem.num_outputs)
            size, num_train = self.validation.batches.batch_size, len(self.task.train.indices)
            num_images = min(num_train, most) + len(self.task.val.indices)
            inference = choose_for_probe(self.classifier, self.recipe, num_images, size, deadline.seconds_left())
            self.classifier.use(self.classifier.numerics, inference)
            start_s = time.perf_counter()
            train, image_weights = self.task.train, self.task.train.weights
            if (draw := self.steps.draw) is not None:
                image_weights = draw * len(draw) * (1.0 if image_weights is None else image_weights)
            probe = fit_head(
                self.classifier,
                self.task.store,
                train,
                # Fitting and validating the layer take time as well, so features must be complete before the deadline.
                Deadline(PROBE_PART * deadline.seconds_left()).seconds_left,
                self.recipe.seed,
                loss_weights(train.targets, self.task.problem, self.steps.class_weights, image_weights),
                robust_loss=self.recipe.robust_loss,
                max_images=most,
            )
            if probe is not None:
                gain = self.classifier.engine_gain
                self._probe_image_s = gain * (time.perf_counter() - start_s) / len(probe.rows)
                if gain != 1:
                    probe.metrics[ENGINE_GAIN] = gain
                if self.steps.ema is not None:
                    self.steps.ema.set(self.network)
                yield self._validate(deadline, start_s, probe.metrics, is_whole=True, probe=probe), True
        last_epoch = self.recipe.epochs if until_epoch is None else min(until_epoch, self.recipe.epochs)
        if self.steps.num_epochs < last_epoch and not self.stop_reason:
            self.choose_numerics(deadline.seconds_left())
        while self.steps.num_epochs < last_epoch and not self.stop_reason:
            start_s = time.perf_counter()
            with self.classifier.numerics.threads():
                metrics, is_whole = self._train(deadline, last_epoch)
            yield self._validate(deadline, start_s, metrics, is_whole), is_whole

    def _train(self, deadline: Deadline, last_epoch: int) -> tuple[dict[str, float], bool]:
        """Train to the next epoch to validate: by `val_interval`, the last one, or the last before the deadline."""
        data_s = num_images = 0.0
        while True:
            start_s = time.perf_counter()
            metrics, is_whole = self._take_epoch(deadline)
            data_s, num_images = data_s + metrics["data_s"], num_images + metrics["num_images"]
            epoch_s = time.perf_counter() - start_s
            next_s = epoch_s + self._validation_s(epoch_s / self.steps.batches.num_in_pass)
            is_validated = self.steps.num_epochs % self.recipe.val_interval == 0 or self.steps.num_epochs == last_epoch
            if not is_whole or is_validated or deadline.seconds_left() < next_s:
                return {**metrics, "data_s": data_s, "num_images": num_images}, is_whole

    def _take_epoch(self, deadline: Deadline) -> tuple[dict[str, float], bool]:
        """Take an epoch, with the other ranks if there are any and each has enough images of each batch."""
        steps, ranks = self.steps, self.ranks
        least = (steps.batches.num_in_pass - 1) // len(steps.batches)  # images of a batch
        if steps.keep_features(deadline) or least < ranks.size * (1 if steps.mixing is None else 2):
            ranks = ALONE
        if ranks.size == 1:
            return steps.take_epoch(deadline, self._validation_s)
        if not ranks.has_trial:
            state = io.BytesIO()
            torch.save(steps.state_dict(), state)
            task = replace(self.task, start=None, weights=None)
            if has_folder := type(task.store) is ImageStore:
                task = replace(task, store=None)  # type: ignore[arg-type]
            trial = task, self.recipe, self.classifier.numerics.to_json(), state.getvalue()
            ranks.share(cloudpickle.dumps(trial))
            if has_folder:
                ranks.share_folder(self.task.store.folder)
            ranks.has_trial = True
        ranks.share(EPOCH)
        with ranks.epoch():
            metrics, is_whole = steps.take_epoch(deadline, self._validation_s, ranks)
        return {**metrics, "num_processes": float(ranks.size)}, is_whole

    def _validate(
        self, deadline: Deadline, start_s: float, metrics: dict[str, float], is_whole: bool, probe: Probe | None = None
    ) -> EpochDone:
        """Validate after an epoch, and write weights and checkpoint; part of an epoch cannot be resumed exactly."""
        train_s = time.perf_counter() - start_s
        val_start_s = time.perf_counter()
        metrics = {**metrics, **self.validation.metrics(self.steps.averaged, deadline, is_probe=probe is not None)}
        val_s = time.perf_counter() - val_start_s
        self.val_s = val_s if probe is None else None  # cached features may have taken no time at all
        if probe is not None:
            metrics |= self.validation.cv_score(probe)
        score, epoch = self.task.metric.score(metrics[self.task.metric.name]), self.steps.num_epochs
        if not math.isfinite(score):
            raise DivergedError(f"{self.task.metric.name} on the validation images is {score}")
        is_best = score > self.best_score or self.task.is_refit
        if is_best:
            self.best_score, self.best_epoch = score, epoch
        if not self.task.is_refit:
            self.stop_reason = self.stopping.reason(score, epoch)
        if probe is not None and not self.task.is_refit:
            keep_start_s = time.perf_counter()
            # One more fit takes less time than everything before. Class priors of drawn images are not those of labels,
            # and validation images have no soft targets.
            refits = (
                self.steps.draw is None
                and self.task.train.soft is None
                and deadline.seconds_left() > keep_start_s - start_s
            )
            outputs, by_class = self.validation.outputs, self.steps.class_weights
            final = final_probe(self.classifier, self.task, probe, outputs, by_class, refits)
            if final is not None:
                self.files.put(self.trial, PROBE, None, final.save)
            train_s += time.perf_counter() - keep_start_s
        # Everything is on disk before the report, so the study never names a file that does not exist.
        write_start_s = time.perf_counter()
        if is_best:
            self._write_weights(BEST, BEST_OUTPUTS)
        elif self.steps.learning_rate.progress >= NEAR_END:
            self._write_weights(END, END_OUTPUTS)
        is_last = is_whole and epoch == self.recipe.epochs
        checkpoint = None
        if is_whole and not is_last and not self.task.is_refit:  # after its end a trial is never resumed
            state = self.state_dict()
            checkpoint = self.files.put(self.trial, LAST, epoch, lambda path: save_state(path, state))
        write_s = time.perf_counter() - write_start_s
        names = dict.fromkeys(["image_ms", *self.task.costs])
        costs = network_costs(self.classifier, list(names), self.validation.batches)
        metrics = {**metrics, **costs, "train_s": train_s, "val_s": val_s, "write_s": write_s}
        seconds = time.perf_counter() - start_s
        return EpochDone(self.trial, epoch, score, seconds, metrics, checkpoint, is_last)

    def _validation_s(self, train_per_image_s: float) -> float:
        """Return how long validation takes: as long as last time, or an estimate from training at first."""
        if self.val_s is not None:
            return self.val_s
        return 0.5 * train_per_image_s * self.validation.batches.num_images  # backward takes twice as long as forward

    def _next_report_s(self) -> float:
        """Return the shortest time to another report: a step and its validation, whose duration the probe showed."""
        if self.val_s is not None:
            return self.val_s
        num_images = STEP_PASSES * self.recipe.batch_size + self.validation.batches.num_images
        return self._probe_image_s * num_images

    def _write_weights(self, kind: str, outputs_kind: str) -> None:
        """Write the outputs for the validation images, then the weights."""
        outputs, state = self.validation.outputs, merged_weights(self.steps.averaged)
        weights = {name: tensor.cpu() for name, tensor in state.items()}
        if outputs is not None and not self.task.is_refit:
            self.files.put(self.trial, outputs_kind, self.steps.num_epochs, lambda path: save_outputs(path, outputs))
        of = origin(self.trial, self.steps.num_epochs, self.classifier.blueprint.to_json(), outputs)
        self.files.put(self.trial, kind, self.steps.num_epochs, lambda path: write_weights(path, weights, of))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that exact resumption needs."""
        numerics = {
            "processor": processor(self.classifier.numerics.device),
            "training": self.classifier.numerics.to_json(),
            "inference": self.classifier.inference.to_json(),
        }
        return {
            "trial": self.trial,
            "numerics": numerics if self.has_numerics else None,
            "is_probed": self.is_probed,
            "stopping": self.stopping.state_dict(),
            "stop_reason": self.stop_reason,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            **self.steps.state_dict(),
        }

    def load_checkpoint(self, name: str) -> None:
        """Resume from a checkpoint of the trial."""
        path, device = self.files.get(self.trial, *parse_name(name)), self.classifier.numerics.device
        if path is None:
            raise FileNotFoundError(f"checkpoint {name} of trial {self.trial} is missing")
        state = load_state(path, device)
        if state["trial"] != self.trial:
            raise ValueError(f"{path} is a checkpoint of trial {state['trial']}")
        numerics = state["numerics"]
        if numerics is not None and numerics["processor"] == processor(device):  # those of another may not exist here
            self._use(*(Numerics.from_json(numerics[purpose], device) for purpose in ("training", "inference")))
        self.steps.load_state_dict(state)
        self.stopping.load_state_dict(state["stopping"])
        self.is_probed = state["is_probed"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        self.stop_reason = state["stop_reason"]


def ranks_of(task: ImageTask) -> AbstractContextManager[Ranks]:
    """Context of a job that the task's number of processes train together."""
    return data_parallel(task.num_processes, task.device, None if task.is_on_ray else FollowerTrainable())


class FollowerTrainable(Trainable):
    """The job of a process that `data_parallel` starts: take part in the trials of rank 0 until that ends it."""

    def train(self, job: Job, report: Reporter) -> str:  # noqa: ARG002
        """Join the other processes, and follow; the job's number is the rank."""
        ranks = Ranks(job.trial, job.config["size"])
        join(ranks.rank, ranks.size, job.config["store"], choose_device())
        follow(ranks)
        return ""


def follow(ranks: Ranks) -> Any:
    """Take part in the epochs of rank 0, until it shares a tuple, which is returned."""
    trainer: Trainer | None = None
    while not isinstance(order := ranks.share(), tuple):
        if order == RELEASE:
            trainer = None
        elif order == EPOCH:
            assert trainer is not None
            with contextlib.suppress(DivergedError):  # rank 0 raises it as well
                trainer.steps.take_epoch(Deadline(None), ranks=ranks)
        else:
            task, recipe, numerics, state = cloudpickle.loads(order)  # written by rank 0
            if task.store is None:
                task = replace(task, store=ImageStore.open(ranks.share_folder(Path())))
            trainer = Trainer(task, recipe, LocalTrialFiles(Path()), ranks=ranks)
            device = trainer.classifier.numerics.device
            training = Numerics.from_json(numerics, device)
            trainer.classifier.use(training, training)
            trainer.steps.use(training)
            trainer.steps.load_state_dict(torch.load(io.BytesIO(state), device, weights_only=True))
    return order


class EarlyStopping:
    """Early stopping by the `early_stop_*` hyperparameters of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        patience = recipe.early_stop_patience
        self.patience = math.inf if patience is None or patience < 0 else patience
        self.min_delta = recipe.early_stop_min_delta
        self.max_value = math.inf if recipe.early_stop_max_value is None else recipe.early_stop_max_value
        self.best = -math.inf if recipe.early_stop_baseline is None else recipe.early_stop_baseline
        self.num_waited = 0
        self._last_epoch: int | None = None

    def reason(self, score: float, epoch: int) -> str:
        """Return why to stop after this epoch, or ""; epochs without validation count as epochs without improvement."""
        num_since = 1 if self._last_epoch is None else epoch - self._last_epoch
        self._last_epoch = epoch
        if score > self.best + self.min_delta:
            self.best, self.num_waited = score, 0
        else:
            self.num_waited += num_since
        if score >= self.max_value:
            return f"early stop: the score reached {self.max_value}"
        if self.num_waited > self.patience:
            return f"early stop: no improvement in {self.num_waited} epochs"
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Return the state for `load_state_dict`; JSON has no infinity, so no best score is None."""
        best = self.best if math.isfinite(self.best) else None
        return {"best": best, "num_waited": self.num_waited, "last_epoch": self._last_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state."""
        self.best = -math.inf if state["best"] is None else state["best"]
        self.num_waited, self._last_epoch = state["num_waited"], state["last_epoch"]


@contextmanager
def explained_failures(recipe: Recipe, folder: Path | None) -> Iterator[None]:
    """Turn the errors of a full disk or a full memory into a DiskFullError or OutOfMemoryError, with what to do."""
    try:
        yield
    except (RuntimeError, OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise DiskFullError(
                f"There is no space left for the weights of {recipe.model} in {folder or 'the run'}. Free some space "
                "and resume the run, or fit with a path on a larger disk."
            ) from error
        text = str(error).lower()  # on CPUs only the message shows it
        is_allocation = isinstance(error, RuntimeError) and "memory" in text and "alloc" in text
        if is_allocation or isinstance(error, torch.OutOfMemoryError):
            raise OutOfMemoryError(
                f"{recipe.model} with batch_size={recipe.batch_size} does not fit into memory. Choose a smaller "
                f"batch_size, img_size or network ({text.splitlines()[0][:120]})."
            ) from error
        raise


def choose_for_trial(
    classifier: Classifier, recipe: Recipe, num_steps: int, val_batch_size: int, seconds_left: float = math.inf
) -> tuple[Numerics, Numerics]:
    """Return the fastest numerics for training and for validation, with the same memory format, as the recipe allows.

    The network is in the mode in which it is trained, and in evaluation mode afterwards.
    """
    device, network = classifier.numerics.device, classifier.network
    among = candidates(device, "training", recipe.amp, recipe.channels_last, recipe.compile)
    workload, most = (
        classifier.workload("training", recipe.batch_size),
        num_steps_for_measuring(num_steps, TRAINING_PART),
    )
    training = choose_numerics(network, workload, among, most, LIMIT_PART * seconds_left)
    if training.compiled:
        return training, training
    # With another memory format, weights and optimizer state would be converted before and after each validation.
    num_forward = num_steps * recipe.batch_size / (FORWARD_PART * val_batch_size)
    among = candidates(device, "inference", recipe.amp, training.channels_last)
    workload, most = (
        classifier.workload("inference", val_batch_size),
        num_steps_for_measuring(num_forward, INFERENCE_PART),
    )
    return training, choose_numerics(network.eval(), workload, among, most, LIMIT_PART * seconds_left)


def choose_for_probe(
    classifier: Classifier, recipe: Recipe, num_images: int, batch_size: int, seconds_left: float = math.inf
) -> Numerics:
    """Return numerics and engine for features of so many images by a network that is not trained yet.

    Without time to measure, these are 16 bits where the processor supports them: they were 1.7 times as fast or more.
    """
    device = classifier.numerics.device
    among = candidates(device, "inference", recipe.amp, classifier.numerics.channels_last)
    if is_half_native(device):
        among.sort(key=lambda numerics: numerics.dtype is torch.float32)
    num_steps = num_steps_for_measuring(num_images / batch_size, PREDICTION_PART)
    workload = classifier.workload("inference", batch_size)
    chosen = choose_numerics(classifier.network.eval(), workload, among, num_steps, LIMIT_PART * seconds_left)
    if recipe.amp is True:
        return chosen
    return classifier.choose_engine(chosen, batch_size, num_images, PROBE_PART * seconds_left)
