"""Fits with images that have no labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from saccade import ImagePredictor
from saccade.cli.app import app
from saccade.data.examples import read_examples, read_labelled_examples
from saccade.deadline import Deadline
from saccade.errors import DataError, HyperparameterError
from saccade.events import Event, PseudoLabelled, Warned
from saccade.fit import unlabeled as module
from saccade.fit.preparation import MAX_UNLABELED, prepare_data
from saccade.fit.resuming import EarlierRun
from saccade.fit.unlabeled import with_pseudo_labels
from saccade.space import Dict
from saccade.tasks.metrics import make_metric
from saccade.training.probes.pseudo_labels import PseudoLabels
from saccade.training.task import ImageTask

MakeColours = Callable[..., pd.DataFrame]


@pytest.fixture
def folder(make_colours: MakeColours, tmp_path: Path) -> Path:
    """A folder of ten new images in a subfolder, two copies of one, one that is damaged, and a text."""
    images = make_colours(5, ("blue", "red"), seed=7)["image"].tolist()
    place = tmp_path / "more" / "sub"
    place.mkdir(parents=True)
    for number, path in enumerate([*images, images[0]]):
        shutil.copyfile(path, place / f"{number}.png")
    (place / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (place / "notes.txt").write_text("no image")
    return place.parent


def prepared(frame: pd.DataFrame, unlabeled: Any, tmp_path: Path, notify: Callable[[Event], None]) -> Any:
    return prepare_data(
        read_labelled_examples(frame, "label"),
        None,
        None,
        folder=tmp_path / "store",
        shorter_side=32,
        holdout_frac=0.25,
        random_state=0,
        unlabeled=read_examples(unlabeled).images,
        seconds_left=None,
        notify=notify,
    )


def test_junk_and_copies_are_left_out(make_colours: MakeColours, folder: Path, tmp_path: Path) -> None:
    frame, told = make_colours(8), []
    for number, row in enumerate((0, 9, 15)):  # of training and validation images
        shutil.copyfile(frame["image"][row], folder / f"copy{number}.png")
    data = prepared(frame, folder, tmp_path, told.append)
    assert (len(data.train.indices), len(data.val.indices)) == (12, 4)
    assert len(data.unlabeled) == 10
    digests = np.array(data.store.digests)
    assert not np.isin(digests[data.unlabeled], digests[: len(frame)]).any()
    assert len(set(digests[data.unlabeled])) == 10
    assert any("damaged.png" in event.text for event in told if isinstance(event, Warned))
    assert MAX_UNLABELED >= 1000


def test_images_train_only_where_pseudo_labels_are_better(
    make_colours: MakeColours, folder: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    data = prepared(make_colours(8), folder, tmp_path, told.append)
    metric = make_metric(None, data.problem)
    task = ImageTask(data.store, data.train, data.val, data.problem, metric, tiny_weights, "cpu")
    space = Dict({"model": "test_resnet", "img_size": 32})
    for loss_with, num_used in ((0.9, 0), (0.5, 10)):
        found = PseudoLabels(np.arange(10) % 2, np.full(10, 0.5, np.float32), 1.0, loss_with, 0.2)
        monkeypatch.setattr(module, "pseudo_labels", lambda *_, found=found: found)
        file = tmp_path / f"{num_used}.npz"
        more, summary = with_pseudo_labels(task, space, data.unlabeled, file, Deadline(None), told.append)
        assert summary["unlabeled"]["num_used"] == num_used
        assert summary["unlabeled"]["log_loss_with_pseudo_labels"] == loss_with
        assert told[-1] == PseudoLabelled(10, num_used > 0, 1.0, loss_with, 0.2)
        assert len(more.train.indices) == 12 + num_used
    assert (more.train.targets[12:] == np.arange(10) % 2).all()
    assert more.train.weights is not None
    assert more.train.weights.mean() == pytest.approx(1)
    assert more.train.weights[0] == pytest.approx(2 * more.train.weights[-1])
    assert np.allclose(more.val.weights, more.train.weights[0])
    # A resumed run has the same images, whatever is found now.
    monkeypatch.setattr(module, "pseudo_labels", None)
    again, _ = with_pseudo_labels(task, space, data.unlabeled, file, Deadline(None), told.append)
    assert (again.train.indices == more.train.indices).all()
    file.write_bytes(b"damaged")
    with pytest.raises(DataError, match="damaged"):
        with_pseudo_labels(task, space, data.unlabeled, file, Deadline(None), told.append)


@pytest.mark.parametrize("distill", [False, True])
def test_a_fit_uses_and_records_unlabeled_images(
    make_colours: MakeColours,
    folder: Path,
    tmp_path: Path,
    tiny_weights: Path,
    tiny: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    distill: bool,
) -> None:
    found = PseudoLabels(np.arange(10) % 2, np.full(10, 0.5, np.float32), 1.0, 0.2 if not distill else 2.0, 0.2)
    monkeypatch.setattr(module, "pseudo_labels", lambda *_: found)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    options = {"hyperparameters": {**tiny, "pretrained": True, "epochs": 1}, "weights": tiny_weights}
    predictor.fit(make_colours(10), unlabeled=folder, distill=distill, **options)
    summary = predictor.fit_summary()
    assert summary["unlabeled"]["num_used"] == (0 if distill else 10)
    assert predictor.predict(str(folder)).notna().sum() == 11
    split = predictor.pipeline.saved.earlier_split
    assert split is not None
    assert len(split.fitted) == 2 * (18 + 10 + (0 if distill else 2))  # the probe of a search has seen all
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert len(data["unlabeled"]) == 12
    earlier = EarlierRun.find(tmp_path / "run")
    assert earlier is not None
    again = earlier.request("auto", None).unlabeled
    assert again is not None
    assert again.images == data["unlabeled"]


def test_the_command_line_takes_a_folder(
    make_colours: MakeColours, folder: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    table = tmp_path / "colours.csv"
    make_colours(8).to_csv(table, index=False)
    options = ["--unlabeled", str(folder), "--weights", str(tiny_weights), "--out", str(tmp_path / "run")]
    options += ["--model", "test_resnet", "--set", "img_size=32", "--set", "epochs=1", "--verbosity", "0"]
    result = CliRunner().invoke(app, ["fit", str(table), *options])
    assert result.exit_code == 0, result.output
    assert ImagePredictor.load(tmp_path / "run").fit_summary()["unlabeled"]["num_images"] == 10
    assert str(folder) in (tmp_path / "run" / "fit.toml").read_text()


def test_unusable_values_are_refused(make_colours: MakeColours, tmp_path: Path, tiny: dict[str, Any]) -> None:
    frame = make_colours(4)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    (tmp_path / "empty").mkdir()
    for given, error in (
        (tmp_path / "empty", DataError),
        (3, HyperparameterError),
        (tmp_path / "nowhere", DataError),
        ([], DataError),
    ):
        with pytest.raises(error, match=r"unlabeled|empty|nowhere"):
            predictor.fit(frame, unlabeled=given, hyperparameters=tiny)
    with pytest.raises(HyperparameterError, match="num_folds=3 is not supported together with unlabeled"):
        predictor.fit(frame, unlabeled=frame, num_folds=3)
    frame["label"] = np.arange(len(frame)) + 0.5
    with pytest.raises(HyperparameterError, match="unlabeled requires exactly one class"):
        ImagePredictor(problem_type="regression", path=tmp_path / "run", verbosity=0).fit(
            frame, unlabeled=frame, hyperparameters=tiny
        )
    assert not (tmp_path / "run").exists()
