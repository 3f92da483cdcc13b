"""What trained networks leave behind for the end of a search: their weights, and the probes that they began with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from saccade.events import EpochDone
from saccade.inference.classifier import empty_classifier
from saccade.numerics.device import Numerics
from saccade.selection.candidates import combine, read_candidates
from saccade.selection.members import final_weights
from saccade.study.trial import Decision, Job, Trial
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.trainer import Trainer
from saccade.training.trial_files import drop_files, end_files, last_end, outputs_file, save_outputs

CONFIG = {"model": "test_resnet", "img_size": 32, "epochs": 2, "lr": 1e-3}


def trained(task: ImageTask, folder: Path, number: int = 0, **changes: Any) -> Trial:
    """A trial whose last epoch is its best, whatever its scores were."""
    trial = Trial(number, {**CONFIG, **changes}, str(folder / str(number)))

    def report(event: EpochDone) -> Decision:
        trial.add(replace(event, score=float(event.epoch)))
        trainer.best_score = -1.0  # the next epoch is better
        return Decision.CONTINUE

    trainer = Trainer(task, Recipe.of(trial.config), Path(trial.folder))
    trainer.run(Job(number, trial.config), report)
    return trial


def test_a_probe_outlives_the_training_that_made_the_network_better(
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
    path = final_weights(probe, task, tmp_path / "layers")
    assert final_weights(after, task, tmp_path / "layers") == after.weights

    classifier = empty_classifier(probe.blueprint, task.problem, Numerics(torch.device("cpu")))
    classifier.network.load_state_dict(load_file(path))
    predictions = classifier.predict(classifier.batches(task.store, task.val.indices))
    assert np.allclose(predictions, probe.predictions, atol=1e-3)


def test_a_trial_that_was_best_before_training_is_one_candidate(
    make_task: Callable[..., ImageTask], tiny_weights: Path, tmp_path: Path
) -> None:
    task = make_task(weights=tiny_weights)
    trial = trained(task, tmp_path)
    trial.reports[:] = [replace(each, score=-each.score) for each in trial.reports]
    trial = replace(trial, reports=trial.reports)
    (candidate,) = read_candidates([trial], task)
    assert candidate.probe is not None
    drop_files(Path(trial.folder), "best")
    (candidate,) = read_candidates([trial], task)
    assert candidate.probe is not None


def test_the_end_of_a_training_is_taken_where_an_earlier_epoch_was_better_by_chance_alone(
    make_task: Callable[..., ImageTask], make_colours: Callable[..., Any], tmp_path: Path
) -> None:
    task, folder = make_task(make_colours(60)), tmp_path / "0"
    assert len(task.val.targets) >= 10  # on fewer nothing can be told
    trial = Trial(0, {**CONFIG, "pretrained": False, "epochs": 4}, str(folder))
    trainer = Trainer(task, Recipe.of(trial.config), folder)

    def report(event: EpochDone) -> Decision:
        trial.add(replace(event, score=1.0 if event.epoch == 2 else 0.5))
        trainer.best_score = 2.0 if event.epoch == 2 else -1.0 if event.epoch == 1 else trainer.best_score
        return Decision.CONTINUE

    trainer.run(Job(0, trial.config), report)
    assert last_end(folder) == 4
    right = np.where(np.eye(task.problem.num_outputs)[task.val.targets] > 0, 4.0, 0.0)
    wrong = right[:, ::-1].copy()
    right[0] = wrong[0]  # both are wrong once
    unsure = right * np.where(np.arange(len(right)) == 0, 1.0, 0.1)[:, None]
    save_outputs(outputs_file(folder, 2), unsure)
    save_outputs(end_files(folder, 4)[1], right)  # as often right, and surer of that
    other = replace(trained(task, tmp_path, 1, pretrained=False))

    def taken() -> list[int | None]:
        both = read_candidates([trial, other], task)
        assert combine([one for one in both if one.trial == 0], task).members[0].epoch == 2  # what is judged alone
        found = combine(both, task, seconds_left=lambda: 0.0)
        return [one.epoch for one in found.members if one.trial == 0]

    assert taken() == [4]
    save_outputs(end_files(folder, 4)[1], wrong)
    assert taken() == [2]


def test_trainings_from_random_weights_have_no_probe(make_task: Callable[..., ImageTask], tmp_path: Path) -> None:
    task = make_task()
    candidates = read_candidates([trained(task, tmp_path, pretrained=False)], task)
    assert [one.probe for one in candidates] == [None]
