"""Students: soft targets, the choice of a network, and fits whose result is a student."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from saccade import Categorical, ImagePredictor
from saccade.deadline import Deadline
from saccade.errors import HyperparameterError
from saccade.fit.options import FitOptions
from saccade.fit.presets import find_preset
from saccade.selection.candidates import Candidate
from saccade.selection.combination import Combination
from saccade.selection.distillation import TEACHER_PART, _configs, loss_message, soft_targets
from saccade.space import Dict
from saccade.study.trial import EpochDone, Trial
from saccade.tasks.problem import Problem
from saccade.training.probes.final_probe import FinalProbe
from saccade.training.probes.heads import HeadFitter
from saccade.training.task import ImageTask, Split

MakeColours = Callable[..., pd.DataFrame]


def taught(outputs: np.ndarray, rows: np.ndarray, targets: np.ndarray, problem: Problem) -> tuple[Combination, Any]:
    """Return a teacher of one linear probe with these out-of-fold outputs, and a task."""
    nothing = np.zeros(0, np.float32)
    probe = FinalProbe(rows, outputs, nothing, "fc", nothing, nothing, network="n")
    teacher = Combination([Candidate(0, {}, SimpleNamespace(), nothing, 0, probe=probe)], [1.0], nothing, nothing)
    return teacher, SimpleNamespace(train=Split(np.arange(len(targets)), targets), problem=problem)


def test_soft_targets_are_a_mean_of_labels_and_softened_out_of_fold_probabilities() -> None:
    problem = Problem.of(pd.Series(["a", "b", "c"]))
    outputs = np.array([[9, 1, 0], [0, 3, 0], [0, 0, 0]], np.float32)
    soft = soft_targets(*taught(outputs, np.array([2, 0, 7]), np.array([0, 1, 2, 1]), problem), Deadline(None))
    assert soft.dtype == np.float32
    assert np.allclose(soft.sum(1), 1)
    assert (soft[1] == [0, 1, 0]).all()  # row 1 has no prediction
    assert soft[0].argmax() == 0
    assert soft[0][1] > soft[0][2] > 0.05
    assert soft[2][2] == pytest.approx(1 - TEACHER_PART, abs=0.1)
    assert soft[2][0] > soft[2][1] > 0


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        ([1.0, 3.0, 8.0, 2.0], [[0.5], [-1.0], [2.0], [0.0]]),
        ([["a"], ["b"], ["a", "b"], []], [[4.0, -4.0], [-4.0, 4.0], [1.0, 1.0], [0.0, 0.0]]),
        (["a", "b", "a", "b"], [[4.0, 0.0], [0.0, 4.0], [3.0, 0.0], [0.0, 0.0]]),
    ],
)
def test_losses_and_probes_of_all_problems_take_soft_targets(labels: list[Any], outputs: list[list[float]]) -> None:
    problem = Problem.of(pd.Series(labels), "regression" if isinstance(labels[0], float) else None)
    targets, given = problem.encode(pd.Series(labels)), np.array(outputs, np.float32)
    soft = soft_targets(*taught(given, np.arange(4), targets, problem), Deadline(None))
    hard = problem.soft_targets(torch.as_tensor(targets)).numpy()
    assert soft.shape == hard.shape == (4, problem.num_outputs)
    assert not np.allclose(soft, hard)
    if not problem.has_classes:  # in standard units, as the network's outputs
        assert np.allclose(soft, (1 - TEACHER_PART) * hard + TEACHER_PART * given, atol=1e-5)
    both = [problem.loss(torch.tensor(given), torch.as_tensor(each)) for each in (targets, hard)]
    assert both[0].item() == pytest.approx(both[1].item())
    assert problem.num_right(torch.tensor(given), torch.tensor(hard)) == problem.num_right(
        torch.tensor(given), torch.as_tensor(targets)
    )
    features = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    heads = [HeadFitter(features, targets, problem, soft=each).fit(num_folds=1) for each in (None, hard, soft)]
    assert np.allclose(heads[0].weight, heads[1].weight)
    assert not np.allclose(heads[0].weight, heads[2].weight)


def trial(number: int, model: str, score: float, image_ms: float) -> Trial:
    return Trial(number, {"model": model}, reports=[EpochDone(number, 0, score, metrics={"image_ms": image_ms})])


@pytest.mark.parametrize(
    ("teacher_ms", "given", "expected"),
    [
        (1000.0, (), [("test_resnet", None), ("test_efficientnet", None)]),  # both are fast enough as they are
        (25.0, (), [("test_resnet", 96), ("test_efficientnet", None)]),  # 160 px in 10 ms, 96 px in 3.6 ms
        (12.0, (), [("test_efficientnet", None)]),  # test_resnet sees too little at 64 px
        (1.0, (), [("test_efficientnet", 96)]),  # none is fast enough, so the fastest at its smallest
        (1.0, ("img_size",), [("test_efficientnet", None)]),
    ],
)
def test_students_are_fast_enough_at_the_largest_size(
    make_task: Callable[..., ImageTask], teacher_ms: float, given: tuple[str, ...], expected: list[Any]
) -> None:
    space = Dict({"model": Categorical("test_efficientnet", "test_resnet"), "pretrained": False})
    trials = [trial(0, "test_efficientnet", 0.7, 2.0), trial(1, "test_resnet", 0.9, 10.0)]
    found = _configs(space, make_task(), trials, teacher_ms, Deadline(None), given)
    assert [(config["model"], config.get("img_size")) for config in found] == expected


def test_a_fit_with_distillation_returns_the_student_and_keeps_the_teacher(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path, tiny_weights: Path
) -> None:
    frame = make_colours(12, ("blue", "green", "red"))
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    space = {**tiny, "pretrained": True, "epochs": 1, "lr": Categorical(3e-3, 1e-3)}
    predictor.fit(
        frame,
        hyperparameters=space,
        weights=tiny_weights,
        num_trials=2,
        time_limit=None,
        distill=True,
        executor="inline",
    )
    summary = predictor.fit_summary()
    found = summary["distillation"]
    teacher = ImagePredictor.load(found["teacher_path"], verbosity=0)
    assert teacher.path == str(tmp_path / "run" / "teacher")
    assert found["teacher"]["valid_score"] == teacher.fit_summary()["valid_score"]
    assert found["difference"] == summary["valid_score"] - found["teacher"]["valid_score"]
    for row in (found["student"], found["teacher"]):
        assert row["images_per_s"] > row["files_per_s"] > 0
        assert row["latency_ms"] > 0
    assert summary["result"].startswith("student test_resnet (32 px): accuracy ")
    assert "; teacher test_resnet (32 px)" in summary["result"]
    assert summary["seconds"]["distillation"] > 0
    table = predictor.leaderboard()
    assert len(table) == 3
    assert len(teacher.leaderboard()) == 2
    student = table[table["trial"] == 2].iloc[0]
    assert student["weight"] == 1
    assert student["reason"].startswith("student")
    assert not (tmp_path / "run" / "students").exists()
    again = ImagePredictor.load(tmp_path / "run", verbosity=0)
    pd.testing.assert_frame_equal(again.predict_proba(frame), predictor.predict_proba(frame))
    assert again.fit_summary()["distillation"] == json.loads(json.dumps(found))
    warned = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert any("its throughput is only" in str(event.get("text")) for event in warned)  # there is no other network
    # A new fit in the folder replaces both.
    predictor.fit(frame, hyperparameters={**tiny, "epochs": 1}, overwrite=True)
    assert not (tmp_path / "run" / "teacher").exists()
    assert "distillation" not in predictor.fit_summary()


def test_a_fit_without_time_for_a_student_returns_one_anyway(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(make_colours(6), presets="fast_inference", hyperparameters=tiny, time_limit=0.1)
    assert predictor.fit_summary()["distillation"]["student"]["networks"] == ["test_resnet (32 px)"]
    assert predictor.predict(make_colours(6)).notna().all()


def test_a_message_says_by_how_much_a_student_is_worse() -> None:
    rows = {"student": {"images_per_s": 100.0}, "teacher": {"images_per_s": 20.0}}
    found = {**rows, "teacher_path": "T", "difference": -0.02, "difference_error": 0.015, "num_validation_images": 99}
    assert "lower by 0.0200 ± 0.0150 on 99 validation images" in loss_message({"distillation": found})
    assert "ImagePredictor.load('T')" in loss_message({"distillation": found})
    assert loss_message({"distillation": {**found, "difference": -0.009}}) == ""
    slow = {**found, "difference": 0.0, "student": {"images_per_s": 50.0}}
    assert "only 2.5 times" in loss_message({"distillation": slow})


@pytest.mark.parametrize("besides", [{"refit_full": True}, {"num_folds": 3}, {"objectives": ["accuracy", "latency"]}])
def test_options_that_contradict_distillation_are_refused(besides: dict[str, Any]) -> None:
    assert find_preset("fast_inference").options["distill"]
    with pytest.raises(HyperparameterError, match=r"distill=True .* is not supported together with"):
        FitOptions.of(besides).with_defaults(find_preset("fast_inference").options)
    assert FitOptions.of({**besides, "distill": False}).with_defaults(find_preset("fast_inference").options)


def test_splits_keep_soft_targets() -> None:
    split = Split(np.arange(3), np.array([0, 1, 0]), soft=np.eye(3, 2, dtype=np.float32))
    assert split.take(np.array([2])).soft.shape == (1, 2)
    assert split.joined(split).soft.shape == (6, 2)
    assert split.joined(replace(split, soft=None)).soft is None
