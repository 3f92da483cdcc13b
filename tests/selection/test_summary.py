from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.events import EpochDone, JobFailed
from saccade.selection.candidates import Candidate
from saccade.selection.combination import Combination
from saccade.selection.ensemble import Evaluation
from saccade.selection.summary import leaderboard, result_summary, search_summary, trial_rows
from saccade.study.trial import Status, Trial
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Problem
from saccade.training.probes.final_probe import FinalProbe


def trial(number: int, *scores: float) -> Trial:
    reports = [
        EpochDone(number, epoch, score, 2.0, {"top1": score, "train_acc": 0.5}) for epoch, score in enumerate(scores, 1)
    ]
    return Trial(number, {"lr": 0.1 * number, "epochs": 9}, status=Status.COMPLETED, reports=reports)


def failed(number: int) -> Trial:
    return Trial(number, {"lr": 9.0}, status=Status.FAILED, failure=JobFailed(number, "it broke", "Traceback"))


@given(st.lists(st.lists(st.floats(-1, 1), max_size=4), min_size=1, max_size=6))
def test_rows_are_sorted_by_their_best_score_and_are_json(scores: list[list[float]]) -> None:
    trials = [trial(number, *some) if some else failed(number) for number, some in enumerate(scores)]
    rows = json.loads(json.dumps(trial_rows(trials)))
    found = [row["score_val"] for row in rows]
    known = [score for score in found if score is not None]
    assert known == sorted((max(some) for some in scores if some), reverse=True)
    assert found[len(known) :] == [None] * (len(scores) - len(known))
    assert sorted(row["trial"] for row in rows) == list(range(len(scores)))


def test_the_leaderboard_has_a_column_for_each_hyperparameter() -> None:
    board = leaderboard(trial_rows([trial(0, 0.1, 0.7, 0.6), failed(1)]), {0: 1.0})
    assert list(board.columns) == [
        "trial",
        "status",
        "score_val",
        "weight",
        "images_per_s",
        "epochs_done",
        "best_epoch",
        "fit_time_s",
        "lr",
        "epochs",
        "reason",
    ]
    best = board.iloc[0]
    assert (best["trial"], best["status"], best["score_val"]) == (0, "completed", 0.7)
    assert (best["epochs_done"], best["best_epoch"], best["fit_time_s"], best["reason"]) == (3, 2, 6.0, "")
    assert board["weight"].tolist() == [1, 0]
    assert board.iloc[1]["reason"] == "it broke"
    assert math.isnan(board.iloc[1]["score_val"])


def test_the_best_trial_is_the_first_row_of_the_leaderboard() -> None:
    rows = trial_rows([trial(0, 0.1), trial(1, 0.2, 0.9, 0.3)])
    summary = search_summary(rows, "accuracy", {"training": 12.0, "total": 12.5})
    assert (summary["best_trial"], summary["best_epoch"], summary["num_trials"]) == (1, 2, 2)
    assert summary["best_config"] == summary["fit_history"]["best_config"] == rows[0]["config"]
    assert summary["fit_history"]["best_reward"] == rows[0]["score_val"] == 0.9
    assert list(summary["fit_history"]["config_history"]) == ["0", "1"]
    assert summary["total_time"] == 12.5
    tied = [trial(0, 0.9), trial(1, 0.9), trial(2, 0.8)]
    assert [row["trial"] for row in trial_rows(tied, selected=[1])] == [1, 0, 2]


TRIALS = [trial(0, 0.85), trial(1, 0.95), trial(2, 0.5)]


def member(number: int, **changes: Any) -> Candidate:
    one = Candidate(number, TRIALS[number].config, None, np.zeros((4, 2)), 1, Path("none"))  # type: ignore[arg-type]
    return replace(one, **changes)


def summary_of(combination: Combination, score: float, metric: str = "accuracy") -> dict[str, Any]:
    problem = Problem.of([0.5, 1.25, 2.0] if metric == "rmse" else ["a", "b"])
    evaluation = Evaluation(score, {"top1": score}, combination.predictions, np.zeros(0))
    first = TRIALS[combination.members[0].trial]
    task: Any = SimpleNamespace(metric=make_metric(metric, problem), num_val_seen=0)
    return result_summary(combination, evaluation, first, trial_rows(TRIALS), task)


def combination(*numbers: int, **fields: Any) -> Combination:
    weights = [1 / len(numbers)] * len(numbers)
    return Combination([member(number) for number in numbers], weights, np.zeros((4, 2)), np.zeros(4), **fields)


@pytest.mark.parametrize(
    ("given", "score", "line", "how", "why"),
    [
        (combination(1), 0.95, "trial 1, accuracy 0.95", "on the validation images, by which the best of 3", ""),
        (
            combination(1, 0, score_how="cross-fitted: x", cross_fitted_scores={"ensemble": 0.85, "single": 0.8}),
            0.85,
            "ensemble of trials 1 and 0, accuracy 0.85 (best single: trial 1, 0.95)",
            "cross-fitted",
            "the best single network scores 0.8 and the ensemble 0.85",
        ),
        (
            combination(1, 0, 2),
            0.96,
            "ensemble of trials 1, 0 and 2, accuracy 0.96 (best single: trial 1, 0.95)",
            "",
            "",
        ),
        (
            combination(0, 0),
            0.9,
            "ensemble of 2 networks of trial 0, accuracy 0.9 (best single: trial 1, 0.95)",
            "",
            "selected for its score",
        ),
        (
            combination(1, 1, num_folds=2, score_how="out of fold"),
            0.9,
            "2 folds of trial 1, accuracy 0.9 (best single: trial 1, 0.95)",
            "out of fold",
            "out-of-fold scores",
        ),
        (
            combination(1, is_refit=True),
            0.95,
            "refit of trial 1, accuracy 0.95 before the refit",
            "before the refit",
            "",
        ),
        (
            combination(1),
            0.9,
            "trial 1, accuracy 0.9 (0.95 without calibration and thresholds)",
            "",
            "without calibration",
        ),
        (combination(0), 0.85, "trial 0, accuracy 0.85 (best single: trial 1, 0.95)", "", "limits of its costs"),
    ],
)
def test_the_result_is_described_in_one_line(given: Combination, score: float, line: str, how: str, why: str) -> None:
    summary = summary_of(given, score)
    assert summary["result"] == line
    assert how in summary["valid_score_how"]
    assert why in summary["why_not_best_trial"]
    assert bool(summary["why_not_best_trial"]) == (score < 0.95)
    assert summary["valid_acc"] == summary["valid_score"] == score
    assert len(summary["ensemble"]) == (len(given.members) if len(given.members) > 1 else 0)
    assert summary["train_acc"] == 0.5


def test_the_result_shows_errors_as_positive_numbers() -> None:
    assert summary_of(combination(0), -0.5, "rmse")["result"].startswith("trial 0, rmse 0.5 (best single")


def test_a_probe_of_all_images_has_no_validation_images_left() -> None:
    probe = FinalProbe(*[np.zeros(0)] * 3, "fc", *[np.zeros(0)] * 2, "test_resnet", has_seen_val=True)
    own = (1, TRIALS[1].config, None, np.zeros((4, 2)), 0)
    given = replace(combination(1), members=[Candidate(*own, probe=probe)])  # type: ignore[arg-type]
    assert "before the linear probe was fitted to all images" in summary_of(given, 0.95)["valid_score_how"]
