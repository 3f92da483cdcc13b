from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from saccade import Categorical, ImagePredictor
from saccade.errors import DataError, HyperparameterError, UnknownNameError

MakeColours = Callable[..., pd.DataFrame]


@pytest.fixture
def columns(make_colours: MakeColours) -> pd.DataFrame:
    """Images with two labels that are columns of 0 and 1."""
    frame = make_colours(10, ("blue", "green", "red"))
    colour = frame.pop("label")
    return frame.assign(red=(colour == "red").astype(int), cold=(colour != "red").astype(int))


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_several_columns_of_labels_come_back_as_they_were_given(
    columns: pd.DataFrame, tmp_path: Path, tiny: dict[str, Any], dtype: str
) -> None:
    columns = columns.astype({"red": dtype, "cold": dtype})
    columns.index = [f"row{number}" for number in range(len(columns))]
    predictor = ImagePredictor(label=["red", "cold"], path=tmp_path / "run", verbosity=0)
    predictor.fit(columns, hyperparameters={**tiny, "epochs": 4})
    labels, proba = predictor.predict(columns), predictor.predict_proba(columns)
    assert isinstance(labels, pd.DataFrame)
    assert (labels.dtypes == dtype).all()
    assert labels.index.equals(columns.index)
    assert list(labels) == list(proba) == predictor.classes == ["red", "cold"]
    assert ((proba >= 0.5).to_numpy() == labels.to_numpy(bool)).all()
    assert (labels == columns[["red", "cold"]]).to_numpy().mean() > 0.9
    scores = predictor.evaluate(columns)
    assert scores["subset_accuracy"] == (labels == columns[["red", "cold"]]).all(axis=1).mean()
    again = ImagePredictor.load(predictor.path, verbosity=0)
    assert again.label == ["red", "cold"]
    pd.testing.assert_frame_equal(again.predict(columns[["image"]]), labels)
    assert again.evaluate(columns) == scores


def test_an_unreadable_image_has_no_labels_in_any_column(
    columns: pd.DataFrame, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    predictor = ImagePredictor(label=("red", "cold"), path=tmp_path / "run", verbosity=0)
    predictor.fit(columns, columns[::3], hyperparameters={**tiny, "epochs": 1})
    labels = predictor.predict([columns["image"][0], b"no image"])
    assert labels.iloc[1].tolist() == [None, None]
    assert set(labels.iloc[0]) <= {0, 1}


def test_wrong_label_columns_are_clear_errors(columns: pd.DataFrame, tmp_path: Path, tiny: dict[str, Any]) -> None:
    def fit(label: list[str], frame: pd.DataFrame) -> None:
        ImagePredictor(label=label, path=tmp_path / "run", verbosity=0).fit(frame, hyperparameters=tiny)

    with pytest.raises(DataError, match="did you mean label='cold'"):
        fit(["red", "colt"], columns)
    with pytest.raises(DataError, match="must hold 0 and 1"):
        fit(["red", "cold"], columns.assign(cold=7))
    assert not (tmp_path / "run").exists()


def test_sample_weights_decide_between_contradictory_labels(
    make_colours: MakeColours, tmp_path: Path, tiny: dict[str, Any], tiny_weights: Path
) -> None:
    right = make_colours(8, seed=1).assign(weight=1.0)
    wrong = right.assign(label=right["label"].map({"red": "blue", "blue": "red"}), weight=0.0)
    tuning = make_colours(6, seed=2)
    recipe = {**tiny, "pretrained": True, "epochs": 3}
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0, sample_weight="weight")
    predictor.fit(pd.concat([wrong, right], ignore_index=True), tuning, hyperparameters=recipe, weights=tiny_weights)
    assert predictor.evaluate(tuning)["top1"] > 0.9
    assert (predictor.predict(wrong) == right["label"]).mean() > 0.9
    with pytest.raises(DataError, match="negative"):
        predictor.fit(right.assign(weight=-1.0), hyperparameters=recipe, weights=tiny_weights, overwrite=True)
    with pytest.raises(DataError, match="did you mean sample_weight='weights'"):
        predictor.fit(right.rename(columns={"weight": "weights"}), hyperparameters=recipe, overwrite=True)


def test_class_weights_and_balanced_sampling_can_be_searched(
    make_colours: MakeColours, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    frame = make_colours(12)
    frame["label"] = (frame["label"] == "red").astype(int)
    weights = Categorical("balanced", {np.int64(1): 5.0}, None)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(
        frame, hyperparameters={**tiny, "epochs": 1, "class_weight": weights}, num_trials=3, executor="inline"
    )
    board = predictor.leaderboard()
    assert sorted(board["status"]) == ["completed"] * 3
    assert {repr(weight) for weight in board["class_weight"]} == {"'balanced'", "{1: 5.0}", "None"}
    assert len(ImagePredictor.load(predictor.path).leaderboard()) == 3
    predictor.fit(frame, hyperparameters={**tiny, "epochs": 1, "balanced_sampling": True}, overwrite=True)


@pytest.mark.parametrize(
    ("imbalance", "error", "message"),
    [
        ({"class_weight": {"rde": 2.0}}, UnknownNameError, "'red'"),
        ({"class_weight": {"red": -2.0}}, HyperparameterError, "expected a number, 0 or more"),
        ({"class_weight": "balanced", "balanced_sampling": True}, HyperparameterError, "balance twice"),
    ],
)
def test_invalid_weights_are_errors_before_training(
    make_colours: MakeColours,
    tmp_path: Path,
    tiny: dict[str, Any],
    imbalance: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    with pytest.raises(error, match=message):
        predictor.fit(make_colours(6), hyperparameters={**tiny, **imbalance})
    assert not (tmp_path / "run").exists()
