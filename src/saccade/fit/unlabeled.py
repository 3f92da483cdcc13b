"""Images without labels in a fit: they train with pseudo-labels, where these help."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.splitting import stratified_order
from saccade.deadline import Deadline
from saccade.errors import SaccadeError
from saccade.events import Listener, PseudoLabelled, Warned
from saccade.models.network import CustomObject
from saccade.numerics.device import Numerics, choose_device, cpu_threads
from saccade.space import Dict
from saccade.study.run_folder import reading
from saccade.training.probes.probe import MAX_IMAGES, cached_features
from saccade.training.probes.pseudo_labels import pseudo_labels
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe, choices
from saccade.training.task import ImageTask
from saccade.training.trial.trainer import choose_for_probe

MAX_NETWORKS = 2  # whose features link the images: the best of the short probes
TIME_PART = 0.2  # of the time that is left, for the features of all images
BATCH_SIZE = 32


@dataclass(frozen=True)
class _Used:
    indices: np.ndarray  # positions in the store
    targets: np.ndarray
    confidence: np.ndarray
    losses: np.ndarray  # number of images, loss without and with them, and the error of the difference


def with_pseudo_labels(
    task: ImageTask, space: Dict, unlabeled: np.ndarray | None, file: Path, deadline: Deadline, notify: Listener
) -> tuple[ImageTask, dict[str, Any]]:
    """Return the task with more training images, those at positions `unlabeled` of the store, if they help.

    The labels are recorded in a file, so that a resumed run has the same training images. The second value is for the
    summary of the fit.
    """
    if unlabeled is None:
        return task, {}
    if not len(unlabeled):
        notify(Warned("none of the unlabeled images is new and can be read, so they are not used"))
        return task, {"unlabeled": _summary(np.array([0, np.nan, np.nan, np.nan]), 0)}
    if not file.is_file():
        found = _pseudo_labels(task, space, unlabeled, deadline, notify)
        part = file.with_name(f"{file.name}.part")
        with part.open("wb") as opened:
            np.savez(opened, **vars(found))
        part.replace(file)
    with reading(file), np.load(file, allow_pickle=False) as opened:
        indices, targets, confidence = (opened[name] for name in ("indices", "targets", "confidence"))
        summary = {"unlabeled": _summary(opened["losses"], len(indices))}
    if not len(indices):
        return task, summary
    train = task.train.extended(indices, targets, confidence, None)
    assert train.weights is not None
    scale = np.float32(1 / train.weights.mean())  # to a mean of 1; a probe of all images has those of validation too
    val = replace(task.val, weights=np.full(len(task.val.indices), scale))
    return replace(task, train=replace(train, weights=train.weights * scale), val=val), summary


def _summary(losses: np.ndarray, num_used: int) -> dict[str, Any]:
    num_images, loss, loss_with, error = (float(value) if np.isfinite(value) else None for value in losses)
    return {
        "num_images": int(num_images or 0),  # that could be used
        "num_used": num_used,  # with pseudo-labels
        "log_loss": loss,  # out of fold, of the labelled training images
        "log_loss_with_pseudo_labels": loss_with,
        "difference_error": error,
    }


def _pseudo_labels(task: ImageTask, space: Dict, unlabeled: np.ndarray, deadline: Deadline, notify: Listener) -> _Used:
    """Return the images to use, after a message; none if they do not help."""
    num = len(unlabeled)
    nothing = np.zeros(0, np.int64)
    none = _Used(nothing, nothing, np.zeros(0, np.float32), np.array([num, *3 * [np.nan]]))
    recipe, left = Recipe.of(space.default), deadline.within(TIME_PART * deadline.seconds_left())
    if not (recipe.starts_pretrained and recipe.linear_probe) or task.start is not None:
        notify(Warned("unlabeled images are not used: that requires pretrained networks with a linear probe"))
        return none
    rows = stratified_order(task.problem.strata(task.train.targets), np.random.default_rng(recipe.seed))[:MAX_IMAGES]
    train = task.train.take(rows)
    features: list[np.ndarray] = []
    with cpu_threads(task.num_threads):
        for number, name in enumerate(choices(space, "model")[:MAX_NETWORKS], start=1):
            part = left.within(left.seconds_left() / (MAX_NETWORKS + 1 - number))
            try:
                features.append(_features(name, task, space, np.concatenate([train.indices, unlabeled]), part))
            except SaccadeError as error:
                notify(Warned(f"{name} is not used for the unlabeled images: {error}"))
        # With few images by one network, those of the other suffice.
        features = [each for each in features if len(each) == max(map(len, features))]
        num = len(features[0]) - len(rows) if features else 0
        found = None
        if num > 0:
            found = pseudo_labels(features, train.targets, task.problem, train.groups, left.seconds_left)
    if found is None:
        reason = "no time was left" if left.seconds_left() <= 0 else "there are too few images"
        notify(Warned(f"unlabeled images are not used: {reason}"))
        return none
    notify(PseudoLabelled(num, found.are_better, found.loss, found.loss_with, found.error))
    losses = np.array([num, found.loss, found.loss_with, found.error])
    if not found.are_better:
        return replace(none, losses=losses)
    return _Used(unlabeled[:num], found.targets, found.confidence, losses)


def _features(
    name: str | CustomObject, task: ImageTask, space: Dict, indices: np.ndarray, left: Deadline
) -> np.ndarray:
    recipe = Recipe.of({**space.default, "model": name})
    numerics = Numerics.choose(choose_device(task.device), recipe.amp, recipe.channels_last, recipe.compile)
    classifier = new_classifier(recipe, task.problem, numerics, task.weights)
    inference = choose_for_probe(classifier, recipe, len(indices), BATCH_SIZE, left.seconds_left())
    classifier.use(classifier.numerics, inference)
    return cached_features(classifier, task.store, indices, left.seconds_left)
