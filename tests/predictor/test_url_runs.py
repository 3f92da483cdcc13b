"""Runs, predictors and searches at URLs, with images there, on a real S3 server."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import saccade
from saccade import ImagePredictor
from saccade.cli import app
from saccade.errors import DataError, RemoteError, SavedPredictorError
from saccade.remote.urls import UrlFile
from saccade.report.report import Report
from saccade.space import Real
from saccade.study import url_folder
from saccade.tuning import TuneResult

MakeColours = Callable[..., pd.DataFrame]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(url_folder, "SYNC_S", 0.1)
    monkeypatch.setattr(url_folder, "_SETTLE_S", 0.0)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def pets(s3: str, make_colours: MakeColours, num: int = 8) -> str:
    """Upload images in folders of classes, and return their URL."""
    for row in make_colours(num).itertuples():
        UrlFile(f"{s3}/my pets/{row.label}/{Path(row.image).name}").upload(Path(row.image))
    return f"{s3}/my pets"


def settings(**others: str) -> list[str]:
    values = {"pretrained": "False", "img_size": "32", "batch_size": "8", "epochs": "2", **others}
    return ["--model", "test_resnet", *(f"--set={name}={value}" for name, value in values.items())]


def events(url: str) -> list[dict[str, Any]]:
    content = (UrlFile(url) / "events.jsonl").read()
    return [json.loads(line) for line in content.splitlines()]


def test_the_command_line_works_with_urls(s3, make_colours, tmp_path, monkeypatch):
    data, url = pets(s3, make_colours), f"{s3}/runs/first run"
    fitted = run("fit", data, *settings(), "--out", url, "--executor", "inline", "--time-limit", "5m", "--json")
    assert fitted.exit_code == 0, fitted.output
    result = json.loads(fitted.stdout.splitlines()[-1])
    assert (result["run"], result["predictor"]) == (url, f"{url}/predictor")
    names = set(UrlFile(url).files())
    assert {"run.json", "data.json", "fit.toml", "split.json", "events.jsonl", "predictor/predictor.json"} <= names
    assert not any(name.startswith(("store", ".")) or name.endswith((".part", ".lock")) for name in names)
    assert data in (UrlFile(url) / "data.json").read().decode()
    assert not any(str(tmp_path) in json.dumps(event) for event in events(url))

    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "other machine"))
    image = f"{data}/red/000.png"
    predicted = run("predict", f"{url}/", image)
    assert predicted.exit_code == 0, predicted.output
    assert predicted.stdout.startswith(image)
    assert run("evaluate", url, data).stdout.startswith("top1 ")
    board = run("leaderboard", url)
    assert "test_resnet" in board.stdout
    assert run("watch", url).exit_code == 0
    report = run("report", url)
    assert report.stdout == f"report {url}/report.html\n"
    assert b"first run" in (UrlFile(url) / "report.html").read()
    resumed = run("resume", url)
    assert f"\nrun {url}\nreport {url}/report.html\n" in resumed.stdout, resumed.output
    again = run("fit", data, *settings(), "--out", url)
    assert again.exit_code == 2
    assert f"saccade: {url} contains a finished run" in again.stderr.replace("\n", " ")
    compared = run("compare", url, url)
    assert compared.exit_code == 0, compared.output


def test_predictors_are_saved_to_urls_and_loaded(s3, make_colours, tiny, tmp_path, monkeypatch):
    train = make_colours(8)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0).fit(
        train, hyperparameters=tiny, executor="inline", time_limit=300
    )
    url = f"{s3}/predictors/a"
    assert predictor.save(f"{url}/") == url
    assert predictor.save(url) == url  # replaces the earlier one, and removes its weights
    names = set(UrlFile(url).files())
    assert sum(name.startswith("weights") for name in names) == 1
    loaded = ImagePredictor.load(url, verbosity=0)
    assert loaded.path == url
    assert loaded.predict(train).tolist() == predictor.predict(train).tolist()
    assert "leaderboard" in Report.read(url).frames
    (UrlFile(s3) / "photos/1.jpg").write(b"x")
    with pytest.raises(DataError, match="is not a run folder or a saved predictor"):
        predictor.save(f"{s3}/photos")
    with pytest.raises(RemoteError, match="does not exist, or has no files"):
        ImagePredictor.load(f"{s3}/nothing")
    with pytest.raises(SavedPredictorError, match=rf"{s3}/photos contains no predictor.json"):
        ImagePredictor.load(f"{s3}/photos")
    with pytest.raises(RemoteError, match="bucket does not exist"):
        predictor.save("s3://no-such-bucket/a")
    with pytest.raises(DataError, match="lost a slash"):
        ImagePredictor.load(Path(url))
    local = f"file://{tmp_path}/a b"
    assert predictor.save(local) == str(tmp_path / "a b")
    assert ImagePredictor.load(local, verbosity=0).path == str(tmp_path / "a b")


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signals")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_killed_run_is_resumed_from_its_url_on_another_machine(s3, make_colours, tmp_path, monkeypatch):
    data, url = pets(s3, make_colours), f"{s3}/run"
    command = [
        "fit",
        data,
        *settings(epochs="200", lr="1e-3,1e-2"),
        "--out",
        url,
        "--executor",
        "inline",
        "--verbosity=1",
    ]
    process = multiprocessing.get_context("spawn").Process(target=_in_another_process, args=(command,))
    process.start()
    is_there = lambda: "events.jsonl" in UrlFile(url).files()  # noqa: E731
    while not is_there() or sum(event["kind"] == "epoch_done" for event in events(url)) < 3:
        assert process.is_alive()
        time.sleep(0.05)
    process.kill()
    process.join()
    assert ".lock" in UrlFile(url).files()
    before = [(event["trial"], event["epoch"]) for event in events(url) if event["kind"] == "epoch_done"]
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "other machine"))
    board = run("leaderboard", url)
    assert f"Continue it: saccade resume {url}. Or" in board.stdout.replace("\n", " "), board.output
    predictor = ImagePredictor.resume(url, finish=True, verbosity=0)
    assert predictor.path == url
    epochs = [(event["trial"], event["epoch"]) for event in events(url) if event["kind"] == "epoch_done"]
    assert epochs[: len(before)] == before
    assert len(epochs) == len(set(epochs))
    assert ".lock" not in UrlFile(url).files()
    assert ImagePredictor.load(url, verbosity=0).predict(f"{data}/red/000.png").notna().all()


def _in_another_process(command: list[str]) -> None:
    url_folder.SYNC_S = 0.1
    CliRunner().invoke(app, command)


def test_a_search_is_at_a_url(s3, tmp_path, monkeypatch):
    url = f"{s3}/search"

    def train(config: dict[str, float], report: Any) -> None:
        for epoch in range(report.last_epoch + 1, 4):
            report(epoch=epoch, score=config["x"], checkpoint=lambda folder: (folder / "state.txt").touch())

    options: dict[str, Any] = {"path": url, "verbosity": 0}
    first = saccade.tune(train, {"x": Real(0, 1)}, num_trials=3, **options)
    assert first.path == url
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "other machine"))
    assert TuneResult.load(url).best_score == first.best_score
    second = saccade.tune(train, {"x": Real(0, 1)}, num_trials=5, resume=True, **options)
    assert len(second.trials) == 5
    assert second.best_checkpoint is not None
    assert (second.best_checkpoint / "state.txt").is_file()
    checkpoints = [name for name in UrlFile(url).files() if name.endswith("state.txt")]
    assert len(checkpoints) == 3  # of the best trials
    with pytest.raises(saccade.errors.HyperparameterError, match=f"path='{url}' contains a search"):
        saccade.tune(train, {"x": Real(0, 1)}, num_trials=5, **options)


def test_wrong_credentials_and_missing_buckets_are_errors(s3, monkeypatch):
    import httpx2
    import s3fs

    with pytest.raises(RemoteError, match="bucket does not exist"):
        ImagePredictor(path="s3://no-such-bucket/run").fit(f"{s3}/pets")
    reset = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    httpx2.post(reset, content=b"0")
    try:
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(RemoteError, match=r"cannot be accessed \(.*Check the credentials"):
            UrlFile(f"{s3}/a").read()
        with pytest.raises(RemoteError, match="cannot be accessed"):
            ImagePredictor.load(f"{s3}/run")
    finally:
        httpx2.post(reset, content=b"inf")
