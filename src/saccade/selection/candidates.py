"""Candidates for the final predictor: networks with weights and predictions for the validation set."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import safe_open

from saccade.errors import DataError, DataWarning, SaccadeError, SavedPredictorError
from saccade.inference.calibration import Calibration, fit_calibration
from saccade.inference.classifier import Blueprint, empty_classifier, read_weights_of
from saccade.models.network import CustomObject
from saccade.models.weights import read_weights, write_weights
from saccade.numerics.device import Numerics
from saccade.study.run_folder import reading
from saccade.study.trial import Status, Trial
from saccade.study.trial_files import file_name
from saccade.tasks.problem import Problem
from saccade.training.probes.final_probe import FinalProbe
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial_files import BEST, BEST_OUTPUTS, BLUEPRINT, END, END_OUTPUTS, PROBE, origin

MAX_BYTES = 2**29  # of all candidates' predictions together; candidates of trials with lower scores are left out


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network that may become a member of the predictor: trained (also on a fold or all images), or only probed."""

    trial: int
    config: dict[str, Any]  # of that trial
    blueprint: Blueprint
    predictions: np.ndarray  # for the images that evaluate it, as `Problem.activate` returns them
    epoch: int  # of the weights; 0 is the linear probe
    weights: Path | None = None  # None builds the pretrained network again, for a probe
    probe: FinalProbe | None = None  # for the classifier layer
    is_schedule_end: bool = False  # of the learning-rate schedule, while another epoch scored higher
    temperature: float = 1.0  # divides the outputs of a trained network; `predictions` include it
    is_refit: bool = False  # trained on all images

    @property
    def own_network(self) -> CustomObject | None:
        """The user's own network, if it is one."""
        model = self.config.get("model")
        return model if isinstance(model, CustomObject) else None

    @property
    def has_seen_val(self) -> bool:
        """Whether the weights that the predictor gets are fitted to the validation images as well."""
        return self.is_refit if self.probe is None else self.probe.has_seen_val

    def write_weights(self, path: Path, task: ImageTask) -> None:
        """Write the weights that the predictor gets, as safetensors; the classifier layer absorbs the temperature."""
        weights = self.weights or task.start  # a probe of the network of warm_start has its backbone
        if weights is None:
            recipe, numerics = Recipe.of(self.config), Numerics(torch.device("cpu"))
            state = new_classifier(recipe, task.problem, numerics, task.weights).network.state_dict()
        elif self.probe is None and self.temperature == 1:
            shutil.copyfile(weights, path)
            return
        else:
            state = read_weights(weights)[0]
        if self.probe is not None:
            state = self.probe.applied_to(state)
        elif self.weights is not None:
            for layer in _linear_classifiers(self.weights, self.blueprint, task.problem.num_outputs):
                for key in {f"{layer}.weight", f"{layer}.bias"} & state.keys():
                    state[key] = state[key] / self.temperature
        write_weights(path, state)

    def calibrated(self, task: ImageTask) -> Candidate:
        """Return the candidate with calibrated predictions, where its classifier layer can absorb a temperature.

        Label smoothing makes a network less confident than it is accurate, so that it counts for less than its weight
        in a mean of predictions. Dividing its outputs by a temperature corrects this, or dividing the layer's weights
        and bias. The temperature is fitted to validation images, or for a probe to out-of-fold outputs.
        """
        if self.blueprint.tta:  # probabilities are averaged, so dividing outputs is not the same
            return self
        if self.probe is not None:
            unseen, targets = activate(self.probe.unseen, task.problem), task.train.targets[self.probe.rows]
            temperature = fit_calibration(unseen, targets, task.problem).temperature
            scaled = {name: getattr(self.probe, name) / temperature for name in ("unseen", "outputs", "weight", "bias")}
            changes: dict[str, Any] = {"probe": replace(self.probe, **scaled)}
        else:
            assert self.weights is not None
            if not _linear_classifiers(self.weights, self.blueprint, task.problem.num_outputs):
                return self
            groups = task.val.groups
            temperature = fit_calibration(self.predictions, task.val.targets, task.problem, groups=groups).temperature
            changes = {"temperature": temperature}
        return replace(self, predictions=Calibration(temperature).apply(self.predictions, task.problem), **changes)


