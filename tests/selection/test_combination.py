"""The selection of one network or an ensemble, on synthetic predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from saccade.events import EpochDone, JobFailed
from saccade.models.network import CustomObject
from saccade.selection.candidates import Candidate, ranked, read_predictions
from saccade.selection.combination import combine
from saccade.selection.ensemble import MIN_IMAGES
from saccade.study.trial import Status, Trial
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Multiclass
from saccade.training.probes.final_probe import FinalProbe
from saccade.training.trial_files import save_outputs

PROBLEM = Multiclass(tuple("abcd"))
NUM = 80
TARGETS = np.arange(NUM) % 4


def task(metric: str | None = None) -> Any:
    return SimpleNamespace(
        val=SimpleNamespace(targets=TARGETS, groups=None), problem=PROBLEM, metric=make_metric(metric, PROBLEM)
    )


def right_on(images: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """Return predictions that are right on these images, and on the others favour the next class."""
    right = np.where(images, sure, 0.25)[:, None]
    others = (1 - right) / 3
    return np.where(np.eye(4)[TARGETS] > 0, right, others) + 0.01 * np.eye(4)[(TARGETS + 1) % 4]


def candidate(trial: int, predictions: np.ndarray, own: CustomObject | None = None) -> Candidate:
    config = {"model": own or f"net{trial}"}
    normalised = predictions / predictions.sum(1, keepdims=True)
    return Candidate(trial, config, SimpleNamespace(tta=False), normalised, 1, Path(f"{trial}"))


FIRST, SECOND, BOTH = np.arange(NUM) < NUM // 2, np.arange(NUM) >= NUM // 2, np.ones(NUM, bool)


def test_complementary_networks_become_a_cross_fitted_ensemble() -> None:
    found = combine([candidate(4, right_on(FIRST)), candidate(2, right_on(SECOND, 0.85))], task())
    assert [one.trial for one in found.members] == [4, 2]
    assert sum(found.weights) == pytest.approx(1)
    scores = found.cross_fitted_scores
    assert scores["ensemble"] == found.evaluation.score > 0.9 > 0.6 > scores["single"]
    assert found.score_how.startswith("cross-fitted")
    parts = [weight * one.predictions for weight, one in zip(found.weights, found.members, strict=True)]
    assert np.allclose(found.predictions, sum(parts))


def test_a_perfect_network_is_selected_alone() -> None:
    found = combine([candidate(0, right_on(BOTH)), candidate(1, right_on(FIRST))], task())
    assert ([one.trial for one in found.members], found.weights) == ([0], [1.0])
    assert found.cross_fitted_scores["single"] == 1
    assert found.evaluation is None


def test_max_members_1_selects_one_network() -> None:
    found = combine([candidate(0, right_on(FIRST)), candidate(1, right_on(SECOND))], task(), max_members=1)
    assert len(found.members) == 1
    assert found.cross_fitted_scores is None


def test_without_time_an_ensemble_is_not_cross_fitted() -> None:
    found = combine([candidate(0, right_on(FIRST)), candidate(1, right_on(SECOND))], task(), seconds_left=lambda: 0.0)
    assert len(found.members) == 2
    assert found.cross_fitted_scores is None
    assert "no time" in found.score_how


def test_among_equal_scores_the_smaller_loss_is_best() -> None:
    found = combine([candidate(0, right_on(BOTH, 0.6)), candidate(1, right_on(BOTH, 0.9))], task(), max_members=1)
    assert found.members[0].trial == 1


def test_an_ensemble_has_at_most_one_network_of_the_users_own() -> None:
    mine, other = CustomObject(object), CustomObject(int)
    half = candidate(0, right_on(FIRST, 0.95), own=mine)
    found = combine([half, candidate(1, right_on(SECOND), own=other)], task())
    assert found.members == [half]
    found = combine([half, candidate(1, right_on(SECOND), own=mine), candidate(2, right_on(SECOND, 0.5))], task())
    assert {one.own_network for one in found.members} <= {mine, None}
    assert len(found.members) > 1


def probe(trial: int, known: np.ndarray, rows: np.ndarray, unseen_known: np.ndarray) -> Candidate:
    """Return a probe that is right on these validation images, and on the training images `unseen_known`."""
    unseen = np.log(right_on(unseen_known) / right_on(unseen_known).sum(1, keepdims=True))
    layer = np.zeros((4, 3), np.float32), np.zeros(4, np.float32)
    one = candidate(trial, right_on(known))
    final = FinalProbe(rows, unseen[rows], np.zeros(0), "fc", *layer, "test_resnet")
    return Candidate(trial, one.config, one.blueprint, one.predictions, 0, probe=final)


def probe_task() -> Any:
    return SimpleNamespace(**{**vars(task()), "train": SimpleNamespace(targets=TARGETS)})


def test_probes_are_weighted_by_their_out_of_fold_predictions() -> None:
    rows, none = np.random.default_rng(0).permutation(NUM), np.zeros(NUM, bool)
    # Their predictions for validation images would select the other one.
    first, second = probe(0, BOTH, rows, none), probe(1, FIRST, rows[::-1], BOTH)
    found = combine([first, second], probe_task())
    assert [one.trial for one in found.members] == [1]

    found = combine([probe(0, FIRST, rows, FIRST), probe(1, SECOND, rows, SECOND)], probe_task())
    assert sorted(one.trial for one in found.members) == [0, 1]
    assert found.cross_fitted_scores is None
    assert found.evaluation.score > 0.9


def test_an_ensemble_may_contain_probes_and_a_trained_network() -> None:
    rows, thirds = np.arange(NUM), np.arange(NUM) * 3 // NUM
    probes = [probe(number, thirds == number, rows, thirds == number) for number in (0, 1)]
    trained = candidate(2, right_on(thirds == 2, 0.85))
    found = combine([trained, *probes], probe_task())
    assert sorted(one.trial for one in found.members) == [0, 1, 2]
    assert found.evaluation.score == found.cross_fitted_scores["ensemble"]
    assert sum(found.weights) == pytest.approx(1)
    assert len(combine([trained, *probes], probe_task(), max_members=2).members) == 2


def test_too_few_validation_images_select_the_mean_of_probes() -> None:
    def few(one: Candidate) -> Candidate:
        return replace(one, predictions=one.predictions[: MIN_IMAGES - 1])

    rows, given = np.arange(NUM), probe_task()
    candidates = [probe(0, FIRST, rows, FIRST), probe(1, FIRST, rows, SECOND), candidate(2, right_on(BOTH))]
    assert 2 in {one.trial for one in combine(candidates, given).members}
    given.val.targets = TARGETS[: MIN_IMAGES - 1]
    found = combine([few(one) for one in candidates], given)
    assert {one.trial for one in found.members} == {0, 1}
    assert "not used to select" in found.score_how


def test_missing_or_incomplete_outputs_give_no_predictions(tmp_path: Path) -> None:
    path = tmp_path / "some.npy"
    assert read_predictions(path, task()) is None
    save_outputs(path, np.zeros((NUM, 4)))
    assert np.allclose(read_predictions(path, task()), 0.25)
    path.write_bytes(path.read_bytes()[:-8])
    assert read_predictions(path, task()) is None
    for odd in (np.zeros((NUM - 1, 4)), np.zeros((NUM, 3)), np.full((NUM, 4), np.nan)):
        save_outputs(path, odd)
        assert read_predictions(path, task()) is None


def test_failed_trials_are_not_ranked() -> None:
    trials = [Trial(number, {}, reports=[EpochDone(number, 1, score)]) for number, score in enumerate([0.5, 0.9, 0.5])]
    trials[1].status, trials[1].failure = Status.FAILED, JobFailed(1, "out of memory")
    assert [trial.number for trial in ranked([*trials, Trial(3, {})])] == [0, 2]
