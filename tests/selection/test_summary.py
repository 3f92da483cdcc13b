from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from saccade.events import EpochDone, JobFailed
from saccade.selection.summary import fit_summary, leaderboard, trial_rows
from saccade.study.trial import Status, Trial


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
    board = leaderboard(trial_rows([trial(0, 0.1, 0.7, 0.6), failed(1)]))
    assert list(board.columns) == [
        "trial",
        "status",
        "score_val",
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
    assert board.iloc[1]["reason"] == "it broke"
    assert math.isnan(board.iloc[1]["score_val"])


def test_the_summary_is_that_of_the_best_epoch() -> None:
    best = trial(1, 0.2, 0.9, 0.3)
    summary = fit_summary(best, [trial(0, 0.1), best], "accuracy", {"training": 12.0, "total": 12.5})
    assert (summary["train_acc"], summary["valid_acc"], summary["total_time"]) == (0.5, 0.9, 12.5)
    assert (summary["best_trial"], summary["best_epoch"], summary["num_trials"]) == (1, 2, 2)
    assert summary["fit_history"]["best_reward"] == 0.9
    assert list(summary["fit_history"]["config_history"]) == ["0", "1"]