def read_candidates(trials: Sequence[Trial], task: ImageTask) -> list[Candidate]:
    """Return the candidates that trials have left on the disk, those of trials with higher scores first.

    These are the probe of each network, and of each trial the best epoch (unless that is the probe) and the end of its
    schedule. A candidate whose weights are missing, or whose outputs are not those of all validation images, is left
    out, with a warning if they are damaged.
    """
    candidates: list[Candidate] = []
    probed: set[str] = set()
    num_bytes = 0
    for trial in ranked(trials):
        for candidate in _candidates_of(trial, task):
            if candidate.probe is not None:
                # Trials of one network start from the same probe.
                settings = [trial.config.get(name) for name in ("model", "pretrained", "weights", "class_weight")]
                key = json.dumps([candidate.blueprint.to_json(), *map(repr, settings)])
                if key in probed:
                    continue
                probed.add(key)
            num_bytes += candidate.predictions.nbytes
            if num_bytes > MAX_BYTES and candidates:
                return candidates
            candidates.append(candidate)
    return candidates


def _candidates_of(trial: Trial, task: ImageTask) -> Iterator[Candidate]:
    assert trial.best_report is not None
    assert trial.files is not None
    files, number, epoch = trial.files, trial.number, trial.best_report.epoch
    paths = [(end, files.get(number, END, end), END_OUTPUTS) for end in files.epochs(number, END)[-1:]]
    probe_path = files.get(number, PROBE)
    if epoch or probe_path is None:
        paths.insert(0, (epoch, files.get(number, BEST, epoch), BEST_OUTPUTS))
    if probe_path is None and not any(path for _, path, _ in paths):
        return
    with _left_out_if_damaged():
        network = _Network(trial, task)
        if (probe := _read_probe(probe_path, network.blueprint, task)) is not None:
            weights = files.get(number, BEST, 0)
            with _left_out_if_damaged():
                if weights is not None:
                    network.check(weights, 0)
                # A function of the user's may build another network the next time, so its weights must be there.
                if weights is not None or not isinstance(trial.config.get("model"), CustomObject):
                    predictions = activate(probe.outputs, task.problem)
                    yield Candidate(number, trial.config, network.blueprint, predictions, 0, weights, probe)
        for of_epoch, path, outputs in paths:
            with _left_out_if_damaged():
                trained = network.predictions(path, files.get(number, outputs, of_epoch), outputs, of_epoch)
                if trained is not None:
                    own = number, trial.config, network.blueprint, trained
                    yield Candidate(*own, of_epoch, path, is_schedule_end=outputs == END_OUTPUTS)


def best_epoch(trial: Trial, task: ImageTask) -> Candidate:
    """Return a trial's best epoch, without predictions if outputs are missing; raise a DataError without weights.

    If outputs are missing that the weights refer to, a warning says that nothing is calibrated.
    """
    assert trial.best_report is not None
    assert trial.files is not None
    files, number, epoch = trial.files, trial.number, trial.best_report.epoch
    weights = files.get(number, BEST, epoch) or files.get(number, BEST)
    if weights is None:
        where = (files.folder(number) or Path(f"{number:04d}")) / file_name(BEST, epoch)
        raise DataError(f"{where}, the weights of trial {number}, one of the best trials, is missing. Start a new run")
    network = _Network(trial, task)
    checksum = network.check(weights, epoch)
    read = (read_predictions(files.get(number, BEST_OUTPUTS, each), task, checksum) for each in (epoch, None))
    predictions = next((found for found in read if found is not None), np.zeros((0, task.problem.num_outputs)))
    if not len(predictions) and checksum is not None:
        name = file_name(BEST_OUTPUTS, epoch)
        text = f"{name}, which belongs to {weights}, {_NOT_READ}. So the predictor is not calibrated"
        warnings.warn(DataWarning(text), stacklevel=2)
    own = number, trial.config, network.blueprint, predictions, epoch
    return Candidate(*own, weights, None if epoch else _read_probe(files.get(number, PROBE), network.blueprint, task))


