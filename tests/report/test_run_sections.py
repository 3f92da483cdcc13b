"""The sections of time, data and cost: their frames agree with the predictor's summary and the event log."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st

from saccade import ImagePredictor
from saccade.events import (
    DataChecked,
    DataReady,
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    PhaseDone,
    RunPlanned,
    RunStarted,
    WorkerJoined,
    WorkerLost,
)
from saccade.report.record import RunRecord
from saccade.report.report import Report
from saccade.report.run_sections import (
    DATA_SECTIONS,
    TIME_SECTIONS,
    classes_plot,
    nodes_frame,
    seconds_frame,
    sizes_frame,
    sizes_plot,
    timeline_frame,
    timeline_plot,
)
from saccade.report.style import report_style
from saccade.space import Real

TINY = {
    "model": "test_resnet",
    "pretrained": False,
    "img_size": 32,
    "batch_size": 8,
    "epochs": 1,
    "lr": Real(1e-3, 1e-2),
}


@pytest.fixture(scope="module")
def fitted(make_colours_once: Callable[..., pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    frame = make_colours_once(12, ("blue", "green"))
    damaged = tmp_path_factory.mktemp("damaged") / "damaged.png"
    damaged.write_bytes(b"")
    frame = pd.concat([frame, pd.DataFrame({"image": [str(damaged)], "label": ["blue"]})], ignore_index=True)
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    return predictor.fit(frame, hyperparameters=TINY, num_trials=2, holdout_frac=0.25, report=False, executor="inline")


def record_of(*timed: tuple[float, Event]) -> RunRecord:
    events, times_s = [event for _, event in timed], [time_s for time_s, _ in timed]
    return RunRecord(Path("run"), is_run_folder=False, saved=None, events=events, times_s=times_s)


def test_the_frames_of_a_fit_agree_with_its_summary_also_after_save(fitted: ImagePredictor, tmp_path: Path) -> None:
    summary, board = fitted.fit_summary(), fitted.leaderboard()
    fitted.save(tmp_path / "copy")
    for report in (Report.read(fitted.path), Report.read(tmp_path / "copy")):
        seconds = report.frames["seconds"].set_index("part")["seconds"]
        assert seconds.to_dict() == {name: value for name, value in summary["seconds"].items() if name != "total"}
        assert seconds.sum() == pytest.approx(summary["seconds"]["total"])
        curves = report.frames["curves"].groupby("trial")["score"].max()
        assert curves.to_dict() == board.set_index("trial")["score_val"].to_dict()
        classes = report.frames["class_balance"].set_index("class")
        assert classes.loc["blue"].tolist() == classes.loc["green"].tolist() == [9, 3]
        assert report.frames["unreadable"].to_numpy().tolist() == [["file is empty", 1]]
        assert report.frames["checks"]["code"].tolist()[0] == "IMG001"
        assert "damaged.png" in report.frames["checks"]["examples"][0]
        assert report.frames["image_sizes"]["num_images"].sum() == 24
        (cost,) = report.frames["cost"].to_dict("records")
        best = board.set_index("trial").loc[cost["trial"]]
        assert (cost["weight"], cost["images_per_s"]) == (1.0, best["images_per_s"])
        network = timm.create_model("test_resnet", num_classes=2)
        assert cost["parameters"] == sum(each.numel() for each in network.parameters())
        environment = report.frames["environment"].set_index("what")["value"]
        assert environment["trials"] == "in this process"
        assert {"Saccade", "Python", "torch", "device", "platform"} <= set(environment.index)
        jobs = report.frames["timeline"].query("row != 'run'")
        assert len(jobs) == 2
        for name in ("seconds", "timeline", "class_balance", "image_sizes"):
            report.plot(name).savefig(io.BytesIO(), format="svg")


def test_the_seconds_of_a_run_without_a_predictor_are_those_of_its_events() -> None:
    record = record_of(
        (0.0, RunStarted("run", None, None)),
        (1.0, PhaseDone("preparing", 0.0, 1.0, "decoding")),
        (3.0, PhaseDone("decoding", 1.0, 2.0, "search")),
        (3.0, RunPlanned("", "accuracy", [], "cpu", "in 1 worker process", num_workers=1)),
        (4.0, JobStarted(0)),
        (8.0, JobDone(0)),
    )
    frame = seconds_frame(record)
    assert frame is not None
    assert frame.set_index("part")["seconds"].to_dict() == {
        "preparing": 1.0,
        "decoding": 2.0,
        "idle": 1.0,
        "overhead": 4.0,
    }
    assert frame["percent"].sum() == pytest.approx(100)


@given(toggled=st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_jobs_of_one_row_of_the_time_line_follow_one_another(toggled: list[int]) -> None:
    timed: list[tuple[float, Event]] = [(0.0, RunStarted("run", None, None))]
    running: set[int] = set()
    for time_s, trial in enumerate(toggled):
        timed.append((time_s, JobDone(trial) if trial in running else JobStarted(trial)))
        running ^= {trial}
    frame = timeline_frame(record_of(*timed))
    assert frame is not None
    assert len(frame) == sum(isinstance(event, JobStarted) for _, event in timed)
    assert (frame["outcome"] == "running").sum() == len(running)
    for _, jobs in frame.groupby("row"):
        assert (jobs["end_s"].to_numpy()[:-1] <= jobs["start_s"].to_numpy()[1:]).all()


def test_nodes_of_a_cluster_have_rows_in_the_time_line_and_in_a_table() -> None:
    record = record_of(
        (0.0, RunStarted("run", None, None)),
        (1.0, WorkerJoined(1, "node-10", 1.5)),
        (1.0, WorkerJoined(2, "node-2")),
        (1.0, WorkerJoined(3, "node-2")),
        (1.0, JobStarted(0, None, "node-2")),
        (1.0, JobStarted(1, None, "node-2")),
        (1.0, JobStarted(2, None, "node-10")),
        (4.0, EpochDone(2, 1, 0.5, 3.0, node="node-10")),
        (5.0, WorkerLost(2, "node-2")),
        (5.0, JobFailed(1, "lost", is_worker_lost=True)),
        (6.0, JobStarted(1, None, "node-2")),
    )
    frame = timeline_frame(record)
    assert frame is not None
    assert sorted(frame["row"]) == ["node-10 1", "node-2 1", "node-2 2", "node-2 2"]
    timeline_plot(frame)
    nodes = nodes_frame(record)
    assert nodes is not None
    assert nodes.fillna(0).to_dict("records") == [
        {"node": "node-2", "workers": 2, "lost": 1, "speed": 0, "jobs": 3, "epochs": 0, "epochs_s": 0.0},
        {"node": "node-10", "workers": 1, "lost": 0, "speed": 1.5, "jobs": 1, "epochs": 1, "epochs_s": 3.0},
    ]
    assert nodes_frame(record_of((0.0, RunStarted("run", None, None)), (1.0, JobStarted(0)))) is None


@pytest.mark.parametrize("num_classes", [2, 30, 31, 1000])
def test_class_balance_is_drawn_for_few_and_many_classes(num_classes: int) -> None:
    sizes = [[f"class <{number}> 🍎 $x$", 1 + number, number % 3] for number in range(num_classes)]
    record = record_of((0.0, DataReady(1, 1, num_classes, 0, 1.0, class_sizes=sizes)))
    frame = DATA_SECTIONS[2].frame(record)
    assert frame is not None
    assert frame["training"].tolist() == list(range(1, num_classes + 1))
    assert "no validation image" in frame.attrs["note"]
    with report_style():
        file = io.BytesIO()
        classes_plot(frame).savefig(file, format="svg")
    assert len(file.getvalue()) < 400_000


@pytest.mark.parametrize(
    "sizes", [[[32, 32, 5]], [[1, 1, 1], [4000, 3000, 9]], [[w, 100 + w, w] for w in range(50, 900)]]
)
def test_image_sizes_are_drawn_whatever_their_range(sizes: list[list[int]]) -> None:
    frame = sizes_frame(record_of((0.0, DataReady(10**6, 1, 2, 0, 1.0, image_sizes=sizes))))
    assert frame is not None
    assert "spread evenly" in frame.attrs["note"]
    assert np.allclose(frame["megapixels"] * 1e6, frame["width"] * frame["height"])
    with report_style():
        sizes_plot(frame).savefig(io.BytesIO(), format="svg")


def test_what_is_not_known_is_left_out() -> None:
    sections = (*TIME_SECTIONS, *DATA_SECTIONS)
    record = record_of((0.0, RunStarted("run", None, None)), (0.0, DataReady(1, 1, 0, 0, 1.0)))
    assert all(section.frame(record) is None for section in sections)
    checked = record_of((0.0, DataChecked([])))
    frame = DATA_SECTIONS[0].frame(checked)
    assert frame is not None
    assert frame.empty
    assert frame.attrs["note"] == "The data checks found nothing."
