"""The numerics of one trial: for its probe, its training and its validation, and in its checkpoint."""

from __future__ import annotations

import math
from typing import Any

import torch

from saccade.inference.classifier import Classifier
from saccade.numerics.choice import (
    INFERENCE_PART,
    PREDICTION_PART,
    TRAINING_PART,
    candidates,
    choose_numerics,
    num_steps_for_measuring,
)
from saccade.numerics.device import Numerics, is_half_native
from saccade.numerics.memory import processor
from saccade.training.recipes.recipe import Recipe

FORWARD_PART = 1 / 3
"""Of a training step's arithmetic, what a prediction of the same images takes."""


def choose_for_trial(
    classifier: Classifier, recipe: Recipe, num_steps: int, val_batch_size: int, seconds_left: float = math.inf
) -> tuple[Numerics, Numerics]:
    """Return the fastest numerics for training and for validation, in the same memory order.

    Parameters
    ----------
    classifier : Classifier
        Its network is in the mode that it will be trained in, and in evaluation mode afterwards.
    recipe : Recipe
        What it fixes is kept.
    num_steps : int
        Of training, that the trial is expected to take.
    val_batch_size : int
        Images in a batch of validation.
    seconds_left : float
        Until the deadline.
    """
    device, network = classifier.numerics.device, classifier.network
    fixed = recipe.amp, recipe.channels_last, recipe.compile
    training = choose_numerics(
        network,
        classifier.workload("training", recipe.batch_size),
        candidates(device, "training", *fixed, num_steps=num_steps),
        num_steps_for_measuring(num_steps, TRAINING_PART),
        seconds_left,
    )
    if training.compiled:
        return training, training
    # Another order would be laid out anew before and after each validation, and in what the optimizer keeps as well.
    network.eval()
    among = candidates(device, "inference", recipe.amp, training.channels_last, compiled=False)
    num_forward = num_steps * recipe.batch_size / (FORWARD_PART * val_batch_size)
    workload = classifier.workload("inference", val_batch_size)
    num_measured = num_steps_for_measuring(num_forward, INFERENCE_PART)
    return training, choose_numerics(network, workload, among, num_measured, seconds_left)


def choose_for_probe(
    classifier: Classifier, recipe: Recipe, num_batches: float, batch_size: int, seconds_left: float = math.inf
) -> Numerics:
    """Return the numerics for a network that is looked at, but not trained yet.

    Where there is no time to measure, that is 16 bits on a processor that has them: for predictions these were faster
    with every network that was measured, by 1.7 times or more.

    Parameters
    ----------
    classifier, recipe, seconds_left
        As in `choose_for_trial`.
    num_batches : float
        How many there will be.
    batch_size : int
        Images in each.
    """
    device, network = classifier.numerics.device, classifier.network
    network.eval()
    order = classifier.numerics.channels_last
    among = candidates(device, "inference", recipe.amp, order, compiled=False)
    if is_half_native(device):
        among.sort(key=lambda numerics: numerics.dtype is torch.float32)
    num_measured = num_steps_for_measuring(num_batches, PREDICTION_PART)
    return choose_numerics(network, classifier.workload("inference", batch_size), among, num_measured, seconds_left)


def numerics_state(classifier: Classifier) -> dict[str, Any]:
    """Return what `numerics_of_state` reads, as JSON has it."""
    return {
        "processor": processor(classifier.numerics.device),
        "training": classifier.numerics.to_json(),
        "inference": classifier.inference.to_json(),
    }


def numerics_of_state(state: dict[str, Any] | None, device: torch.device) -> tuple[Numerics, Numerics] | None:
    """Return the numerics of training and of validation in a checkpoint.

    None where there were none yet, or those of another machine, which need not even exist here.
    """
    if state is None or state["processor"] != processor(device):
        return None
    return Numerics.from_json(state["training"], device), Numerics.from_json(state["inference"], device)
