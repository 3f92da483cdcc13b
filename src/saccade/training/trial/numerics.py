"""The numerics of one trial: for its probe, its training and its validation, and in its checkpoint."""

from __future__ import annotations

import math

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
from saccade.training.recipes.recipe import Recipe

LIMIT_PART = 0.04  # fraction of the time until a deadline that measuring may take
FORWARD_PART = 1 / 3  # arithmetic of a forward pass relative to a training step of the same images


def choose_for_trial(
    classifier: Classifier, recipe: Recipe, num_steps: int, val_batch_size: int, seconds_left: float = math.inf
) -> tuple[Numerics, Numerics]:
    """Return the fastest numerics for training and for validation, with the same memory format.

    The network is in the mode in which it is trained, and in evaluation mode afterwards. The recipe's ``amp``,
    ``channels_last`` and ``compile`` are respected.
    """
    device, network = classifier.numerics.device, classifier.network
    fixed = recipe.amp, recipe.channels_last, recipe.compile
    training = choose_numerics(
        network,
        classifier.workload("training", recipe.batch_size),
        candidates(device, "training", *fixed, num_steps=num_steps),
        num_steps_for_measuring(num_steps, TRAINING_PART),
        LIMIT_PART * seconds_left,
    )
    if training.compiled:
        return training, training
    # With another memory format, weights and optimizer state would be converted before and after each validation.
    num_forward = num_steps * recipe.batch_size / (FORWARD_PART * val_batch_size)
    inference = choose_numerics(
        network.eval(),
        classifier.workload("inference", val_batch_size),
        candidates(device, "inference", recipe.amp, training.channels_last, compiled=False),
        num_steps_for_measuring(num_forward, INFERENCE_PART),
        LIMIT_PART * seconds_left,
    )
    return training, inference


def choose_for_probe(
    classifier: Classifier, recipe: Recipe, num_batches: float, batch_size: int, seconds_left: float = math.inf
) -> Numerics:
    """Return numerics for inference with a network that is not trained yet.

    Without time to measure, these are 16 bits on a processor that supports them: every measured network predicted
    faster with them, by 1.7 times or more.
    """
    device = classifier.numerics.device
    among = candidates(device, "inference", recipe.amp, classifier.numerics.channels_last, compiled=False)
    if is_half_native(device):
        among.sort(key=lambda numerics: numerics.dtype is torch.float32)
    num_steps = num_steps_for_measuring(num_batches, PREDICTION_PART)
    workload = classifier.workload("inference", batch_size)
    return choose_numerics(classifier.network.eval(), workload, among, num_steps, LIMIT_PART * seconds_left)