def _read_probe(path: Path | None, blueprint: Blueprint, task: ImageTask) -> FinalProbe | None:
    """Return the probe in a file; None, with a warning, if it is damaged, or of another network or task."""
    probe = FinalProbe.load(path)
    if path is None or (probe is not None and probe.fits(blueprint, task)):
        return probe
    warnings.warn(DataWarning(f"{path} is damaged, or of another network. It is left out"), stacklevel=2)
    return None


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that have a score and did not fail, by descending score, then by number."""
    usable = [trial for trial in trials if trial.best_report is not None and trial.status is not Status.FAILED]
    return sorted(usable, key=lambda trial: (-trial.best_report.score if trial.best_report else 0.0, trial.number))


def read_blueprint(trial: Trial) -> Blueprint:
    """Return the blueprint of a trial."""
    path = None if trial.files is None else trial.files.get(trial.number, BLUEPRINT)
    if path is None:
        raise DataError(f"{BLUEPRINT}, the network of trial {trial.number}, is missing. Start a new run")
    with reading(path):
        return Blueprint.from_json(path.read_bytes())


class _Network:
    """The network of a trial, without weights, to which files are compared."""

    def __init__(self, trial: Trial, task: ImageTask) -> None:
        self.blueprint = read_blueprint(trial)
        self._trial, self._task, self._file = trial.number, task, f"{BLUEPRINT} of trial {trial.number}"
        model = trial.config.get("model")
        self._own = model if isinstance(model, CustomObject) else None

    @functools.cached_property
    def _module(self) -> torch.nn.Module:
        numerics = Numerics(torch.device("cpu"))
        try:
            return empty_classifier(self.blueprint, self._task.problem, numerics, self._own).network
        except SaccadeError as error:
            raise DataError(f"{self._file} is damaged ({error}). Restore a copy, or start a new run") from None

    def check(self, weights: Path, epoch: int) -> str | None:
        """Return the checksum of the weights' outputs, if known; raise a DataError for damaged or exchanged weights."""
        try:
            _, metadata = read_weights_of(self._module, weights)
        except SavedPredictorError as error:
            raise DataError(f"{error}. Restore a copy of it, or of {self._file}, or start a new run") from None
        expected = origin(self._trial, epoch, self.blueprint.to_json())
        with reading(weights):
            found = {name: metadata[name] for name in expected}
            is_same = Blueprint.from_json(found["blueprint"]) == self.blueprint
        if not is_same or (found["trial"], found["epoch"]) != (expected["trial"], expected["epoch"]):
            raise DataError(
                f"{weights} has weights of another network, trial or epoch (trial {found['trial']:.20}, epoch "
                f"{found['epoch']:.20}). Restore a copy of it, or of {self._file}, or start a new run"
            )
        return metadata.get("outputs")

    def predictions(self, weights: Path | None, outputs: Path | None, kind: str, epoch: int) -> np.ndarray | None:
        """Return the predictions in a file of outputs; raise a DataError if it or the weights are missing or damaged.

        None if both were removed, or if there are no outputs of all validation images.
        """
        if weights is None:
            if outputs is not None:
                raise DataError(f"{outputs} has the outputs of weights that are missing")
            return None
        checksum = self.check(weights, epoch)
        found = read_predictions(outputs, self._task, checksum)
        if found is None and checksum is not None:
            raise DataError(f"{file_name(kind, epoch)}, which belongs to {weights}, {_NOT_READ}")
        return found


_NOT_READ = "is missing or damaged"


@contextlib.contextmanager
def _left_out_if_damaged() -> Iterator[None]:
    """Turn a DataError of the block into a warning."""
    try:
        yield
    except DataError as error:
        warnings.warn(f"{error}. It is left out", DataWarning, stacklevel=2)


def read_predictions(outputs: Path | None, task: ImageTask, checksum: str | None = None) -> np.ndarray | None:
    """Return the predictions of a file with finite outputs of all validation images (and this checksum), or None."""
    if outputs is None:
        return None
    try:
        rows: np.ndarray = np.load(outputs, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError):  # removed, cut short by a kill, or damaged
        return None
    if rows.dtype != np.float32 or rows.shape != (len(task.val.targets), task.problem.num_outputs):
        return None
    if not np.isfinite(rows).all() or checksum not in (None, origin(0, 0, {}, rows)["outputs"]):
        return None
    return activate(rows, task.problem)


def activate(outputs: np.ndarray, problem: Problem) -> np.ndarray:
    """Return predictions of raw outputs, both of shape (num_images, num_outputs)."""
    return problem.activate(torch.from_numpy(outputs)).numpy()


def _linear_classifiers(weights: Path, blueprint: Blueprint, num_outputs: int) -> list[str]:
    """Return the names of the classifier layers; none if they are unknown or not linear."""
    config = timm.models.get_pretrained_cfg(blueprint.architecture or "", allow_unregistered=True)
    named = (config.classifier if config is not None else None) or ()
    names = [named] if isinstance(named, str) else list(named)
    with safe_open(weights, framework="pt") as file:
        for name in names:
            keys = {key for key in file.keys() if key.startswith(f"{name}.")}  # noqa: SIM118 (it is not a dict)
            if not {f"{name}.weight"} <= keys <= {f"{name}.weight", f"{name}.bias"}:
                return []
            if file.get_slice(f"{name}.weight").get_shape()[0] != num_outputs:
                return []
    return names
