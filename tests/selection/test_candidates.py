"""The candidates that trials leave on the disk, and the weights that they write."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from saccade.errors import DataError, DataWarning
from saccade.events import EpochDone
from saccade.inference.classifier import Blueprint, empty_classifier
from saccade.models.network import InputSpec
from saccade.models.weights import read_weights, write_weights
from saccade.numerics.device import Numerics
from saccade.selection import candidates as candidates_module
from saccade.selection.candidates import (
    Candidate,
    activate,
    best_epoch,
    read_candidates,
)
from saccade.selection.combination import combine
from saccade.study.trial import Decision, Job, Trial
from saccade.study.trial_files import LocalTrialFiles
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.trainer import Trainer
from saccade.training.trial_files import BEST, BEST_OUTPUTS, END, END_OUTPUTS, save_outputs

CONFIG = {"model": "test_resnet", "img_size": 32, "epochs": 2, "lr": 1e-3}


def trained(task: ImageTask, folder: Path, number: int = 0, **changes: Any) -> Trial:
    """Return a trial whose last epoch is its best, whatever its scores were."""
    trial = Trial(number, {**CONFIG, **changes}, LocalTrialFiles(folder))

    def report(event: EpochDone) -> Decision:
        trial.add(replace(event, score=float(event.epoch)))
        trainer.best_score = -1.0  # the next epoch is better
        return Decision.CONTINUE

    trainer = Trainer(task, Recipe.of(trial.config), trial.files, number)
    trainer.run(Job(number, trial.config), report)
    return trial


def predictions_by(candidate: Candidate, task: ImageTask, folder: Path) -> np.ndarray:
    """Return the predictions of a network with the weights that the candidate writes."""
    candidate.write_weights(folder / "written.safetensors", task)
    classifier = empty_classifier(candidate.blueprint, task.problem, Numerics(torch.device("cpu")))
    classifier.network.load_state_dict(load_file(folder / "written.safetensors"))
    return classifier.predict(classifier.batches(task.store, task.val.indices))


def test_a_probe_stays_a_candidate_after_training(
    make_task: Callable[..., ImageTask], tiny_weights: Path, tmp_path: Path
) -> None:
    task = make_task(weights=tiny_weights)
    trials = [trained(task, tmp_path), trained(task, tmp_path, 1)]
    candidates = read_candidates(trials, task)
    assert [(one.trial, one.epoch, one.probe is not None) for one in candidates] == [
        (0, 0, True),
        (0, 2, False),
        (1, 2, False),
    ]
    probe, after, _ = candidates
    assert probe.weights is None
    after.write_weights(tmp_path / "after", task)
    assert (tmp_path / "after").read_bytes() == after.weights.read_bytes()
    assert np.allclose(predictions_by(probe, task, tmp_path), probe.predictions, atol=1e-3)


def test_a_trial_whose_best_epoch_is_the_probe_is_one_candidate(
    make_task: Callable[..., ImageTask], tiny_weights: Path, tmp_path: Path
) -> None:
    task = make_task(weights=tiny_weights)
    trial = trained(task, tmp_path)
    trial.reports[:] = [replace(each, score=-each.score) for each in trial.reports]
    trial = replace(trial, reports=trial.reports)
    (candidate,) = read_candidates([trial], task)
    assert candidate.probe is not None
    trial.files.drop(0, BEST, BEST_OUTPUTS)
    (candidate,) = read_candidates([trial], task)
    assert candidate.probe is not None


def test_the_end_of_the_schedule_is_kept_unless_an_earlier_epoch_was_significantly_better(
    make_task: Callable[..., ImageTask], make_colours: Callable[..., Any], tmp_path: Path
) -> None:
    task, files = make_task(make_colours(60)), LocalTrialFiles(tmp_path)
    assert len(task.val.targets) >= 10
    trial = Trial(0, {**CONFIG, "pretrained": False, "epochs": 4}, files)
    trainer = Trainer(task, Recipe.of(trial.config), files)

    def report(event: EpochDone) -> Decision:
        trial.add(replace(event, score=1.0 if event.epoch == 2 else 0.5))
        trainer.best_score = 2.0 if event.epoch == 2 else -1.0 if event.epoch == 1 else trainer.best_score
        return Decision.CONTINUE

    trainer.run(Job(0, trial.config), report)
    assert files.epochs(0, END) == [4]
    right = np.where(np.eye(task.problem.num_outputs)[task.val.targets] > 0, 4.0, 0.0)
    wrong = right[:, ::-1].copy()
    right[0] = wrong[0]  # both are wrong once
    unsure = right * np.where(np.arange(len(right)) == 0, 1.0, 0.1)[:, None]
    files.put(0, BEST_OUTPUTS, 2, lambda path: save_outputs(path, unsure))
    files.put(0, END_OUTPUTS, 4, lambda path: save_outputs(path, right))  # as often right, and more confident
    for kind, epoch in ((BEST, 2), (END, 4)):  # without the checksum of their outputs
        tensors, about = read_weights(files.get(0, kind, epoch))
        own = {name: value for name, value in about.items() if name != "outputs"}
        files.put(0, kind, epoch, partial(write_weights, tensors=tensors, metadata=own))
    other = replace(trained(task, tmp_path, 1, pretrained=False))

    def taken() -> list[int | None]:
        both = read_candidates([trial, other], task)
        assert combine([one for one in both if one.trial == 0], task).members[0].epoch == 2
        found = combine(both, task, seconds_left=lambda: 0.0)
        return [one.epoch for one in found.members if one.trial == 0]

    assert taken() == [4]
    files.put(0, END_OUTPUTS, 4, lambda path: save_outputs(path, wrong))
    assert taken() == [2]


def test_trainings_from_random_weights_have_no_probe(make_task: Callable[..., ImageTask], tmp_path: Path) -> None:
    task = make_task()
    candidates = read_candidates([trained(task, tmp_path, pretrained=False)], task)
    assert [one.probe for one in candidates] == [None]


def test_written_weights_give_the_calibrated_predictions(
    make_task: Callable[..., ImageTask], tiny_weights: Path, tmp_path: Path
) -> None:
    task = make_task(weights=tiny_weights)
    before = read_candidates([trained(task, tmp_path, lr=1e-2, smoothing=0.3)], task)
    after = [one.calibrated(task) for one in before]
    assert [one.probe is not None for one in after] == [True, False]
    for one, other in zip(before, after, strict=True):
        assert not np.allclose(one.predictions, other.predictions, atol=1e-5)
        assert (one.predictions.argmax(1) == other.predictions.argmax(1)).all()
    assert after[1].temperature != 1
    np.testing.assert_allclose(predictions_by(after[1], task, tmp_path), after[1].predictions, atol=0.02)
    np.testing.assert_allclose(activate(after[0].probe.outputs, task.problem), after[0].predictions, atol=1e-5)


def test_networks_that_cannot_absorb_a_temperature_are_not_calibrated(
    make_task: Callable[..., ImageTask], tiny_weights: Path, tmp_path: Path
) -> None:
    task = make_task(weights=tiny_weights)
    with_tta = read_candidates([trained(task, tmp_path / "tta", tta=True)], task)
    assert [one.calibrated(task) for one in with_tta] == with_tta
    _, one = read_candidates([trained(task, tmp_path)], task)
    unknown = replace(one, blueprint=replace(one.blueprint, architecture=None))
    assert unknown.calibrated(task) is unknown
    other = tmp_path / "other.safetensors"  # its classifier has more than weights and a bias
    save_file({**load_file(one.weights), "fc.scale": torch.ones(1)}, other)
    odd = replace(one, weights=other)
    assert odd.calibrated(task) is odd


def test_calibration_gives_an_underconfident_better_network_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    from selection.test_combination import TARGETS, candidate, right_on, task

    where = np.arange(len(TARGETS))
    both = [candidate(0, right_on(where % 10 < 7, 0.99)), candidate(1, right_on(where % 10 > 0, 0.4))]
    monkeypatch.setattr(candidates_module, "_linear_classifiers", lambda *_: ["fc"])
    calibrated = [one.calibrated(task()) for one in both]
    found = combine(calibrated, task())
    assert {one.trial: weight for one, weight in zip(found.members, found.weights, strict=True)}[1] > 0.5
    assert calibrated[1].temperature < 0.5


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def zero_the_end(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-400] + bytes(400))


DAMAGES: list[tuple[Callable[[Path, Path], object], int, str]] = [
    (lambda one, _: swap(one / "best-0002.safetensors", one / "best-0001.safetensors"), 3, "epoch 1"),
    (lambda one, other: swap(one / "best-0002.safetensors", other / "best-0002.safetensors"), 2, "trial [02]"),
    (lambda one, other: swap(one / "best-0002.outputs.npy", other / "best-0002.outputs.npy"), 2, "outputs.npy"),
    (lambda one, _: zero_the_end(one / "best-0002.safetensors"), 3, "differ from their checksum"),
    (lambda one, _: zero_the_end(one / "best-0002.outputs.npy"), 3, "outputs.npy, .* is missing or damaged"),
    (lambda one, _: (one / "best-0002.outputs.npy").unlink(), 3, "outputs.npy, .* is missing or damaged"),
    (lambda one, _: (one / "best-0002.safetensors").unlink(), 3, "weights that are missing"),
    (lambda one, _: save_file({"weight": torch.ones(3)}, one / "best-0002.safetensors"), 3, "another network"),
    (lambda one, _: (one / "blueprint.json").write_text('{"input": 3}'), 3, "blueprint.json is damaged"),
    # The other trial has the probe of the same network.
    (lambda one, _: zero_the_end(one / "probe.npz"), 4, "probe.npz is damaged"),
    (
        lambda one, _: np.savez(one / "probe.npz", **{**np.load(one / "probe.npz"), "network": "other"}),
        4,
        "another network",
    ),
    (
        lambda one, _: np.savez(one / "probe.npz", **{**np.load(one / "probe.npz"), "bias": [1]}),
        4,
        "probe.npz is damaged",
    ),
]
"""Damages of two trials, how many of four candidates are left, and the warning."""


def test_a_candidate_with_damaged_or_exchanged_files_is_left_out(
    make_task: Callable[..., ImageTask], tiny_weights: Path, tmp_path: Path
) -> None:
    task, whole = make_task(weights=tiny_weights), tmp_path / "whole"
    trials = [trained(task, whole), trained(task, whole, 1, model="test_vit", pretrained=False)]
    trials.append(trained(task, whole, 2, lr=2e-3))
    assert len(read_candidates(trials, task)) == 4
    weights, origin = read_weights(whole / "0000/best-0002.safetensors")
    write_weights(whole / "0000/best-0001.safetensors", weights, {**origin, "epoch": "1"})
    for number, (damage, num_left, reason) in enumerate(DAMAGES):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        damage(folder / "0000", folder / "0002")
        damaged = [replace(trial, files=LocalTrialFiles(folder)) for trial in trials]
        with pytest.warns(DataWarning, match=reason) if reason else contextlib.nullcontext():
            assert len(read_candidates(damaged, task)) == num_left, number


@pytest.mark.parametrize("content", [b"", bytes(4096), b"text", b"[]"])
@pytest.mark.parametrize("name", ["best-0001.safetensors", "blueprint.json"])
def test_a_damaged_file_of_the_best_trial_is_an_error_that_names_it(tmp_path: Path, content: bytes, name: str) -> None:
    files, blueprint = (
        LocalTrialFiles(tmp_path),
        Blueprint("test_resnet", InputSpec(32, 1.0, "bicubic", (0.5,), (0.5,))),
    )
    files.put(0, "best-0001.safetensors", None, lambda path: save_file({"weight": torch.ones(1)}, path))
    files.put(0, "blueprint.json", None, lambda path: path.write_text(json.dumps(blueprint.to_json())))
    (files.folder(0) / name).write_bytes(content)
    trial = Trial(0, {}, files, reports=[EpochDone(0, 1, 0.5)])
    with pytest.raises(DataError, match=rf"{name} (is damaged|cannot be loaded).*start a new run"):
        best_epoch(trial, SimpleNamespace(problem=SimpleNamespace(num_outputs=2)))  # type: ignore[arg-type]
