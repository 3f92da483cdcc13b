from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saccade.inference.classifier import Classifier
from saccade.numerics.device import Numerics
from saccade.training.probes.final_probe import FinalProbe, final_probe
from saccade.training.probes.probe import Probe, fit_head, outputs_of_frozen
from saccade.training.recipes.building import new_classifier
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask

CPU = Numerics(torch.device("cpu"))


def probed_classifier(task: ImageTask, weights: Path) -> tuple[Classifier, Probe]:
    recipe = Recipe.of({"model": "test_resnet", "img_size": 32})
    probed = new_classifier(recipe, task.problem, CPU, weights)
    probe = fit_head(probed, task.store, task.train, lambda: 1.0)
    assert probe is not None
    return probed, probe


def final_of(probed: Classifier, task: ImageTask, probe: Probe, *, refits: bool = True) -> FinalProbe:
    outputs = outputs_of_frozen(probed, task.store, task.val.indices, lambda: 1.0)
    final = final_probe(probed, replace(task, is_holdout=True), probe, outputs, refits=refits)
    assert final is not None
    return final


def test_the_saved_layer_is_fitted_to_the_validation_images_as_well(
    make_task: Callable[..., ImageTask], make_colours: Callable[..., Any], tiny_weights: Path, tmp_path: Path
) -> None:
    task = make_task(make_colours(12))
    probed, probe = probed_classifier(task, tiny_weights)
    before = {name: tensor.contiguous() for name, tensor in probed.network.state_dict().items()}
    final = final_of(probed, task, probe)
    assert final.unseen.shape == (len(task.train.targets), task.problem.num_outputs)
    final.save(tmp_path / "probe.npz")
    read = FinalProbe.load(tmp_path / "probe.npz")
    assert read is not None
    assert read.layer == final.layer == "fc"
    assert np.array_equal(read.rows, final.rows)
    after = read.applied_to(before)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc.weight", "fc.bias"}
    own = final_of(probed, task, probe, refits=False).applied_to(before)
    assert all(torch.equal(before[name], own[name]) for name in before)
    every = task.train.joined(task.val)
    probed.network.load_state_dict(after)
    predictions = probed.predict(probed.batches(task.store, every.indices))
    assert (predictions.argmax(1) == every.targets).mean() > 0.9


def test_a_probe_of_part_of_the_training_images_is_not_refitted(
    make_task: Callable[..., ImageTask], tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    task = make_task()
    monkeypatch.setattr("saccade.training.probes.probe.MAX_IMAGES", len(task.train.targets) - 2)
    probed, probe = probed_classifier(task, tiny_weights)
    before = probed.network.state_dict()["fc.weight"].clone()
    assert np.array_equal(final_of(probed, task, probe).weight, before.numpy())


def test_with_many_classes_the_outputs_of_fewer_images_are_saved(
    make_task: Callable[..., ImageTask], tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    task = make_task()
    monkeypatch.setattr("saccade.training.probes.final_probe.MAX_NUMBERS", 8)
    probed, probe = probed_classifier(task, tiny_weights)
    final = final_of(probed, task, probe)
    assert final.unseen.size == 8
    assert len(final.rows) == len(final.unseen)


def test_an_incomplete_file_is_not_loaded(
    make_task: Callable[..., ImageTask], tiny_weights: Path, tmp_path: Path
) -> None:
    task, path = make_task(), tmp_path / "probe.npz"
    assert FinalProbe.load(path) is None
    probed, probe = probed_classifier(task, tiny_weights)
    final_of(probed, task, probe).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    assert FinalProbe.load(path) is None


def test_validation_images_of_the_user_are_not_fitted_to(
    make_task: Callable[..., ImageTask], tiny_weights: Path, tmp_path: Path
) -> None:
    task = replace(make_task(), is_holdout=False)
    probed, probe = probed_classifier(task, tiny_weights)
    outputs = outputs_of_frozen(probed, task.store, task.val.indices, lambda: 1.0)
    assert final_probe(probed, task, probe, outputs[:-1]) is None  # it was not validated in full
    own = probed.network.state_dict()["fc.weight"].numpy()
    for is_holdout in (False, True):
        kept = final_probe(probed, replace(task, is_holdout=is_holdout), probe, outputs)
        assert kept is not None
        assert np.array_equal(kept.weight, own) is not is_holdout
