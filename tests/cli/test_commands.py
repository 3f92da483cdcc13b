"""What the commands print, and how they fail."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from saccade import __version__

HEAVY = ("torch", "timm", "torchvision", "pandas", "sklearn", "matplotlib", "optuna")


def test_help_needs_no_heavy_libraries():
    commands = ("demo", "check", "fit", "resume", "leaderboard", "choose", "evaluate", "predict", "explain", "models")
    commands += ("doctor",)
    program = (
        "import sys; from saccade.cli import app\n"
        f"for command in {commands}: app([command, '--help'], standalone_mode=False)\n"
        f"sys.exit(', '.join(sorted(set({HEAVY}) & set(sys.modules))) or None)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "--time-limit" in run.stdout
    assert (run.returncode, run.stderr.strip()) == (0, "")


def test_the_package_runs_as_a_command():
    run = subprocess.run([sys.executable, "-m", "saccade", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"saccade {__version__}\n"


def test_an_error_of_a_real_process_is_a_paragraph_and_exit_code_2():
    command = [sys.executable, "-m", "saccade", "fit", "x", "--lr", "1:0.1"]  # the command needs no heavy library
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("saccade: ")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "a,"), "empty part"),
        (("--lr", "0.1:0.01"), "Real(0.01, 0.1)"),
        (("--set", "epoch=3"), "did you mean 'epochs'"),
        (("--time-limit", "soon"), "1h30m"),
        (("--model", "resnet999"), "Unknown network 'resnet999'"),
    ],
)
def test_an_invalid_fit_is_refused_with_a_reason(saccade, splits, arguments, message, tmp_path):
    result = saccade("fit", splits, *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert result.stderr.startswith("saccade: ")
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_system_is_a_paragraph_too(saccade, splits, tmp_path):
    (tmp_path / "file").touch()
    result = saccade("fit", splits, "--set", "pretrained=False", "--out", tmp_path / "file" / "run")
    assert result.exit_code == 2
    assert "file" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_failed_search_shows_the_reason_without_a_traceback(saccade, splits, tmp_path):
    small = ("--model", "test_resnet", "--set", "pretrained=False", "--set", "img_size=32")
    run = tmp_path / "run"
    result = saccade("fit", splits, *small, "--set", "opt=nonsense", "--num-trials", "1", "--out", run)
    assert result.exit_code == 2
    assert "nonsense" in result.stderr
    assert "Traceback" not in result.stderr


def test_fit_shows_trials_test_figures_and_the_run_folder(fitted):
    run, result = fitted
    assert result.exit_code == 0, result.stderr
    assert "completed" in result.stdout
    assert "test top1 1.0000" in result.stdout
    assert f"run {run}" in result.stdout.splitlines()
    assert json.loads((run / "run.json").read_text())["time_limit_s"] == 300.0


def test_evaluate_takes_a_folder_of_classes_or_the_test_images_of_splits(saccade, fitted, splits):
    run, _ = fitted
    for data in (splits, splits / "test"):
        result = saccade("evaluate", run, data)
        assert result.exit_code == 0, result.stderr
        assert "top1 1.0000" in result.stdout.splitlines()
    result = saccade("evaluate", run, splits, "--metrics", "f1_macro, confusion_matrix,classification_report")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("f1_macro 1.0000\nconfusion_matrix\npredicted ")
    assert "f1-score" in result.stdout
    assert "did you mean" in saccade("evaluate", run, splits, "--metrics", "auc").stderr.lower()


def test_evaluate_asks_for_test_images_where_splits_have_none(saccade, fitted, splits, tmp_path):
    run, _ = fitted
    (tmp_path / "train").symlink_to(splits / "train")
    result = saccade("evaluate", run, tmp_path)
    assert result.exit_code == 2
    assert "no test images" in result.stderr


def test_predict_shows_the_class_by_name_and_its_probability(saccade, fitted, splits):
    run, _ = fitted
    images = [splits / "test" / name / "0.png" for name in ("dark", "bright")]
    result = saccade("predict", run, *images)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[:2] for line in lines] == [[str(images[0]), "dark"], [str(images[1]), "bright"]]
    assert all(0.5 <= float(line[2]) <= 1 for line in lines)


def test_predict_continues_after_an_unreadable_image(saccade, fitted, tmp_path):
    run, _ = fitted
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (32, 32), "white").save(good)
    bad.write_text("no image")
    result = saccade("predict", run, bad, good)
    assert result.exit_code == 0
    assert [line.split(maxsplit=1)[1].split("  ")[0] for line in result.stdout.splitlines()] == [
        "cannot be read",
        "bright",
    ]


def test_leaderboard_shows_the_trials(saccade, fitted):
    run, _ = fitted
    result = saccade("leaderboard", run)
    assert result.exit_code == 0
    assert "test_resnet" in result.stdout
    *_, line, seconds = result.stdout.splitlines()
    assert line.startswith("result: trial 0, accuracy ")
    assert re.fullmatch(r"\d+\.\d s: .*training \d+\.\d.*", seconds)


def test_models_lists_names_that_match(saccade):
    result = saccade("models", "resnet18*")
    assert "resnet18" in result.stdout.splitlines()
    assert "resnet18_v1b" in result.stdout.splitlines()
    assert saccade("models", "no_such_thing").exit_code == 2
    detailed = saccade("models", "tf_efficientnet_lite*", "--license", "free", "--detailed")
    assert detailed.stdout.split()[:5] == ["model", "weights", "licenses", "img_size", "top1"]
    assert "tf_efficientnet_lite0 package apache-2.0" in " ".join(detailed.stdout.split())
    assert saccade("models", "dinov3", "--license", "mit").exit_code == 2
