from __future__ import annotations

import pytest
from typer.testing import CliRunner

from saccade.cli import app
from saccade.cli.words import in_cli_words
from saccade.events import Warned, warnings_in


@pytest.mark.parametrize(
    ("python", "ours"),
    [
        ("pass time_limit=…, or num_trials=5", "pass --time-limit …, or --num-trials 5"),
        ("give more images (tuning_data, holdout_frac)", "give more images (the folder val/, --holdout-frac)"),
        ("name it with ImagePredictor(label=…)", "name it with --label …"),
        ("use fit(…, resume=True)", "use --resume"),
        ("Name it with image_column=...", "Name it with --image-column ..."),
        ("random_state=3 and ensemble=False", "--seed 3 and --ensemble none"),
        ("/home/time_limit/x.csv, the label is weights", "/home/time_limit/x.csv, the label is weights"),
    ],
)
def test_messages_in_the_words_of_the_command_line(python, ours):
    assert in_cli_words(python) == ours


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("fit", "x", "--epochs", "3"), "fit has no option --epochs. Pass --set epochs=VALUE."),
        (("fit", "x", "--imgsz=64"), "Pass --set img_size=VALUE."),
        (("fit", "x", "--val-data", "y"), "fit has no option --val-data. DATA may contain train/ and val/."),
        (("fit", "x", "--tuning-data=y"), "fit has no option --tuning-data. DATA may contain train/ and val/."),
        (("fit", "x", "--time-limits", "3"), "Did you mean --time-limit?"),
        (("fit", "x", "--random-state", "3"), "Did you mean --seed?"),
        (("predict", "x", "y", "--output", "z"), "predict has no option --output."),
        (("evaluate", "x", "y", "--imageroot", "z"), "Did you mean --image-root?"),
    ],
)
def test_unknown_options_are_answered_with_ours(arguments, advice):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert advice in result.stderr


def test_sample_data_can_be_fitted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["sample-data", "photos", "--num-images", "2", "--all"])
    assert result.exit_code == 0, result.stderr
    assert "6 photos of 3 classes written to photos" in result.stdout
    assert "CC BY 2.0" in result.stdout
    again = CliRunner().invoke(app, ["sample-data", "photos"])
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)


def test_warnings_of_a_fit_name_options_on_the_command_line_only():
    warned = Warned("3 validation images are few; pass num_folds=5, or holdout_frac")
    with warnings_in(in_cli_words):
        assert warned.shown() == "3 validation images are few; pass --num-folds 5, or --holdout-frac"
    assert warned.shown() == warned.text
