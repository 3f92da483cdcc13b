"""What a network makes of an image just before it decides: the input of its last layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from saccade.data.batches import Batches
from saccade.errors import HyperparameterError
from saccade.inference.classifier import Classifier, head_of


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
    return outputs_and_features(classifier, batches, classifier.predicting, seconds_left, on_batch)[1]


def outputs_and_features(
    classifier: Classifier,
    batches: Batches,
    network: torch.nn.Module,
    seconds_left: Callable[[], float] = lambda: 1.0,
    on_batch: Callable[[int], None] = lambda _: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `Classifier.outputs` does, and the features of the same images; the parameters are those of both.

    Of an image and its mirror image, the features are those of the image.

    Raises
    ------
    HyperparameterError
        When the network has no single last layer.
    """
    head = head_of(network)
    if head is None:
        raise HyperparameterError(
            f"{classifier.blueprint.name} has no single last layer whose input could be taken as features"
        )
    telling = _TellingFeatures(network)
    hook = head.register_forward_pre_hook(telling.note)
    features: list[np.ndarray] = []
    try:
        outputs = classifier.outputs(batches, telling, seconds_left, on_batch, features.append)
    finally:
        hook.remove()
    return outputs, np.concatenate(features)


class _TellingFeatures(torch.nn.Module):
    """A network that tells what reaches its last layer, besides what it says.

    A method is what takes note of it, since a copy of this has a method, and notes, of its own.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self._network = network
        self._noted: torch.Tensor | None = None

    def note(self, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._noted = inputs[0]

    def forward(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self._network(x_BCHW)
        assert self._noted is not None
        return outputs, self._noted.float().flatten(1)
