"""`saccade choose`: select a predictor of a search with several objectives."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def several(saccade, splits, tmp_path_factory):
    """Return the run folder of a search with two objectives, and the result of the command."""
    run = tmp_path_factory.mktemp("several") / "run"
    small = ("--set", "img_size=64", "--set", "pretrained=False", "--set", "batch_size=8", "--set", "epochs=1",
             "--executor", "inline")  # fmt: skip
    models = ("--model", "test_resnet,test_vit", "--searcher", "grid")
    result = saccade("fit", splits, *models, *small, "--out", run, "--objectives", "accuracy,params,latency")
    return run, result


def test_the_table_of_trials_has_costs_and_the_front(several):
    _, result = several
    assert result.exit_code == 0, result.stderr
    assert all(head in result.stdout for head in ("ms/image", "parameters", "on front"))
    assert "*" in result.stdout


def test_the_chosen_predictor_is_saved_and_usable(saccade, several, splits, tmp_path):
    run, _ = several
    result = saccade("choose", run, "--max-latency-ms", "1e6", "--out", tmp_path / "chosen")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"predictor {tmp_path / 'chosen'}"
    evaluated = saccade("evaluate", tmp_path / "chosen", splits)
    assert evaluated.exit_code == 0, evaluated.stderr
    assert "top1" in evaluated.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-params", "1"), "no trial is within these limits; the choices are:"),
        (("--max-bytes", "1e9"), "is not an objective of this search"),
    ],
)
def test_impossible_limits_are_errors_and_nothing_is_saved(saccade, several, tmp_path, arguments, message):
    run, _ = several
    result = saccade("choose", run, *arguments, "--out", tmp_path / "chosen")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "chosen").exists()


def test_objectives_without_a_score_are_refused(saccade, splits, tmp_path):
    result = saccade("fit", splits, "--objectives", "latency", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "add the score" in result.stderr
