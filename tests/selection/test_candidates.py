"""The choice between one network and an ensemble, by made-up predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from saccade.events import EpochDone, JobFailed
from saccade.models.custom import OwnPart
from saccade.selection.candidates import Candidate, combine, mean_predictions, ranked, read_predictions
from saccade.selection.ensemble import LEAST_IMAGES
from saccade.selection.summary import combined_figures
from saccade.study.trial import Status, Trial
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Problem
from saccade.training.probes.final_probe import FinalProbe
from saccade.training.trial_files import save_outputs

PROBLEM = Problem("multiclass", tuple("abcd"))
NUM = 80
TARGETS = np.arange(NUM) % 4


def task(metric: str | None = None) -> Any:
    return SimpleNamespace(val=SimpleNamespace(targets=TARGETS), problem=PROBLEM, metric=make_metric(metric, PROBLEM))


def knows(images: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """Predictions of a model that knows these images, and of the others thinks that they are of the next class."""
    right = np.where(images, sure, 0.25)[:, None]
    others = (1 - right) / 3
    return np.where(np.eye(4)[TARGETS] > 0, right, others) + 0.01 * np.eye(4)[(TARGETS + 1) % 4]


def candidate(trial: int, predictions: np.ndarray, **changes: Any) -> Candidate:
    own = changes.pop("own", None)
    config = {"model": own or f"net{trial}"}
    return replace(
        Candidate(trial, config, None, Path(f"{trial}"), predictions / predictions.sum(1, keepdims=True)), **changes
    )


FIRST, SECOND, BOTH = np.arange(NUM) < NUM // 2, np.arange(NUM) >= NUM // 2, np.ones(NUM, bool)


def test_what_completes_each_other_becomes_an_ensemble_judged_on_other_images() -> None:
    found = combine([candidate(4, knows(FIRST)), candidate(2, knows(SECOND, 0.85))], task())
    assert [one.trial for one in found.members] == [4, 2]
    assert sum(found.weights) == pytest.approx(1)
    assert found.ensemble is not None
    assert found.single is not None
    assert found.judgement == found.ensemble
    assert found.ensemble.score > 0.9 > 0.6 > found.single.score
    mean = mean_predictions(found)
    parts = [weight * one.predictions for weight, one in zip(found.weights, found.members, strict=True)]
    assert np.allclose(mean, sum(parts))


def test_what_one_network_knows_alone_needs_no_other() -> None:
    found = combine([candidate(0, knows(BOTH)), candidate(1, knows(FIRST))], task())
    assert ([one.trial for one in found.members], found.weights) == ([0], [1.0])
    assert found.judgement.score == 1


def test_no_ensemble_where_none_is_wanted() -> None:
    found = combine([candidate(0, knows(FIRST)), candidate(1, knows(SECOND))], task(), max_members=1)
    assert len(found.members) == 1
    assert found.ensemble is None


def test_without_time_an_ensemble_is_not_cross_fitted_and_says_so() -> None:
    found = combine([candidate(0, knows(FIRST)), candidate(1, knows(SECOND))], task(), seconds_left=lambda: 0.0)
    assert len(found.members) == 2
    assert found.ensemble is None
    assert found.is_judged_by_choice
    assert "no time" in combined_figures(found, 2)["valid_score_how"]


def test_of_equal_scores_the_one_that_is_surer_is_best() -> None:
    found = combine([candidate(0, knows(BOTH, 0.6)), candidate(1, knows(BOTH, 0.9))], task(), max_members=1)
    assert found.members[0].trial == 1


def test_there_is_one_network_of_the_users_own_at_most() -> None:
    mine, other = OwnPart(object), OwnPart(int)
    half = candidate(0, knows(FIRST, 0.95), own=mine)
    found = combine([half, candidate(1, knows(SECOND), own=other)], task())
    assert found.members == [half]
    found = combine([half, candidate(1, knows(SECOND), own=mine), candidate(2, knows(SECOND, 0.5))], task())
    assert {one.own_network for one in found.members} <= {mine, None}
    assert len(found.members) > 1


def probe(trial: int, known: np.ndarray, rows: np.ndarray, unseen_known: np.ndarray) -> Candidate:
    """A probe that knows these held-out images, and of the training images `unseen_known`."""
    unseen = np.log(knows(unseen_known) / knows(unseen_known).sum(1, keepdims=True))
    layer = np.zeros((4, 3), np.float32), np.zeros(4, np.float32)
    return candidate(trial, knows(known), probe=FinalProbe(rows, unseen[rows], np.zeros(0), "fc", *layer))


def probe_task() -> Any:
    return SimpleNamespace(**{**vars(task()), "train": SimpleNamespace(targets=TARGETS)})


def test_probes_are_weighed_by_training_images_that_they_have_not_learned_from() -> None:
    rows, none = np.random.default_rng(0).permutation(NUM), np.zeros(NUM, bool)
    # What they say of the held-out images is misleading, but those are few beside the training images.
    first, second = probe(0, BOTH, rows, none), probe(1, FIRST, rows[::-1], BOTH)
    found = combine([first, second], probe_task())
    assert [one.trial for one in found.members] == [1]
    assert found.judgement.score < 0.6  # told as it is on the held-out images

    found = combine([probe(0, FIRST, rows, FIRST), probe(1, SECOND, rows, SECOND)], probe_task())
    assert sorted(one.trial for one in found.members) == [0, 1]
    assert found.ensemble is None
    assert found.judgement.score > 0.9


def test_a_mean_of_probes_and_a_trained_network_may_complete_each_other() -> None:
    rows, thirds = np.arange(NUM), np.arange(NUM) * 3 // NUM
    probes = [probe(number, thirds == number, rows, thirds == number) for number in (0, 1)]
    trained = candidate(2, knows(thirds == 2, 0.85))
    found = combine([trained, *probes], probe_task())
    assert sorted(one.trial for one in found.members) == [0, 1, 2]
    assert found.judgement == found.ensemble
    assert sum(found.weights) == pytest.approx(1)
    assert len(combine([trained, *probes], probe_task(), max_members=2).members) == 2


def test_by_too_few_images_no_training_is_better_than_the_mean_of_probes() -> None:
    def few(one: Candidate) -> Candidate:
        return replace(one, predictions=one.predictions[: LEAST_IMAGES - 1])

    rows, given = np.arange(NUM), probe_task()
    candidates = [probe(0, FIRST, rows, FIRST), probe(1, FIRST, rows, SECOND), candidate(2, knows(BOTH))]
    assert 2 in {one.trial for one in combine(candidates, given).members}
    given.val.targets = TARGETS[: LEAST_IMAGES - 1]
    found = combine([few(one) for one in candidates], given)
    assert {one.trial for one in found.members} == {0, 1}
    assert "had no part in the choice" in combined_figures(found, 3)["valid_score_how"]


def test_outputs_of_other_images_or_none_are_no_predictions(tmp_path: Path) -> None:
    path = tmp_path / "some.npy"
    assert read_predictions(path, task()) is None
    save_outputs(path, np.zeros((NUM, 4)))
    assert np.allclose(read_predictions(path, task()), 0.25)
    path.write_bytes(path.read_bytes()[:-8])
    assert read_predictions(path, task()) is None
    for odd in (np.zeros((NUM - 1, 4)), np.zeros((NUM, 3)), np.full((NUM, 4), np.nan)):
        save_outputs(path, odd)
        assert read_predictions(path, task()) is None


def test_failed_trials_have_no_rank() -> None:
    trials = [Trial(number, {}, reports=[EpochDone(number, 1, score)]) for number, score in enumerate([0.5, 0.9, 0.5])]
    trials[1].status, trials[1].failure = Status.FAILED, JobFailed(1, "it is gone")
    assert [trial.number for trial in ranked([*trials, Trial(3, {})])] == [0, 2]
