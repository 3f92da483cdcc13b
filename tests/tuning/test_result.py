from __future__ import annotations

import pytest

from saccade.errors import HyperparameterError, SearchFailedError
from saccade.events import EpochDone, JobFailed
from saccade.study.trial import Status, Trial
from saccade.tuning import TrialResult, TuneResult


def trial(number, *scores, status=Status.COMPLETED, **config):
    reports = [EpochDone(number, epoch, score, 1.5, {"loss": -score}) for epoch, score in enumerate(scores, start=1)]
    failure = JobFailed(number, "ValueError: bad", "the traceback") if status is Status.FAILED else None
    return Trial(number, {"lr": 0.1, **config}, status=status, reports=reports, failure=failure)


TRIALS = [
    trial(0, 0.5, 0.7, 0.6),
    trial(1, 0.9, status=Status.FAILED),
    trial(2, 0.8),
    trial(3, 0.8),
    trial(4, status=Status.FAILED),
]


def test_the_best_is_the_earliest_of_those_that_did_not_fail():
    result = TuneResult.of(TRIALS, "accuracy", "max", None)
    assert (result.best_trial.number, result.best_score, result.best_config) == (2, 0.8, {"lr": 0.1})
    assert result.best_checkpoint is None
    assert repr(result) == "<TuneResult of 5 trials, best accuracy 0.8>"


def test_minimised_scores_have_their_own_sign():
    result = TuneResult.of([trial(0, -3.0, -2.0), trial(1, -2.5)], "loss", "min", None)
    assert (result.best_score, result.best_trial.best_epoch) == (2.0, 2)
    assert [report["loss"] for report in result.trials[0].reports] == [3.0, 2.0]
    assert result.leaderboard()["loss"].tolist() == [2.0, 2.5]


def test_the_leaderboard():
    board = TuneResult.of(TRIALS, "accuracy", "max", None).leaderboard()
    assert board["trial"].tolist() == [2, 3, 0, 1, 4]
    assert board.columns.tolist() == [
        *("trial", "status", "accuracy", "epochs_done", "best_epoch", "fit_time_s", "lr", "reason"),
    ]
    assert board.iloc[2].tolist() == [0, "completed", 0.7, 3, 2, 4.5, 0.1, ""]
    assert board["reason"].tolist()[-2:] == ["ValueError: bad"] * 2


def test_hyperparameters_that_are_named_like_a_column():
    board = TuneResult.of(
        [trial(0, 0.5, status=Status.COMPLETED, accuracy=3, trial=7)], "accuracy", "max", None
    ).leaderboard()
    assert board.iloc[0][["trial", "accuracy", "config.trial", "config.accuracy"]].tolist() == [0, 0.5, 7, 3]


def test_a_failure_has_its_traceback():
    failed = TrialResult.of(TRIALS[1], "accuracy", "max")
    assert (failed.status, failed.reason, failed.traceback) == ("failed", "ValueError: bad", "the traceback")


@pytest.mark.parametrize("trials", [[], [TRIALS[4]], [TRIALS[1]]])
def test_without_a_score_there_is_no_best(trials):
    result = TuneResult.of(trials, "accuracy", "max", None)
    with pytest.raises(SearchFailedError, match=f"no trial of {len(trials)} has a score"):
        result.best_config  # noqa: B018
    assert len(result.leaderboard()) == len(trials)
    assert "best" not in repr(result)


def test_a_result_does_not_change_with_its_trials():
    one = trial(0, 0.5, layers=[1, 2])
    result = TuneResult.of([one], "accuracy", "max", None)
    one.config["layers"].append(3)
    assert result.best_config["layers"] == [1, 2]


def test_a_folder_without_a_search(tmp_path):
    with pytest.raises(HyperparameterError, match="contains no search"):
        TuneResult.load(tmp_path)
