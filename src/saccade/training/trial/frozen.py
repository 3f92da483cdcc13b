"""Frozen layers: no backward pass through them, and no second forward pass where their outputs can be cached.

With ``transfer_lr_mult=0`` only the classifier layer is trained. Features of images that are the same in every pass,
such as the validation images, are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.data.augmentation import TrainingTransform
from saccade.data.batches import Batches
from saccade.inference.classifier import Classifier, features_of, head_of, outputs_and_features
from saccade.models.network import classifier_parameters
from saccade.training.recipes.recipe import Recipe

MAX_BYTES = 256 * 2**20  # largest cached features of one set of images


def freeze(network: nn.Module, recipe: Recipe) -> None:
    """Freeze what has no learning rate in the recipe: the backbone or the classifier layer."""
    head = classifier_parameters(network)
    factors = {True: recipe.output_lr_mult, False: recipe.transfer_lr_mult}
    if head and any(factors.values()):
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(factors[name in head] > 0)


def train_mode(network: nn.Module, recipe: Recipe) -> None:
    """Put a network into the mode in which the recipe trains it; batch statistics may have to stay fixed."""
    network.train()
    freeze_bn = recipe.freeze_bn
    if freeze_bn is None:  # too few images for good statistics, or a frozen backbone
        freeze_bn = recipe.starts_pretrained and (recipe.batch_size < 32 or recipe.transfer_lr_mult == 0)
    if freeze_bn or recipe.batch_size == 1:  # one image has no statistics at all
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def is_backbone_fixed(network: nn.Module) -> bool:
    """Return whether training changes neither weights nor batch statistics of the backbone, in its current mode."""
    head = classifier_parameters(network)
    is_trained = any(parameter.requires_grad for name, parameter in network.named_parameters() if name not in head)
    updates_statistics = any(isinstance(module, _BatchNorm) and module.training for module in network.modules())
    return bool(head) and not is_trained and not updates_statistics


class KeptOutputs:
    """Cached features of the fixed backbone of a classifier for `Batches` that are the same in every pass."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._features: torch.Tensor | None = None

    def outputs(
        self, batches: Batches, network: nn.Module, seconds_left: Callable[[], float] = lambda: 1.0
    ) -> np.ndarray:
        """Return `Classifier.outputs` of a network with the same backbone, from cached features if there are any."""
        if self._features is not None:
            head = head_of(network)
            assert head is not None
            with torch.inference_mode(), self._classifier.inference.autocast():
                cached: np.ndarray = head(self._features).float().cpu().numpy()
            return cached
        if not ends_with_head(self._classifier):
            return self._classifier.outputs(batches, network, seconds_left)
        outputs, features = outputs_and_features(self._classifier, batches, network, seconds_left)
        if len(outputs) == batches.num_images and features.nbytes <= MAX_BYTES:
            self._features = torch.from_numpy(features).to(batches.device)
        return outputs


class FeatureBatches:
    """Features of a fixed backbone, (num_images, num_features), in place of the images in `batches`, in their order."""

    def __init__(self, batches: Batches, features: np.ndarray) -> None:
        self._batches = batches
        self._features = torch.from_numpy(features).to(batches.device)
        self.waited_s = 0.0

    def shuffled(
        self, batches: Sequence[np.ndarray], places: Callable[[int], np.ndarray]
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield what `Batches.shuffled` does."""
        for batch in batches:
            rows = batch[places(len(batch))]
            yield self._features[torch.from_numpy(rows).to(self._features.device)], *self._batches.known_of(rows)


def feature_batches(
    classifier: Classifier, batches: Batches, seconds_left: Callable[[], float] = lambda: 1.0
) -> FeatureBatches | None:
    """Return batches of features; None if they vary, or time is short. The network may be in evaluation mode then."""
    transform, network = batches.transform, classifier.network
    is_fixed = isinstance(transform, TrainingTransform) and not transform.augmentation.varies
    rates = (getattr(each, name, None) for each in network.modules() for name in ("p", "drop_prob", "drop_rate"))
    has_dropout = any(isinstance(rate, float) and rate > 0 for rate in rates)
    if not is_fixed or has_dropout or not is_backbone_fixed(network) or not ends_with_head(classifier):
        return None
    assert isinstance(classifier.head, nn.Linear)
    if 4 * batches.num_images * classifier.head.in_features > MAX_BYTES:
        return None
    features = features_of(classifier, batches.unvaried(), seconds_left)
    return FeatureBatches(batches, features) if len(features) == batches.num_images else None


def ends_with_head(classifier: Classifier) -> bool:
    """Return whether a network's outputs are those of a linear classifier layer in one pass."""
    head, network = classifier.head, classifier.network
    if not isinstance(head, nn.Linear) or classifier.blueprint.tta:
        return False
    side = classifier.blueprint.input.img_size
    head_outputs: list[torch.Tensor] = []
    modes = [(module, module.training) for module in network.modules()]
    hook = head.register_forward_hook(lambda _, __, outputs: head_outputs.append(outputs))
    try:
        with torch.inference_mode():
            x_BCHW = torch.zeros(1, classifier.blueprint.in_chans, side, side, device=head.weight.device)
            outputs = network.eval()(x_BCHW)
    finally:
        hook.remove()
        for module, mode in modes:
            module.training = mode
    return len(head_outputs) == 1 and isinstance(outputs, torch.Tensor) and torch.equal(head_outputs[0], outputs)
