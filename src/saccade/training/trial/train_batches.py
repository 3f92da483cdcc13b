"""The batches that a recipe is trained on."""

from __future__ import annotations

import numpy as np
import torch

from saccade.data.augmentation import Augmentation, TrainingTransform, Transform, own_transform
from saccade.data.batches import Batches
from saccade.models.network import InputSpec
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask


def train_batches(
    task: ImageTask, recipe: Recipe, spec: InputSpec, device: torch.device, draw: np.ndarray | None = None
) -> Batches:
    """Return batches of the training images, varied as the recipe says.

    Parameters
    ----------
    task : ImageTask
        The images.
    recipe : Recipe
        How large batches are, and how images are varied.
    spec : InputSpec
        What the network sees.
    device : torch.device
        Where batches go.
    draw : ndarray or None
        As in `Batches`.
    """
    train = task.train
    vary = _transform(recipe, spec)
    return Batches(
        task.store,
        train.indices,
        train.targets,
        vary,
        recipe.batch_size,
        spec.mean,
        spec.std,
        device,
        train.weights,
        draw,
        most_in_pass=recipe.images_per_epoch,
    )


def _transform(recipe: Recipe, spec: InputSpec) -> Transform | TrainingTransform:
    if recipe.train_transform is not None:
        return own_transform(recipe.train_transform.value, spec.img_size)
    augmentation = Augmentation(
        recipe.scale,
        recipe.ratio,
        recipe.hflip,
        recipe.vflip,
        recipe.color_jitter,
        recipe.auto_augment,
        recipe.re_prob,
    )
    return TrainingTransform(augmentation, spec.img_size, spec.interpolation)
