"""The task that all trials of a search share: training and validation images, problem and metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.store.store import ImageStore
from saccade.models.weights import find_weights
from saccade.study.trial import LocalFiles
from saccade.tasks.metrics import Metric
from saccade.tasks.problem import Problem
from saccade.training.recipes.building import weights_options
from saccade.training.recipes.recipe import Recipe


@dataclass(frozen=True)
class Split:
    """Images of a store with their targets."""

    indices: np.ndarray  # positions in the store
    targets: np.ndarray  # labels, encoded by the problem
    weights: np.ndarray | None = None  # from `saccade.training.imbalance.sample_weights`
    groups: np.ndarray | None = None  # images with equal numbers stay on one side of every split; None: no two have
    soft: np.ndarray | None = None  # targets of the loss in place of `targets`, in the form of `Problem.soft_targets`

    def joined(self, other: Split) -> Split:
        """Return the images of both splits; weights, groups and soft targets only if both have them."""

        def both(one: np.ndarray | None, two: np.ndarray | None) -> np.ndarray | None:
            return None if one is None or two is None else np.concatenate([one, two])

        indices, targets = (
            np.concatenate(pair) for pair in ((self.indices, other.indices), (self.targets, other.targets))
        )
        pairs = ((self.weights, other.weights), (self.groups, other.groups), (self.soft, other.soft))
        return Split(indices, targets, *(both(*pair) for pair in pairs))

    def extended(self, indices: np.ndarray, targets: np.ndarray, weights: np.ndarray, soft: np.ndarray | None) -> Split:
        """Return the split with further images, each of them in a group of its own; without weights, images weigh 1."""
        own = np.ones(len(self.indices), np.float32) if self.weights is None else self.weights
        groups = None if self.groups is None else self.groups.max(initial=-1) + 1 + np.arange(len(indices))
        return replace(self, weights=own).joined(Split(indices, targets, weights, groups, soft))

    def take(self, rows: np.ndarray) -> Split:
        """Return some of the images, by their positions or by bools of shape (num_images,)."""
        others = (None if values is None else values[rows] for values in (self.weights, self.groups, self.soft))
        return Split(self.indices[rows], self.targets[rows], *others)


@dataclass(frozen=True)
class ImageTask:
    """Everything that a worker needs besides a configuration."""

    store: ImageStore
    train: Split
    val: Split
    problem: Problem
    metric: Metric  # used for model selection
    weights: Path | None = None  # a file or folder of pretrained weights, for recipes without their own
    device: str | None = None  # torch's name; None is the best available
    num_threads: int | None = None  # CPU threads of one trial; None is torch's default
    num_processes: int = 1  # that train a network together, each on a part of every batch
    is_on_ray: bool = False  # whether these processes are on the Ray cluster of the worker
    start: Path | None = None  # weights of a fitted network, from which trials start
    start_has_head: bool = True  # whether its classifier layer has the classes of this problem
    is_refit: bool = False  # the validation images are trained on: no early stopping, the last epoch is used
    is_holdout: bool = False  # the validation images were split off the training images, not given by the user
    class_names: list[str] | None = None  # of integer labels, which class weights may use
    num_val_seen: int = 0  # validation images that the network in `start` was fitted to
    costs: Sequence[str] = ()  # in every report, as in `saccade.study.objectives.COSTS`; ``image_ms`` always is

    def portable(self, config: Mapping[str, Any], seconds_left: float) -> tuple[dict[str, Any], LocalFiles]:
        """Return a configuration, and the files that it reads, as `Trainable.portable` does.

        These are the store, the start weights, and the pretrained weights of the configuration's network, wherever this
        machine has them; they are downloaded if necessary. So other machines need neither these weights nor a hub.
        """
        files = [*self.store.files(), *([] if self.start is None else [self.start])]
        recipe = Recipe.of(config)
        if self.start is None and recipe.pretrained and isinstance(recipe.model, str):
            where = weights_options(recipe, self.weights)
            weights = find_weights(recipe.model, **where, seconds_left=seconds_left).absolute()
            return {**config, "weights": weights}, [*files, weights]
        return dict(config), files
