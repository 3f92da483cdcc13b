"""`saccade compare`: the table, the page, and errors."""

from __future__ import annotations

import shutil

import pytest


def test_runs_are_compared_and_an_unfinished_one_has_a_row(saccade, fitted, splits, tmp_path):
    run = fitted[0]
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    shutil.rmtree(unfinished / "predictor")
    page = tmp_path / "compare.html"
    result = saccade("compare", run, run, unfinished, "--data", splits, "--metric", "f1", "--out", page)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[1].split()[:3] == ["run", "f1", "95%"]
    assert any("run (2)" in line and "no clear difference" in line and "1.000" in line for line in lines)
    assert any("unfinished" in line and "not finished, 1 trial" in line for line in lines)
    assert "images: 6 test images" in lines
    assert lines[-1] == f"written to {page}"
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_without_data_the_stored_predictions_are_compared(saccade, fitted):
    result = saccade("compare", fitted[0], fitted[0])
    assert result.exit_code == 0, result.stderr
    assert "validation images that all compared runs held out" in result.stdout
    assert "selected on these images" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN",), "at least two runs"),
        (("RUN", "nowhere"), "nowhere does not exist"),
        (("RUN", "RUN", "--metric", "f1_makro"), "Did you mean 'f1_macro'"),
        (("RUN", "RUN", "--interval", "95"), "interval was given 95"),
        (("RUN", "RUN", "--out", "no/such/folder.html"), "does not exist"),
    ],
)
def test_errors_are_one_paragraph(saccade, fitted, arguments, message):
    result = saccade("compare", *(fitted[0] if each == "RUN" else each for each in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
