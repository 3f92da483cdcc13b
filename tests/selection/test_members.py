from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from saccade.inference.classifier import empty_classifier
from saccade.numerics.device import Numerics
from saccade.selection import members
from saccade.selection.candidates import Candidate, combine, read_candidates
from saccade.selection.members import calibrated, final_weights
from saccade.study.trial import Decision, Job, Trial
from saccade.training.recipes.recipe import Recipe
from saccade.training.task import ImageTask
from saccade.training.trial.trainer import Trainer

CONFIG = {"model": "test_resnet", "img_size": 32, "epochs": 2, "lr": 1e-2, "smoothing": 0.3}


def candidates_of(task: ImageTask, folder: Path, **changes: Any) -> list[Candidate]:
    """Return the candidates of a trial of two epochs, the last of which counts as the best."""
    trial = Trial(0, {**CONFIG, **changes}, str(folder / "0"))

    def report(event: Any) -> Decision:
        trial.add(replace(event, score=float(event.epoch)))
        trainer.best_score = -1.0
        return Decision.CONTINUE

    trainer = Trainer(task, Recipe.of(trial.config), Path(trial.folder))
    trainer.run(Job(0, trial.config), report)
    return read_candidates([trial], task)


def predictions_by(weights: Path, candidate: Candidate, task: ImageTask) -> np.ndarray:
    classifier = empty_classifier(candidate.blueprint, task.problem, Numerics(torch.device("cpu")))
    classifier.network.load_state_dict(load_file(weights))
    return classifier.predict(classifier.batches(task.store, task.val.indices))


def test_the_weights_of_a_member_predict_what_its_candidate_does(
    make_task: Callable[..., ImageTask], tiny_weights: Path, tmp_path: Path
) -> None:
    task = make_task(weights=tiny_weights)
    before = candidates_of(task, tmp_path)
    after = calibrated(before, task)
    assert [one.probe is not None for one in after] == [True, False]
    for one, other in zip(before, after, strict=True):
        assert not np.allclose(one.predictions, other.predictions, atol=1e-5)
        assert (one.predictions.argmax(1) == other.predictions.argmax(1)).all()
    assert before[1].temperature == 1 != after[1].temperature
    path = final_weights(after[1], task, tmp_path / "layers")
    np.testing.assert_allclose(predictions_by(path, after[1], task), after[1].predictions, atol=0.02)
    assert after[0].probe is not None
    np.testing.assert_allclose(members.activated(after[0].probe.outputs, task.problem), after[0].predictions, atol=1e-5)


def test_what_cannot_take_a_temperature_in_stays_as_it_is(
    make_task: Callable[..., ImageTask], tiny_weights: Path, tmp_path: Path
) -> None:
    task = make_task(weights=tiny_weights)
    with_tta = candidates_of(task, tmp_path / "tta", tta=True)
    assert calibrated(with_tta, task) == with_tta
    (trained,) = (one for one in candidates_of(task, tmp_path) if one.probe is None)
    unknown = replace(trained, blueprint=replace(trained.blueprint, architecture=None))
    assert calibrated([unknown], task)[0] is unknown
    assert trained.weights is not None
    other = tmp_path / "other.safetensors"  # its last layer has something beside weights and a bias
    save_file({**load_file(trained.weights), "fc.scale": torch.ones(1)}, other)
    odd = replace(trained, weights=other)
    assert calibrated([odd], task)[0] is odd


def test_an_ensemble_takes_a_network_that_knows_more_and_is_less_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.test_candidates import TARGETS, candidate, knows, task  # made-up predictions

    where = np.arange(len(TARGETS))
    sure, modest = candidate(0, knows(where % 10 < 7, 0.99)), candidate(1, knows(where % 10 > 0, 0.4))
    blueprint = type("Blueprint", (), {"tta": False})()
    both = [replace(one, blueprint=blueprint) for one in (sure, modest)]
    monkeypatch.setattr(members, "_last_layers", lambda *_: ["fc"])
    weights = {one.trial: weight for one, weight in _members(combine(calibrated(both, task()), task()))}
    assert weights[1] > 0.5
    assert calibrated(both, task())[1].temperature < 0.5


def _members(combination: Any) -> Any:
    return zip(combination.members, combination.weights, strict=True)
