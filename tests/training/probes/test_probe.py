from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saccade.inference.classifier import Classifier
from saccade.numerics.device import Numerics
from saccade.training.probes.probe import Probe, fit_head, outputs_of_frozen
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask, Split

CPU = Numerics(torch.device("cpu"))


def classifier(task: ImageTask, weights: Path, **recipe: Any) -> Classifier:
    return new_classifier(Recipe.of({"model": "test_resnet", "img_size": 32, **recipe}), task.problem, CPU, weights)


@pytest.mark.parametrize("names", [("blue", "red"), ("blue", "green", "red", "yellow")])
def test_probe_classifies_colours_by_frozen_features(
    make_task: Callable[..., ImageTask], make_colours: Callable[..., Any], tiny_weights: Path, names: tuple[str, ...]
) -> None:
    task = make_task(make_colours(12, names))
    probed = classifier(task, tiny_weights)
    body = {name: tensor.clone() for name, tensor in probed.network.state_dict().items() if not name.startswith("fc")}
    probe = fit_head(probed, task.store, task.train, lambda: 1.0)
    assert probe is not None
    assert probe.metrics["train_acc"] > 0.9
    assert probe.metrics["train_part"] == 1
    predictions = probed.predict(probed.batches(task.store, task.val.indices))
    assert (predictions.argmax(1) == task.val.targets).mean() > 0.9
    after = probed.network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in body.items())  # the body is left alone


def test_regression_probe_is_a_ridge_regression(
    make_task: Callable[..., ImageTask], make_colours: Callable[..., Any], tiny_weights: Path
) -> None:
    frame = make_colours(12)
    frame["label"] = np.where(frame["label"] == "red", 10.5, -3.25) + np.linspace(0, 0.1, len(frame))
    task = make_task(frame)
    probed = classifier(task, tiny_weights)
    assert fit_head(probed, task.store, task.train, lambda: 1.0)
    predictions = probed.predict(probed.batches(task.store, task.val.indices))[:, 0]
    assert np.abs(predictions - (task.val.targets * task.problem.std + task.problem.mean)).mean() < 2


def test_probe_uses_the_images_seen_before_the_deadline(
    make_task: Callable[..., ImageTask], tiny_weights: Path
) -> None:
    task = make_task()
    assert fit_head(classifier(task, tiny_weights), task.store, task.train, lambda: 0.0)


def test_probe_of_a_sample_is_complete_and_stratified(make_task: Callable[..., ImageTask], tiny_weights: Path) -> None:
    task = make_task()
    train = Split(np.tile(task.train.indices[:2], 50), np.array([0] * 92 + [1] * 8))
    probe = fit_head(classifier(task, tiny_weights), task.store, train, lambda: 1.0, max_images=50)
    assert probe is not None
    assert probe.metrics["train_part"] == 1  # no image was left out for want of time
    assert np.bincount(train.targets[probe.rows]).tolist() == [45, 5]


def test_a_network_without_a_linear_head_is_not_probed(make_task: Callable[..., ImageTask], tiny_weights: Path) -> None:
    task = make_task()
    probed = classifier(task, tiny_weights)
    probed.network.get_classifier = lambda: torch.nn.Conv2d(1, 1, 1)
    assert fit_head(probed, task.store, task.train, lambda: 1.0) is None


def test_multilabel_probe_fits_each_label(
    make_task: Callable[..., ImageTask], make_colours: Callable[..., Any], tiny_weights: Path
) -> None:
    frame = make_colours(10, ("blue", "green", "red"))
    names = {"blue": ["cold", "picture"], "green": ["picture"], "red": ["picture", "warm"]}  # one label is on all
    frame["label"] = [names[colour] for colour in frame["label"]]
    task = make_task(frame)
    probed = classifier(task, tiny_weights)
    assert fit_head(probed, task.store, task.train, lambda: 1.0)
    predictions = probed.predict(probed.batches(task.store, task.val.indices))
    assert ((predictions >= 0.5) == (task.val.targets > 0)).mean() > 0.9
    assert (predictions[:, 1] > 0.9).all()


@pytest.mark.parametrize("labels", ["classes", "numbers", "lists"])
def test_images_of_weight_0_have_no_effect_on_a_probe(
    make_task: Callable[..., ImageTask], make_colours: Callable[..., Any], tiny_weights: Path, labels: str
) -> None:
    frame = make_colours(10, ("blue", "red"))
    if labels == "lists":
        frame["label"] = [["a"] if colour == "red" else ["b"] for colour in frame["label"]]
    elif labels == "numbers":
        frame["label"] = np.where(frame["label"] == "red", 1.0, 2.5) + np.linspace(0, 0.01, len(frame))
    task = make_task(frame)
    train = task.train
    wrong = np.arange(len(train.indices)) % 3 == 0
    swapped = train.targets.copy()
    swapped[wrong] = -swapped[wrong] if labels == "numbers" else 1 - swapped[wrong]
    weights = np.where(wrong, 0.0, 1.0).astype(np.float32)
    weights = np.stack([weights, weights], 1) if labels == "lists" else weights
    heads = []
    for split, given in (
        (Split(train.indices, swapped), weights),
        (Split(train.indices[~wrong], train.targets[~wrong]), None),
    ):
        probed = classifier(task, tiny_weights)
        assert fit_head(probed, task.store, split, lambda: 1.0, weights=given)
        heads.append(probed.predict(probed.batches(task.store, task.val.indices)))
    assert np.allclose(heads[0], heads[1], atol=0.05)


def probed_classifier(task: ImageTask, weights: Path) -> tuple[Classifier, Probe]:
    probed = classifier(task, weights)
    probe = fit_head(probed, task.store, task.train, lambda: 1.0)
    assert probe is not None
    return probed, probe


def test_outputs_from_cached_features_equal_those_of_the_network(
    make_task: Callable[..., ImageTask], tiny_weights: Path
) -> None:
    task = make_task()
    probed, _ = probed_classifier(task, tiny_weights)
    outputs = outputs_of_frozen(probed, task.store, task.val.indices, lambda: 1.0)
    assert np.allclose(outputs, probed.outputs(probed.batches(task.store, task.val.indices)), atol=1e-4)
