"""What a network makes of an image just before it decides: the input of its last layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from saccade.data.batches import Batches
from saccade.errors import HyperparameterError
from saccade.training.classifier import Classifier, head_of


def features_of(
    classifier: Classifier,
    batches: Batches,
    seconds_left: Callable[[], float] = lambda: 1.0,
    on_batch: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """Return what reaches the last layer for each image, of shape (num_images, num_features), float32.

    Parameters
    ----------
    classifier : Classifier
        Its network.
    batches : Batches
        The images.
    seconds_left, on_batch
        As in `Classifier.predict`.

    Raises
    ------
    HyperparameterError
        When the network has no single last layer.
    """
    head = head_of(classifier.predicting)
    if head is None:
        raise HyperparameterError(
            f"{classifier.blueprint.name} has no single last layer whose input could be taken as features"
        )
    seen: list[np.ndarray] = []
    is_own_pass = classifier.blueprint.tta  # of an image and its mirror image, only the first pass counts

    def keep(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0].float().flatten(1).cpu().numpy())

    hook = head.register_forward_pre_hook(keep)
    try:
        classifier.predict(batches, seconds_left=seconds_left, on_batch=on_batch)
    finally:
        hook.remove()
    return np.concatenate(seen[:: 2 if is_own_pass else 1])
