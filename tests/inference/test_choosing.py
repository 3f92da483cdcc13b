from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from saccade import Categorical, ImagePredictor
from saccade.errors import HyperparameterError, SavedPredictorError, UnknownNameError
from saccade.events import Warned
from saccade.inference.description import Choice, choose

MakeColours = Callable[..., pd.DataFrame]


def choice(trial: int, score: float, **costs: float) -> Choice:
    return Choice(trial, costs, None, {"valid_score": score})  # type: ignore[arg-type]  # no network is built


FRONT = [choice(3, 0.9, latency_ms=9.0, num_params=5e6), choice(1, 0.8, latency_ms=4.0, num_params=6e6)]


def test_the_best_within_the_limits_or_the_cheapest_that_is_good_enough() -> None:
    assert choose(FRONT, {}).trial == 3
    assert choose(FRONT, {"latency_ms": 5.0}).trial == 1
    assert choose(FRONT, {"latency_ms": 9.0}).trial == 3
    assert choose(FRONT, {}, min_score=0.75).trial == 1
    assert choose(FRONT, {"num_params": 5.5e6}, min_score=0.75).trial == 3


@pytest.mark.parametrize(
    ("limits", "min_score", "message"),
    [
        ({"latency_ms": 1.0}, None, r"(?s)no trial is within.*trial 3: score 0.9000, latency_ms 9.*trial 1"),
        ({}, 0.95, "no trial is within"),
        ({"num_bytes": 1.0}, None, r"not an objective.*\['accuracy', 'latency', 'params', 'bytes'\]"),
        ({"latency_ms": "fast"}, None, "latency_ms was given 'fast'; expected a number"),
        ({"latency_ms": math.nan}, None, "expected a number"),
    ],
)
def test_choices_outside_the_limits_are_errors(limits: dict[str, Any], min_score: float | None, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        choose(FRONT, limits, min_score)


@pytest.fixture(scope="module")
def data(make_colours_once: MakeColours) -> pd.DataFrame:
    return make_colours_once(10, ("blue", "green", "red"))


@pytest.fixture(scope="module")
def fitted(data: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    space = {"model": Categorical("test_resnet", "test_vit"), "lr": Categorical(1e-3, 1e-2), "epochs": 2}
    space |= {"pretrained": False, "img_size": 64, "batch_size": 8}
    return ImagePredictor(path=tmp_path_factory.mktemp("choosing") / "run", verbosity=0).fit(
        data,
        hyperparameters=space,
        objectives=["accuracy", "latency", "throughput", "params", "bytes"],
        searcher="grid",
        executor="inline",
    )


def test_the_leaderboard_has_costs_and_the_pareto_front(fitted: ImagePredictor) -> None:
    board = fitted.leaderboard()
    assert len(board[["model", "latency_ms", "num_params", "num_bytes"]].drop_duplicates()) == 2
    params = dict(zip(board["model"], board["num_params"], strict=True))
    assert params["test_resnet"] != params["test_vit"]
    assert (board["num_bytes"] >= 4 * board["num_params"]).all()
    assert (board[["latency_ms", "images_per_s"]] > 0).all(axis=None)
    assert "image_ms" not in board
    assert board["on_front"].iloc[0]
    smallest = board[board["num_params"] == board["num_params"].min()]
    assert smallest["on_front"].sum() == 1


def test_the_throughput_of_the_predictor_is_reported_and_can_be_a_limit(fitted: ImagePredictor) -> None:
    speeds = fitted.leaderboard().set_index("trial")["images_per_s"]
    summary = fitted.fit_summary()
    assert summary["images_per_s"] == speeds[summary["best_trial"]]
    assert summary["result"].endswith(f", {summary['images_per_s']:g} images/s without decoding")
    fastest = fitted.choose(min_images_per_s=0.99 * speeds.max()).fit_summary()
    assert fastest["images_per_s"] == speeds.max()
    with pytest.raises(HyperparameterError, match="no trial is within these limits"):
        fitted.choose(min_images_per_s=2 * speeds.max())
    with pytest.raises(HyperparameterError, match="min_images_per_s was given 0; expected a positive number"):
        fitted.choose(min_images_per_s=0)


def test_without_a_network_within_the_limits_the_nearest_is_the_result(data: pd.DataFrame, tmp_path: Path) -> None:
    space = {"model": Categorical("test_resnet", "test_vit"), "epochs": 1, "pretrained": False, "img_size": 64}
    events: list[object] = []
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0).fit(
        data, hyperparameters=space, searcher="grid", executor="inline", min_images_per_s=1e6, callbacks=[events.append]
    )
    board = predictor.leaderboard()
    fastest = board.loc[board["images_per_s"].idxmax()]
    assert board.set_index("trial")["weight"][fastest["trial"]] == 1
    (warning,) = [event.text for event in events if isinstance(event, Warned) and "within the limits" in event.text]
    figures = f"{fastest['images_per_s']:.3g} images/s (min_images_per_s=1e+06)"
    assert f"trial {fastest['trial']}, with {figures}" in warning


def test_another_predictor_is_chosen_saved_and_loaded(
    fitted: ImagePredictor, data: pd.DataFrame, tmp_path: Path
) -> None:
    board = fitted.leaderboard()
    small = board["num_params"].min()
    chosen = fitted.choose(max_params=small)
    row = board[(board["num_params"] == small) & board["on_front"]].iloc[0]
    summary = chosen.fit_summary()
    assert summary["valid_score"] == row["score_val"]
    assert summary["result"].startswith(f"trial {row['trial']}, accuracy {row['score_val']:.4g}")
    assert chosen.leaderboard().set_index("trial")["weight"][row["trial"]] == 1
    first = board.iloc[0]  # the search and its best trial stay the same
    assert (summary["best_trial"], summary["best_config"]["model"]) == (first["trial"], first["model"])
    assert chosen.pipeline.saved.config["model"] == row["model"]
    assert chosen.predict_proba(data).shape == (len(data), 3)
    chosen.save(tmp_path / "small")
    loaded = ImagePredictor.load(tmp_path / "small", verbosity=0)
    pd.testing.assert_frame_equal(loaded.predict_proba(data), chosen.predict_proba(data))
    assert loaded.fit_summary() == summary
    assert len(loaded.report().record.trials) == len(board)
    with pytest.raises(HyperparameterError, match="nothing to choose from"):
        loaded.choose()


def test_a_copy_of_the_predictor_can_be_chosen_from(fitted: ImagePredictor, data: pd.DataFrame, tmp_path: Path) -> None:
    before = fitted.choose(max_params=fitted.leaderboard()["num_params"].min()).predict_proba(data)
    copy = ImagePredictor.load(fitted.path, verbosity=0)
    copy.save(tmp_path / "copy")
    moved = ImagePredictor.load(tmp_path / "copy", verbosity=0)
    again = moved.choose(max_params=fitted.leaderboard()["num_params"].min()).predict_proba(data)
    pd.testing.assert_frame_equal(again, before)


def test_a_chosen_predictor_needs_a_folder_of_its_own(fitted: ImagePredictor) -> None:
    board = fitted.leaderboard()
    chosen = fitted.choose(max_params=board["num_params"].min())
    if chosen.leaderboard()["weight"].iloc[0] == 1:  # it is the one that the folder holds
        assert chosen.save() == str(Path(fitted.path) / "predictor")
    else:
        with pytest.raises(SavedPredictorError, match="Pass another folder"):
            chosen.save()


def test_only_the_front_is_kept_on_disk(fitted: ImagePredictor) -> None:
    files = [path.relative_to(fitted.path).as_posix() for path in Path(fitted.path).rglob("*.safetensors")]
    files.remove("predictor/split.safetensors")
    files.remove("predictor/features.safetensors")
    files.remove("predictor/validation.safetensors")
    board = fitted.leaderboard()
    assert len(files) == 1 + board["on_front"].sum()  # the best one's is in its trial's folder too


def test_with_one_objective_there_is_nothing_to_choose(
    make_colours_once: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    with pytest.raises(UnknownNameError, match=r"'f1'.*eval_metric, which is 'accuracy'"):
        predictor.fit(make_colours_once(4), hyperparameters=tiny, objectives=["f1", "latency"])
    assert not (tmp_path / "run" / "run.json").exists()
    predictor.fit(make_colours_once(4), hyperparameters=tiny)
    assert "on_front" not in predictor.leaderboard()
    with pytest.raises(HyperparameterError, match=r"Search with objectives=\['accuracy', 'latency'\]"):
        predictor.choose()
    with pytest.raises(HyperparameterError, match="is not an objective"):
        predictor.choose(max_latency_ms=3)
