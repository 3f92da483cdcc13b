"""The sections of the search: their frames agree with the leaderboard and the event log, for one trial and for many."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import saccade
from saccade.events import (
    Decision,
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    RunStarted,
    TrialCreated,
    TrialRestarted,
)
from saccade.report.record import RunRecord
from saccade.report.report import Report
from saccade.report.search_sections import (
    NOT_SET,
    SEARCH_SECTIONS,
    best_frame,
    curves_frame,
    hyperparameters_frame,
    importance_frame,
    tradeoff_frame,
)
from saccade.report.style import report_style, svg_of
from saccade.space import Bool, Categorical, Int, Real

SPACE = {
    "lr": Real(1e-5, 1, log=True),
    "depth": Int(1, 4),
    "flip": Bool(),
    "optimizer": Categorical(*[f"an <optimiser> & ${number}$" for number in range(20)]),
    "model": Categorical("resnet18", {"name": "own 🍎", "width": Int(8, 512, log=True)}),
    "epochs": 9,
}


def trained(config: dict[str, Any], report: Callable[..., Any]) -> None:
    if config["depth"] == 4 and config["flip"]:
        raise ValueError("broken")
    for epoch in range(1, config["epochs"] + 1):
        report(epoch=epoch, error=0.1 + abs(math.log10(config["lr"]) + 2) / 10 + 1 / epoch)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> saccade.TuneResult:
    options: dict[str, Any] = {"scheduler": "asha", "searcher": "random", "seed": 0, "verbosity": 0}
    folder = tmp_path_factory.mktemp("tune")
    return saccade.tune(trained, SPACE, metric="error", mode="min", num_trials=60, path=folder, **options)


def record_of(*events: Event) -> RunRecord:
    times_s = [float(number) for number in range(len(events))]
    return RunRecord(Path("run"), is_run_folder=True, saved=None, events=list(events), times_s=times_s)


def trials_of(scores: list[float], configs: list[dict[str, Any]] | None = None, **metrics: Any) -> RunRecord:
    events: list[Event] = [RunStarted("run", None, None)]
    for number, score in enumerate(scores):
        events += [TrialCreated(number, configs[number] if configs else {"lr": 0.1}), JobStarted(number)]
        of_trial = {name: values[number] for name, values in metrics.items()}
        events += [EpochDone(number, 1, score, 1.0, of_trial, is_last=True), JobDone(number)]
    return record_of(*events)


def test_the_frames_of_a_tuned_function_agree_with_its_leaderboard(tuned: saccade.TuneResult) -> None:
    assert tuned.path is not None
    report = Report.read(tuned.path)
    board = tuned.leaderboard()
    pd.testing.assert_frame_equal(report.frames["leaderboard"], board)
    curves = report.frames["curves"]
    assert len(curves) == sum(len(trial.reports) for trial in tuned.trials)
    by_trial = curves.groupby("trial")["score"].max()
    expected = board.dropna(subset="error").set_index("trial")["error"]
    pd.testing.assert_series_equal(-by_trial, expected.sort_index(), check_names=False, check_dtype=False)
    assert curves.attrs == {"metric": "error", "lower_is_better": True}
    last_marks = curves.groupby("trial")["mark"].last()
    status = board.set_index("trial")["status"]
    assert last_marks.to_dict() == status[last_marks.index].to_dict()
    best = report.frames["best"]
    assert best["score"].is_monotonic_increasing
    assert (best["trial"].iloc[-1], -best["score"].iloc[-1]) == (tuned.best_trial.number, tuned.best_score)
    values = report.frames["slices"]
    assert set(values["hyperparameter"]) == {"lr", "depth", "flip", "optimizer", "model", "model/name", "model/width"}
    assert set(values["trial"]) == set(expected.index)
    lr = values[values["hyperparameter"] == "lr"].set_index("trial")["value"].astype(float)
    assert lr.to_dict() == board.set_index("trial")["lr"][lr.index].to_dict()
    width = values[values["hyperparameter"] == "model/width"]
    assert {type(value) for value in width["value"]} == {int, str}
    importances = report.frames["importance"].set_index("hyperparameter")
    assert importances["importance"].idxmax() == "lr"
    assert importances["importance"].sum() == pytest.approx(1)
    assert "only" in importances.loc["model/width", "note"]
    for name in ("curves", "best", "importance", "slices", "coordinates", "timeline"):
        with report_style():
            assert "<text" in svg_of(report.plot(name), name)
    page = report.html()
    assert "<optimiser>" not in page
    assert page.count("<figure") == 6


def test_what_happened_to_a_trial_is_marked_at_its_epoch() -> None:
    record = record_of(
        RunStarted("run", None, None),
        TrialCreated(0, {}),
        JobStarted(0, 1),
        EpochDone(0, 0, 0.3),
        EpochDone(0, 1, 0.5, checkpoint="last-0001", decision=Decision.PAUSE),
        JobDone(0, "paused"),
        TrialCreated(1, {}),
        JobStarted(1),
        EpochDone(1, 1, 0.4),
        EpochDone(1, 2, 0.9),
        TrialRestarted(1, 1, 1),
        JobStarted(1),
        EpochDone(1, 2, 0.6, decision=Decision.STOP),
        JobDone(1, "stopped"),
        JobStarted(0),
        EpochDone(0, 2, 0.7),
        JobFailed(0, "why"),
    )
    frame = curves_frame(record)
    assert frame is not None
    assert frame[["trial", "epoch", "score", "mark"]].to_numpy().tolist() == [
        [0, 0, 0.3, ""],
        [0, 1, 0.5, "promoted"],
        [0, 2, 0.7, "failed"],
        [1, 1, 0.4, ""],
        [1, 2, 0.6, "stopped"],
    ]
    best = best_frame(record)
    assert best is not None
    assert best[["trial", "score"]].to_numpy().tolist() == [[0, 0.3], [0, 0.5], [1, 0.6], [0, 0.7]]


@given(scores=st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_the_best_score_over_time_ends_with_the_best_of_all(scores: list[float]) -> None:
    best = best_frame(trials_of(scores))
    assert best is not None
    assert best["score"].tolist() == sorted(set(np.maximum.accumulate(scores)))
    assert best["trial"].iloc[-1] == int(np.argmax(scores))


def test_a_run_of_one_trial_has_curves_and_no_comparisons() -> None:
    record = trials_of([0.5])
    made = {section.name: section.frame(record) for section in SEARCH_SECTIONS}
    assert {name for name, frame in made.items() if frame is not None} == {"curves", "best"}
    assert all(section.frame(record_of(RunStarted("run", None, None))) is None for section in SEARCH_SECTIONS)
    for section in SEARCH_SECTIONS:
        frame = made[section.name]
        if frame is not None and section.plot is not None:
            with report_style():
                section.plot(frame).savefig(io.BytesIO(), format="svg")


@pytest.mark.parametrize(
    ("scores", "note"),
    [
        ([0.1, 0.2, 0.3], "3 trials with a score; importances need at least 10"),
        ([0.5] * 20, "All trials have the same score"),
        (np.random.default_rng(0).random(20).tolist(), "cannot be predicted"),
    ],
)
def test_importances_are_not_guessed(scores: list[float], note: str) -> None:
    numbers = np.random.default_rng(1).random(len(scores)).tolist()
    frame = importance_frame(trials_of(scores, [{"lr": number, "epochs": 5} for number in numbers]))
    assert frame is not None
    assert frame["hyperparameter"].tolist() == ["lr"]  # the other one is constant
    assert frame["importance"].isna().all()
    assert note in frame.attrs["note"]


def test_values_that_a_branch_lacks_are_not_set_and_odd_values_are_text() -> None:
    configs: list[dict[str, Any]] = [
        {"a": 1, "b": {"c": [1, 2]}},
        {"a": None, "b": "none"},
        {"a": 2.5, "b": {"c": [1, 3]}},
    ]
    frame = hyperparameters_frame(trials_of([0.1, 0.2, 0.3], configs))
    assert frame is not None
    assert frame.groupby("hyperparameter")["value"].agg(list).to_dict() == {
        "a": ["1", "null", "2.5"],
        "b": [NOT_SET, "none", NOT_SET],
        "b/c/0": [1, NOT_SET, 1],
        "b/c/1": [2, NOT_SET, 3],
    }


def test_the_front_has_the_trials_that_no_other_one_beats_in_score_and_speed() -> None:
    configs = [{"model": name} for name in "abcd"]
    frame = tradeoff_frame(trials_of([0.5, 0.9, 0.7, 0.6], configs, image_ms=[1.0, 4.0, 2.0, 3.0]))
    assert frame is not None
    assert frame.set_index("model")["on_front"].to_dict() == {"b": True, "c": True, "d": False, "a": True}
    assert frame["images_per_s"].tolist() == [250.0, 500.0, pytest.approx(333.333, abs=0.01), 1000.0]
    assert tradeoff_frame(trials_of([0.5, 0.6], configs)) is None  # speeds were not measured
    assert tradeoff_frame(trials_of([0.5, 0.6], configs[:1] * 2, image_ms=[1.0, 1.0])) is None  # of a single network
