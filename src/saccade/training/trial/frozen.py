"""Layers that a recipe keeps as they are: not run backward, nor forward twice where their outputs can be kept.

With ``transfer_lr_mult=0`` only the last layer learns. Nothing goes back through the others, and what these make of an
image that is seen again as it was, such as one of those that judge, is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.data.augmentation import TrainingTransform
from saccade.data.batches import Batches
from saccade.inference.classifier import Classifier
from saccade.inference.features import features_of, outputs_and_features
from saccade.models.network import classifier_parameters
from saccade.training.recipes.recipe import Recipe

MAX_BYTES = 256 * 2**20
"""Of outputs that are kept of one set of images; more are computed anew."""


def freeze(network: nn.Module, recipe: Recipe) -> None:
    """Mark as not trained what the recipe gives no learning rate: all layers but the last, or the last."""
    head = classifier_parameters(network)
    factors = {True: recipe.output_lr_mult, False: recipe.transfer_lr_mult}
    if head and any(factors.values()):
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(factors[name in head] > 0)


def train_mode(network: nn.Module, recipe: Recipe) -> None:
    """Put a network into the mode in which the recipe trains it: batch statistics may have to stay as they are."""
    network.train()
    freeze = recipe.freeze_bn
    if freeze is None:  # too few images for sound statistics, or layers that are to stay as they are
        freeze = recipe.starts_pretrained and (recipe.batch_size < 32 or recipe.transfer_lr_mult == 0)
    if freeze or recipe.batch_size == 1:  # one image has no statistics at all
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def is_body_fixed(network: nn.Module) -> bool:
    """Say whether all layers but the last one are as they will be to the end: neither weights nor statistics change.

    Parameters
    ----------
    network : torch.nn.Module
        In the mode in which it is trained.

    Examples
    --------
    >>> from saccade.models.network import build_network
    >>> network = build_network("test_resnet", 3, pretrained=False)
    >>> freeze(network, Recipe(transfer_lr_mult=0.0))
    >>> is_body_fixed(network), is_body_fixed(network.eval())
    (False, True)
    """
    head = classifier_parameters(network)
    learns = any(parameter.requires_grad for name, parameter in network.named_parameters() if name not in head)
    counts = any(isinstance(module, _BatchNorm) and module.training for module in network.modules())
    return bool(head) and not learns and not counts


class KeptOutputs:
    """What a fixed body makes of the images of `Batches` that are the same in every pass.

    Parameters
    ----------
    classifier : Classifier
        Its network has a body that is fixed.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._features: torch.Tensor | None = None

    def outputs(
        self, batches: Batches, network: nn.Module, seconds_left: Callable[[], float] = lambda: 1.0
    ) -> np.ndarray:
        """Return what `Classifier.outputs` does, by the last layer alone when all else is known.

        Parameters
        ----------
        batches, network, seconds_left
            As there; `network` has the body of the classifier's.
        """
        if self._features is not None:
            return self._by_head(network, self._features)
        if not is_head_the_end(self._classifier):
            return self._classifier.outputs(batches, network, seconds_left)
        outputs, features = outputs_and_features(self._classifier, batches, network, seconds_left)
        if len(outputs) == batches.num_images and features.nbytes <= MAX_BYTES:
            self._features = torch.from_numpy(features).to(batches.device)
        return outputs

    @torch.inference_mode()
    def _by_head(self, network: nn.Module, features: torch.Tensor) -> np.ndarray:
        with self._classifier.inference.autocast():
            outputs: np.ndarray = _head_of(network)(features).float().cpu().numpy()
        return outputs


class FeatureBatches:
    """Batches of what a fixed body makes of training images that nothing varies, in the place of the images.

    Parameters
    ----------
    batches : Batches
        Of the images; random passes have the same order.
    features : ndarray of float32, shape (num_images, num_features)
        Of each image.
    """

    def __init__(self, batches: Batches, features: np.ndarray) -> None:
        self._batches = batches
        self._features = torch.from_numpy(features).to(batches.device)
        self.waited_s = 0.0

    def shuffled(self, number: int = 0) -> Iterator[tuple[torch.Tensor, ...]]:
        """One pass in a random order."""
        for rows in self._batches.shuffled_rows(number):
            yield self._features[torch.from_numpy(rows).to(self._features.device)], *self._batches.known_of(rows)


def feature_batches(
    classifier: Classifier, batches: Batches, seconds_left: Callable[[], float] = lambda: 1.0
) -> FeatureBatches | None:
    """Return batches of features; None where a pass varies images or features, or there is no time for it.

    Parameters
    ----------
    classifier : Classifier
        Its network is in the mode in which it is trained; afterwards it may be in evaluation mode.
    batches : Batches
        Of the training images.
    seconds_left : callable
        When it falls to 0, there are none.
    """
    vary, network = batches.transform, classifier.network
    is_fixed = isinstance(vary, TrainingTransform) and not vary.augmentation.varies and is_body_fixed(network)
    if not is_fixed or draws(network.modules()) or not is_head_the_end(classifier):
        return None
    assert isinstance(classifier.head, nn.Linear)
    if 4 * batches.num_images * classifier.head.in_features > MAX_BYTES:
        return None
    features = features_of(classifier, batches.unvaried(), seconds_left)
    return FeatureBatches(batches, features) if len(features) == batches.num_images else None


def draws(modules: Iterable[nn.Module]) -> bool:
    """Return whether any of the modules drops values at random in training."""
    rates = (getattr(module, name, None) for module in modules for name in ("p", "drop_prob", "drop_rate"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def is_head_the_end(classifier: Classifier) -> bool:
    """Say whether a network's outputs are those of a linear last layer, of one pass."""
    head, network = classifier.head, classifier.network
    if not isinstance(head, nn.Linear) or classifier.blueprint.tta:
        return False
    side = classifier.blueprint.input.img_size
    said: list[torch.Tensor] = []
    modes = [(module, module.training) for module in network.modules()]
    hook = head.register_forward_hook(lambda _, __, outputs: said.append(outputs))
    try:
        with torch.inference_mode():
            x_BCHW = torch.zeros(1, classifier.blueprint.in_chans, side, side, device=head.weight.device)
            outputs = network.eval()(x_BCHW)
    finally:
        hook.remove()
        for module, mode in modes:
            module.training = mode
    return len(said) == 1 and isinstance(outputs, torch.Tensor) and torch.equal(said[0], outputs)


def _head_of(network: nn.Module) -> nn.Module:
    head: nn.Module = network.get_classifier()  # type: ignore[operator]
    return head
