"""What becomes of candidates in a predictor: they are calibrated, each by itself, and have a file of weights.

A network that was trained with label smoothing is less sure than it is right. Beside one that says what it means its
loss is large, so that an ensemble would leave it out though it knows more, and in a mean it counts for less than its
weight says. Dividing its outputs by a temperature (see `saccade.inference.calibration`) mends both, and its last layer,
being linear, can take the temperature in, so that predicting is as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from saccade.inference.calibration import Calibration, fit_calibration
from saccade.numerics.device import Numerics
from saccade.selection.candidates import Candidate, activated
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask


def calibrated(candidates: Sequence[Candidate], task: ImageTask) -> list[Candidate]:
    """Return candidates whose predictions are calibrated, where their last layers can take a temperature in.

    Parameters
    ----------
    candidates : sequence of Candidate
        That are to be weighed against each other. A probe is calibrated by training images that are new to it, others
        by the held-out images.
    task : ImageTask
        The task of the search.
    """
    if not task.problem.is_classification:
        return list(candidates)
    return [_of_probe(one, task) if one.probe is not None else _of_trained(one, task) for one in candidates]


def _of_probe(candidate: Candidate, task: ImageTask) -> Candidate:
    probe = candidate.probe
    assert probe is not None
    if candidate.blueprint.tta:  # what is divided there are not the outputs
        return candidate
    unseen = activated(probe.unseen, task.problem)
    temperature = fit_calibration(unseen, task.train.targets[probe.rows], task.problem).temperature
    parts = {name: getattr(probe, name) / temperature for name in ("unseen", "outputs", "weight", "bias")}
    predictions = Calibration(temperature).apply(candidate.predictions, task.problem)
    return replace(candidate, predictions=predictions, probe=replace(probe, **parts))


def _of_trained(candidate: Candidate, task: ImageTask) -> Candidate:
    if candidate.blueprint.tta or not _last_layers(candidate, task.problem.num_outputs):
        return candidate
    temperature = fit_calibration(candidate.predictions, task.val.targets, task.problem).temperature
    predictions = Calibration(temperature).apply(candidate.predictions, task.problem)
    return replace(candidate, predictions=predictions, temperature=temperature)


def _last_layers(candidate: Candidate, num_outputs: int) -> list[str]:
    """Return the names of the layers that make the outputs; none where they are not known, or not linear."""
    config = timm.models.get_pretrained_cfg(candidate.blueprint.architecture or "", allow_unregistered=True)
    named = (config.classifier if config is not None else None) or ()
    names = [named] if isinstance(named, str) else list(named)
    assert candidate.weights is not None
    with safe_open(candidate.weights, framework="pt") as file:
        for name in names:
            keys = {key for key in file.keys() if key.startswith(f"{name}.")}  # noqa: SIM118  it is no dict
            if not {f"{name}.weight"} <= keys <= {f"{name}.weight", f"{name}.bias"}:
                return []
            if file.get_slice(f"{name}.weight").get_shape()[0] != num_outputs:
                return []
    return names


def final_weights(candidate: Candidate, task: ImageTask, folder: Path) -> Path:
    """Return the file of the weights that a predictor gets of a candidate.

    Parameters
    ----------
    candidate : Candidate
        Of a probe, it is the pretrained network with its final last layer.
    task : ImageTask
        The task of the search.
    folder : Path
        Where that is written.
    """
    if candidate.probe is None and candidate.temperature == 1:
        assert candidate.weights is not None
        return candidate.weights
    if candidate.weights is not None:
        state = load_file(candidate.weights)
    else:
        numerics = Numerics(torch.device("cpu"))
        network = new_classifier(Recipe.of(candidate.config), task.problem, numerics, task.weights).network
        state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    if candidate.probe is not None:
        state = candidate.probe.applied_to(state)
    else:
        for name in _last_layers(candidate, task.problem.num_outputs):
            for key in {f"{name}.weight", f"{name}.bias"} & state.keys():
                state[key] = state[key] / candidate.temperature
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{candidate.trial:04d}-{candidate.epoch}.safetensors"
    save_file(state, path)
    return path
