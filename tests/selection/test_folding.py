"""Fits that end in networks each of which has learned from all folds but one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade import ImagePredictor
from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.events import EpochDone
from saccade.fit.reserve import FinishingReserve
from saccade.inference.saved import DESCRIPTION
from saccade.selection.folding import FoldCosts
from saccade.selection.folds import FoldTrainable
from saccade.study.trial import Job, Reporter

MakeColours = Callable[..., pd.DataFrame]


def warnings_of(predictor: ImagePredictor) -> list[str]:
    lines = (Path(predictor.path) / "events.jsonl").read_text().splitlines()
    return [event["text"] for event in map(json.loads, lines) if event["kind"] == "warned"]


def files(folder: str | Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("executor", ["inline", "process"])
def test_the_networks_of_folds_are_averaged_and_every_image_judges(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, executor: str
) -> None:
    frame = make_colours(12, ("blue", "green", "red"))
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(frame, hyperparameters=tiny, num_folds=3, executor=executor, nthreads_per_trial=1)
    summary = predictor.fit_summary()
    assert summary["num_folds"] == 3
    assert [member["fold"] for member in summary["ensemble"]] == [0, 1, 2]
    assert [member["weight"] for member in summary["ensemble"]] == [1 / 3] * 3
    assert "out of fold: each of 36 images" in summary["valid_score_how"]
    assert summary["calibrated_on"] == "36 images, out of fold"
    assert round(36 * summary["valid_acc"], 6).is_integer()  # a share of all of them
    members = [f"members/{number:04d}.safetensors" for number in (1, 2)]
    assert files(Path(predictor.path) / "predictor") == [*members, DESCRIPTION, "weights.safetensors"]
    contents = {(Path(predictor.path) / "predictor" / name).read_bytes() for name in [*members, "weights.safetensors"]}
    assert len(contents) == 3  # they have learned from different images
    assert not (Path(predictor.path) / "folds").exists()
    probabilities = predictor.predict_proba(frame)
    pd.testing.assert_frame_equal(ImagePredictor.load(predictor.path, verbosity=0).predict_proba(frame), probabilities)
    assert len(predictor.leaderboard()) == 1
    assert predictor.predict_set(frame.iloc[:3], coverage=0.9).map(len).ge(1).all()  # 36 images are enough for that


def test_folds_for_which_there_is_no_time_are_told_and_the_search_counts(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(40)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    slow = {**tiny, "batch_size": 1, "epochs": 1000}
    predictor.fit(frame, time_limit=0.5, hyperparameters=slow, num_folds=10, executor="inline")
    assert any("no 10 folds (" in text and "best of the search is kept" in text for text in warnings_of(predictor))
    assert "num_folds" not in predictor.fit_summary()
    assert predictor.predict(frame).notna().all()


def test_a_fold_that_fails_is_told_and_the_search_counts(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def fail(self: FoldTrainable, job: Job, report: Reporter) -> str:
        begun.append(job.trial)
        raise MemoryError("no room")

    monkeypatch.setattr(FoldTrainable, "train", fail)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(make_colours(8), hyperparameters=tiny, num_folds=4, executor="inline")
    assert any("no 4 folds (fold 1: MemoryError: no room)" in text for text in warnings_of(predictor))
    assert begun == [0]
    assert "validation images" in predictor.fit_summary()["valid_score_how"]


def test_that_there_are_too_few_images_is_told_before_the_search(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="num_folds=50 are too many for 16"):
        ImagePredictor(path=tmp_path / "run", verbosity=0).fit(make_colours(8), hyperparameters=tiny, num_folds=50)
    assert not list((tmp_path / "run").glob("trials/*/best*"))


def test_numbers_are_judged_out_of_fold_as_well(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(8).assign(label=np.linspace(-1.0, 1.0, 16))
    predictor = ImagePredictor(problem_type="regression", path=tmp_path / "run", verbosity=0)
    predictor.fit(frame, hyperparameters=tiny, num_folds=2, executor="inline")
    summary = predictor.fit_summary()
    assert summary["valid_rmse"] == -summary["valid_score"]
    assert len(summary["ensemble"]) == 2


@given(
    num_train=st.integers(10, 10_000),
    num_val=st.integers(2, 2000),
    num_folds=st.integers(2, 20),
    workers=st.integers(1, 8),
)
def test_folds_take_as_long_as_their_images_say(num_train, num_val, num_folds, workers) -> None:
    costs = FoldCosts.of(num_train, num_val, num_folds, workers)
    assert costs.num_rounds * workers >= num_folds > (costs.num_rounds - 1) * workers
    more = FoldCosts.of(num_train, num_val, num_folds + 1, 1)
    assert more.ratio > FoldCosts.of(num_train, num_val, num_folds, 1).ratio > 0


@given(limit_s=st.floats(100, 1e4), trial_s=st.floats(0.1, 10), num_folds=st.integers(2, 10))
def test_a_trial_that_takes_all_the_time_it_is_given_leaves_that_of_its_folds(limit_s, trial_s, num_folds) -> None:
    now_s = 0.0
    deadline = Deadline(limit_s, lambda: now_s)
    costs = FoldCosts.of(90, 10, num_folds, 1)
    reserve = FinishingReserve(deadline, folds=costs)
    reserve(EpochDone(0, 1, 0.5, trial_s, {"train_s": trial_s, "val_s": 0.0}))
    now_s = trial_s
    given_s = deadline.seconds_left() - reserve.seconds()
    left_s = deadline.seconds_left() - given_s
    if given_s > 0:
        assert left_s >= costs.ratio * (trial_s + given_s) - 1e-6 * limit_s
