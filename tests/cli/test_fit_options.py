"""Options of a fit, and the TOML files that hold them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from forked import forked_saccade
from saccade import ImagePredictor
from saccade.fit.config_file import FIT_TOML, FitConfig
from saccade.space import Categorical, Real

TINY = ("--model", "test_resnet", "--set", "pretrained=False", "--set", "img_size=32")
SMALL = (*TINY, "--set", "epochs=1")


def table_of(splits: Path, split: str, csv: Path, folder: Path | None = None) -> Path:
    """Write a CSV file of a split, with paths relative to a folder where one is given."""
    files = sorted((splits / split).rglob("*.png"))
    paths = [str(file if folder is None else file.relative_to(folder)) for file in files]
    pd.DataFrame({"path": paths, "kind": [file.parent.name for file in files]}).to_csv(csv, index=False)
    return csv


def leaderboard(run: Path) -> pd.DataFrame:
    return ImagePredictor.load(run).leaderboard().drop(columns=["fit_time_s", "images_per_s"])


def test_a_run_writes_the_file_that_repeats_it(saccade, splits, tmp_path, monkeypatch):
    monkeypatch.chdir(splits.parent)  # paths must hold wherever the file is
    search = ("--lr", "1e-3:1e-1:log", "--set", "batch_size=4,8", "--num-trials", "3", "--seed", "5")
    first = saccade("fit", splits.name, *SMALL, *search, "--executor", "inline", "--out", tmp_path / "first")
    assert first.exit_code == 0, first.stderr
    monkeypatch.chdir(tmp_path)
    again = saccade("fit", "--config", tmp_path / "first" / FIT_TOML, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.stderr
    pd.testing.assert_frame_equal(leaderboard(tmp_path / "first"), leaderboard(tmp_path / "again"))
    assert len(leaderboard(tmp_path / "again")) == 3
    assert leaderboard(tmp_path / "again")["lr"].nunique() == 3
    assert (tmp_path / "again" / FIT_TOML).read_text() == (tmp_path / "first" / FIT_TOML).read_text()


def test_the_file_has_the_given_options(fitted, splits):
    run, _ = fitted
    config = FitConfig.read(run)
    assert config.data == str(splits)
    assert (config.time_limit, config.random_state, config.path) == (300, 0, None)
    assert config.hyperparameters["model"] == "test_resnet"


def test_options_take_precedence_over_the_file_by_hyperparameter(saccade, splits, tmp_path):
    (tmp_path / "data").symlink_to(splits)
    (tmp_path / "my.toml").write_text(
        """
        data = "data"
        out = "run"
        num_trials = 2
        executor = "inline"
        verbosity = 0
        seed = 3
        [hyperparameters]
        model = "test_resnet"
        pretrained = false
        img_size = 32
        epochs = 2
        learning_rate = "1e-3:1e-1:log"
        """
    )
    result = saccade("fit", "--config", tmp_path / "my.toml", "--lr", "0.01,0.02", "--set", "epochs=1", "--seed", "4")
    assert result.exit_code == 0, result.stderr
    config = FitConfig.read(tmp_path / "run")
    assert (config.num_trials, config.random_state, config.verbosity) == (2, 4, 0)
    assert config.hyperparameters["lr"] == Categorical(0.01, 0.02)
    assert config.hyperparameters["epochs"] == 1
    assert config.hyperparameters["img_size"] == 32
    assert "learning_rate" not in config.hyperparameters


def test_a_preset_reaches_the_search_and_the_file(saccade, splits, tmp_path):
    few = ("--set", "batch_size=8", "--num-trials", "1", "--time-limit", "1m")
    result = saccade("fit", splits, *SMALL, *few, "--preset", "medium_quality", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert FitConfig.read(tmp_path / "run").presets == "medium_quality"
    assert leaderboard(tmp_path / "run")["early_stop_patience"].tolist() == [5]  # only the preset says so
    wrong = saccade("fit", splits, "--preset", "medum_quality", "--out", tmp_path / "wrong")
    assert wrong.exit_code == 2
    assert "Did you mean 'medium_quality'" in wrong.stderr


def test_tables_of_images(saccade, splits, tmp_path, fitted):
    columns = ("--image-column", "path", "--label", "kind")
    train = table_of(splits, "train", splits / "train.csv", splits)  # paths are relative to the file
    test = table_of(splits, "test", tmp_path / "test.csv", splits)
    run = tmp_path / "run"
    result = saccade("fit", train, *TINY, *columns, "--set", "epochs=3", "--set", "batch_size=4", "--out", run)
    assert result.exit_code == 0, result.stderr
    of_folders, _ = fitted
    for learned in (run, of_folders):
        by_table = saccade("evaluate", learned, test, *columns, "--image-root", splits)
        by_folders = saccade("evaluate", learned, splits)
        assert by_table.exit_code == by_folders.exit_code == 0, by_table.stderr + by_folders.stderr
        assert by_table.stdout == by_folders.stdout


def test_trackers_are_repeated_or_separated_by_commas(saccade, splits, tmp_path):
    pytest.importorskip("tensorboard")
    run, end = tmp_path / "run", ("--out", tmp_path / "run", "--num-trials", "1", "--overwrite")
    for tracked in (("--track", "csv", "--track", "tensorboard"), ("--tracker", "tensorboard,csv")):
        result = saccade("fit", splits, *SMALL, *tracked, *end)
        assert result.exit_code == 0, result.stderr
        # What the run that is replaced has written, is gone.
        assert len((run / "epochs.csv").read_text().splitlines()) == 2
        assert len(list(run.glob("tensorboard/run/events.out.tfevents.*"))) == 1
    assert sorted(FitConfig.read(run).callbacks) == ["csv", "tensorboard"]
    assert json.loads((run / "run.json").read_text())["arguments"]["callbacks"] == ["tensorboard", "csv"]
    assert not (run / ".new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Pass a folder"),
        (("--config", "nowhere.toml"), "There is no 'nowhere.toml'"),
        (("--config", "."), FIT_TOML),
        (("x", "--verbosity", "7"), "--verbosity was given '7'; expected 0, 1, 2 or 3"),
        (("nowhere",), "There is no 'nowhere'"),
        (("x", "--track", "csv", "--track", "mlflo"), "Unknown tracker 'mlflo'. Did you mean 'mlflow'?"),
        (("x", "--track", "csv,mlflo"), "Unknown tracker 'mlflo'. Did you mean 'mlflow'?"),
    ],
)
def test_invalid_options_are_refused(saccade, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = saccade("fit", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_column_is_reported_with_its_option(saccade, splits, tmp_path):
    csv = table_of(splits, "train", tmp_path / "train.csv")
    result = saccade("fit", csv, "--out", tmp_path / "run")
    assert "'image'" in result.stderr
    assert "--image-column" in result.stderr
    result = saccade("fit", csv, "--image-column", "path", "--label", "kinds", "--out", tmp_path / "run")
    assert "Did you mean 'kind'? Pass it as --label." in result.stderr
    assert result.exit_code == 2


def test_errors_in_options_need_no_heavy_libraries():
    program = (
        "import sys; from saccade.cli import app; code = 0\n"
        "try: app(['fit', 'x', '--lr', '1:0.1'])\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "2 False\n"


def test_a_whole_fit_from_a_file_in_a_real_process(splits, tmp_path, monkeypatch):
    shutil.copytree(splits / "train", tmp_path / "data")
    FitConfig(
        data="data",
        verbosity=1,
        hyperparameters={
            "model": "test_resnet",
            "pretrained": False,
            "img_size": 32,
            "epochs": 1,
            "lr": Real(0.01, 0.1),
        },
        num_trials=1,
        executor="inline",
        report=True,
    ).write(tmp_path / "my.toml")
    monkeypatch.chdir(tmp_path)
    run = forked_saccade("fit", "--config", "my.toml", "--out", "run")
    output, errors = run.communicate()
    assert (run.returncode, "Traceback" in errors) == (0, False), errors
    file = tmp_path / "run" / "report.html"
    assert output.splitlines()[-2:] == [f"run {tmp_path / 'run'}", f"report {file}"]
    assert f"saccade fit --config {tmp_path / 'run'} --out OTHER" in file.read_text()
