"""Add classes to a predictor: the backbone stays, and the classifier layer is fitted anew to features.

The features of earlier images are those that the fit stored with the predictor, so that these images are not needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.data.earlier_split import EarlierSplit, image_keys
from saccade.data.examples import Examples, ImageLike
from saccade.data.splitting import split_holdout
from saccade.errors import DataError, HyperparameterError, SaccadeError
from saccade.inference.classifier import empty_classifier
from saccade.inference.description import WEIGHTS, Member
from saccade.inference.feature_bank import FeatureBank
from saccade.inference.pipeline import first_network
from saccade.inference.postprocessing import Postprocessing
from saccade.inference.saved import SPLIT, SavedPredictor
from saccade.inference.validation import ValidationRecord
from saccade.models.weights import write_weights
from saccade.selection.ensemble import Evaluation, evaluate
from saccade.tasks.matching import match_classes, names_of_classes, widened
from saccade.tasks.metrics import Metric, make_metric
from saccade.tasks.problem import Problem
from saccade.training.imbalance import class_priors
from saccade.training.probes.heads import Head, HeadFitter
from saccade.training.recipes.recipe import Recipe

HOLDOUT_FRAC = 0.1
"""Part of the new images that validates."""


def add_classes(
    saved: SavedPredictor,
    bank: FeatureBank | None,
    new: Sequence[Examples],
    features_of: Callable[[list[ImageLike]], np.ndarray],
    folder: Path,
) -> SavedPredictor:
    """Write a predictor of more classes to a new folder, and return it.

    `new` are labelled images of new and of known classes; `features_of` returns their features by the first network,
    NaN for unreadable ones. Without a `bank` they must have images of all known classes.
    """
    old = saved.problem
    old.require_one_class("add_classes")
    network = first_network(saved, "cpu")
    if (
        saved.blueprint.architecture is None
        or not isinstance(network.head, torch.nn.Linear)
        or network.head.bias is None
    ):
        raise HyperparameterError(
            f"add_classes requires a listed network with a linear classifier layer, not {saved.blueprint.name}; fit "
            "again with the images of all classes"
        )
    problem, class_names = old, saved.class_names
    for part in new:
        problem, class_names = widened(problem, class_names, part)
    matched = [match_classes(part, problem, class_names, "train_new", "the predictor") for part in new]
    images = [image for part in matched for image in part.images]
    targets = np.concatenate([problem.encode(part.labels) for part in matched if part.labels is not None])
    place = np.array([problem.classes.index(label) for label in old.classes])
    if bank is None and (lacking := [old.classes[i] for i in range(len(place)) if place[i] not in targets]):
        raise DataError(
            f"{saved.folder} has no features of its training images. Pass labelled images of its classes as old=…; "
            f"there are none of {lacking[:10]}"
        )
    features = features_of(images)
    is_read = np.isfinite(features).all(1)
    features, targets = features[is_read], targets[is_read]
    if missing := [label for number, label in enumerate(problem.classes) if number not in {*targets, *place}]:
        raise DataError(f"no image of the new classes {missing[:10]} can be read")
    if bank is None:
        none, no_targets = np.zeros((0, features.shape[1]), np.float16), np.zeros(0, np.int64)
        bank = FeatureBank(none, no_targets, none, no_targets, no_targets)
    bank.check_width(features.shape[1])
    known = np.bincount(place[bank.train_targets.astype(np.int64)], minlength=len(problem.classes))
    counts = np.zeros(len(problem.classes))
    counts[place[: len(bank.class_counts)]] = bank.class_counts
    try:  # equal images have equal features
        groups = [row.tobytes() for row in features]
        chosen, held_out = split_holdout(targets, HOLDOUT_FRAC, 0, np.array(groups, dtype=object))
    except DataError:  # one image of each class
        chosen, held_out = np.arange(len(targets)), np.zeros(0, np.int64)
    x = np.concatenate([bank.train.astype(np.float32), features[chosen]])
    y = np.concatenate([place[bank.train_targets.astype(np.int64)], targets[chosen]])
    x_val = np.concatenate([bank.val.astype(np.float32), features[held_out]])
    y_val = np.concatenate([place[bank.val_targets.astype(np.int64)], targets[held_out]])
    # The stored images of a class stand for all that the fit had.
    weights = np.ones(len(y))
    weights[: len(bank.train)] = (counts / np.maximum(known, 1))[y[: len(bank.train)]]
    counts += np.bincount(targets[chosen], minlength=len(counts))
    weights = (weights / weights.mean()).astype(np.float32)
    head = HeadFitter(x, y, problem).fit(weights)
    metric = _metric(saved, problem)
    all_targets = np.repeat(np.arange(len(counts)), counts.astype(np.int64))
    prior = class_priors(Recipe.of(saved.config), all_targets, problem, class_names)
    predictions = problem.activate(torch.from_numpy(_outputs(head.weight, head.bias, x_val))).numpy()
    evaluation = _evaluation(predictions, y_val, problem, metric, prior)
    # Of the kept validation images, by the first network before and after.
    num_old = len(bank.val)
    before = after = math.nan
    if num_old:
        own = network.head.weight.detach().numpy(), network.head.bias.detach().numpy()
        if saved.members[0].has_seen_val and len(bank.train):  # a fair comparison has not, neither before nor after
            of_bank = HeadFitter(bank.train.astype(np.float32), bank.train_targets, old)
            fitted = of_bank.fit(weights[: len(bank.train)])
            own = fitted.weight, fitted.bias
        before = float((place[_outputs(*own, x_val[:num_old]).argmax(1)] == y_val[:num_old]).mean())
        after = float((evaluation.adjusted[:num_old].argmax(1) == y_val[:num_old]).mean())
    both = np.concatenate([weights, np.ones(len(y_val), np.float32)])
    every_x, every_y = np.concatenate([x, x_val]), np.concatenate([y, y_val])
    final = HeadFitter(every_x, every_y, problem).fit(both, penalties=(head.penalty,), num_folds=1)
    fits = FeatureBank.of(problem, y, y_val, lambda rows: every_x[rows])
    accuracy = evaluation.metrics.get("top1", math.nan)
    names = names_of_classes(problem.classes, class_names)
    added = [name for name in names if name not in saved.names_of_classes]
    result = (
        f"{len(added)} classes added to a predictor of {len(old.classes)}: accuracy {accuracy:.4g} on {len(y_val)} "
        f"validation images; {after:.4g} on those of earlier classes (before: {before:.4g})"
    )
    summary = {
        **saved.summary, "result": result, "valid_acc": accuracy, "valid_score": evaluation.score, "ensemble": [],
        "added_classes": added, "earlier_classes_acc": {"before": before, "after": after},
        "valid_score_how": "on kept validation images of the earlier fit, and a tenth of the new images; before the "
        "classifier layer was fitted to all of them", **evaluation.postprocessing.summary(problem),
    }  # fmt: skip
    member = saved.members[0]
    made = SavedPredictor(
        folder=folder,
        label=saved.label,
        problem=problem,
        metric=metric.name,
        eval_metric=saved.eval_metric,
        class_names=class_names,
        summary=summary,
        trials=saved.trials,
        members=[Member(member.trial, member.blueprint, WEIGHTS, amp=member.amp)],
        postprocessing=evaluation.postprocessing,
        numerics={device: records[:1] for device, records in saved.numerics.items()},
        pixel_range=saved.pixel_range,
    )
    writers: dict[str, Callable[[Path], object]] = {
        WEIGHTS: partial(_write_network, saved=saved, problem=problem, head=final)
    }
    if (split := EarlierSplit.load(saved.folder / SPLIT)) is not None:
        writers[SPLIT] = split.fitted_also_to(np.unique(image_keys(images, [""] * len(images)))).save
    made = made.write(writers)
    saved.copy_history(folder)
    replace(fits, class_counts=counts.astype(np.int64), is_complete=True).save(folder, made.features_key)
    calibrated = evaluation.postprocessing.calibration.apply(predictions, problem)
    record = ValidationRecord.of(problem, y_val, calibrated, evaluation.adjusted, all_targets)
    record.save(folder, made.validation_key)
    return made


def _outputs(weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.asarray(x @ weight.T + bias, np.float32)


def _metric(saved: SavedPredictor, problem: Problem) -> Metric:
    """Return the metric of the predictor; the default one if that is not defined for more classes, as F1 of two."""
    try:
        return make_metric(saved.eval_metric, problem)
    except SaccadeError:
        return make_metric(None, problem)


def _evaluation(
    predictions: np.ndarray, targets: np.ndarray, problem: Problem, metric: Metric, prior: np.ndarray | None
) -> Evaluation:
    if not len(targets):
        return Evaluation(math.nan, {}, predictions, np.zeros(0), Postprocessing())
    return evaluate(predictions, targets, problem, metric, prior)


def _write_network(path: Path, saved: SavedPredictor, problem: Problem, head: Head) -> None:
    """Write the weights of the first network with another classifier layer."""
    network = first_network(saved, "cpu")
    assert network.head is not None
    (layer,) = (name for name, module in network.network.named_modules() if module is network.head)
    state: dict[str, Any] = dict(network.network.state_dict())
    state[f"{layer}.weight"], bias = torch.from_numpy(head.weight).contiguous(), torch.from_numpy(head.bias)
    if f"{layer}.bias" in state:
        state[f"{layer}.bias"] = bias
    made = empty_classifier(saved.blueprint, problem, network.numerics)
    made.network.load_state_dict(state)  # raises an error now if the layer has another form
    write_weights(path, state)
