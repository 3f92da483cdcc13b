"""The folds of images, and fits that end in a network for each fold."""

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

from contracts.executors import PicklingExecutor
from saccade import ImagePredictor
from saccade.deadline import Deadline
from saccade.errors import DataError
from saccade.events import EpochDone
from saccade.fit.time_budget import FinishingReserve
from saccade.inference.feature_bank import FEATURES
from saccade.inference.saved import DESCRIPTION, HISTORY, SPLIT
from saccade.inference.validation import VALIDATION
from saccade.selection.folds import OUTPUTS, TRAIN_ONLY, FoldCosts, FoldTrainable, fold_numbers
from saccade.study.trial import Decision, Job, Reporter
from saccade.study.trial_files import LocalTrialFiles
from saccade.tasks.problem import Problem
from saccade.training.task import ImageTask, Split

TWO = Problem.of(["cat", "dog"])
MakeColours = Callable[..., pd.DataFrame]


def warnings_of(predictor: ImagePredictor) -> list[str]:
    lines = (Path(predictor.path) / "events.jsonl").read_text().splitlines()
    return [event["text"] for event in map(json.loads, lines) if event["kind"] == "warned"]


def files(folder: str | Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


@given(
    classes=st.lists(st.integers(0, 3), min_size=12, max_size=60),
    equals=st.integers(6, 100),
    num_folds=st.integers(2, 4),
    seed=st.integers(0, 9),
)
def test_folds_are_stratified_and_keep_equal_images_together(classes, equals, num_folds, seed) -> None:
    # Equal images have equal labels here.
    groups = [f"{kind} {number % equals}" for number, kind in enumerate(classes)]
    targets, problem = np.array(classes), Problem.of(["a", "b", "c", "d"])
    try:
        folds = fold_numbers(targets, problem, groups, num_folds, seed)
    except DataError:
        several = [kind for kind in set(classes) if len({g for g in groups if g.startswith(str(kind))}) > 1]
        assert len({group for group in groups if int(group[0]) in several}) < num_folds + len(set(classes))
        return
    assert set(folds) - {TRAIN_ONLY} == set(range(num_folds))
    for group in set(groups):
        assert len({fold for fold, other in zip(folds, groups, strict=True) if other == group}) == 1
    for kind in set(classes):
        of_kind = {group: fold for group, fold, other in zip(groups, folds, classes, strict=True) if other == kind}
        counts = np.bincount(folds[(targets == kind) & (folds >= 0)], minlength=num_folds)
        if len(of_kind) == 1:
            assert set(of_kind.values()) == {TRAIN_ONLY}
        else:
            assert counts.max() - counts.min() <= max(groups.count(group) for group in of_kind)
            assert counts.max() < (targets == kind).sum()  # each training set has the class


def test_the_same_seed_draws_the_same_folds() -> None:
    targets = np.arange(40) % 2
    draws = [fold_numbers(targets, TWO, [""] * 40, 5, seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert np.bincount(draws[0]).tolist() == [8] * 5


@pytest.mark.parametrize(
    ("problem", "targets"),
    [
        (Problem.of([["a"], ["a", "b"], ["c"]]), np.eye(3)[np.arange(9) % 3]),
        (Problem.of([0.5, 1.5, 3.25], "regression"), np.linspace(-1, 1, 9)),
    ],
)
def test_other_problems(problem: Problem, targets: np.ndarray) -> None:
    folds = fold_numbers(targets, problem, [str(number) for number in range(9)], 3)
    assert np.bincount(folds).tolist() == [3, 3, 3]


def test_too_many_folds_are_an_error() -> None:
    with pytest.raises(DataError, match="num_folds=5 is too many for 4 different images or groups"):
        fold_numbers(np.array([0, 0, 1, 1, 1]), TWO, ["a", "b", "c", "d", "d"], 5)


def test_a_subset_has_the_weights_of_its_images() -> None:
    split = Split(np.arange(4), np.array([0, 1, 0, 1]), np.array([1, 2, 3, 4], np.float32))
    part = split.take(np.array([True, False, False, True]))
    assert (part.indices.tolist(), part.targets.tolist()) == ([0, 3], [0, 1])
    assert part.weights is not None
    assert part.weights.tolist() == [1, 4]


def test_no_network_is_evaluated_on_its_training_images(
    make_task: Callable[..., ImageTask], tiny: dict[str, Any], tmp_path: Path
) -> None:
    task = make_task()
    folds = fold_numbers(task.train.targets, task.problem, [""] * len(task.train.indices), 3)
    trainable = FoldTrainable(task, folds)
    evaluated: list[int] = []
    for fold in range(3):
        of_fold = trainable.task_of(fold)
        assert not set(of_fold.train.indices) & set(of_fold.val.indices)
        assert sorted([*of_fold.train.indices, *of_fold.val.indices]) == sorted(task.train.indices)
        assert of_fold.is_refit  # so that its images choose nothing
        evaluated += of_fold.val.indices.tolist()
    assert sorted(evaluated) == sorted(task.train.indices)

    reports: list[EpochDone] = []

    def report(event: EpochDone) -> Decision:
        reports.append(event)
        return Decision.CONTINUE

    job = Job(1, {"fold": 1, "config": {**tiny, "epochs": 3}}, until_epoch=2, files=LocalTrialFiles(tmp_path))
    trainable.train(job, report)
    assert [event.epoch for event in reports] == [1, 2]
    assert np.load(tmp_path / "0001" / OUTPUTS).shape == ((folds == 1).sum(), 2)


def test_the_networks_of_folds_are_averaged_and_evaluated_on_all_images(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(12, ("blue", "green", "red"))
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    predictor.fit(frame, hyperparameters=tiny, num_folds=3, executor=PicklingExecutor(), nthreads_per_trial=1)
    summary = predictor.fit_summary()
    assert summary["num_folds"] == 3
    assert [member["fold"] for member in summary["ensemble"]] == [0, 1, 2]
    assert [member["weight"] for member in summary["ensemble"]] == [1 / 3] * 3
    assert "out of fold: each of 36 images" in summary["valid_score_how"]
    assert summary["calibrated_on"] == "36 images, out of fold"
    assert summary["result"].startswith(
        f"3 folds of trial 0, accuracy {summary['valid_acc']:.4g} (best single: trial 0,"
    )
    assert predictor.leaderboard()["weight"].tolist() == [pytest.approx(1)]
    split = predictor.pipeline.saved.earlier_split  # the first network's validation images are its fold
    assert split is not None
    assert (len(split.fitted), len(split.held_out)) == (2 * 24, 2 * 12)  # two keys for each image
    assert round(36 * summary["valid_acc"], 6).is_integer()  # of all 36 images
    members = [f"members/{number:04d}.safetensors" for number in (1, 2)]
    assert files(Path(predictor.path) / "predictor") == [
        FEATURES,
        HISTORY,
        *members,
        DESCRIPTION,
        SPLIT,
        VALIDATION,
        "weights.safetensors",
    ]
    contents = {(Path(predictor.path) / "predictor" / name).read_bytes() for name in [*members, "weights.safetensors"]}
    assert len(contents) == 3  # the networks differ
    assert not (Path(predictor.path) / "folds").exists()
    probabilities = predictor.predict_proba(frame)
    pd.testing.assert_frame_equal(ImagePredictor.load(predictor.path, verbosity=0).predict_proba(frame), probabilities)
    assert len(predictor.leaderboard()) == 1
    assert predictor.predict_set(frame.iloc[:3], coverage=0.9).map(len).ge(1).all()  # 36 images are enough for that


def test_without_time_for_folds_the_best_of_the_search_is_kept(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_colours(40)
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    slow = {**tiny, "batch_size": 1, "epochs": 1000}
    predictor.fit(frame, time_limit=0.5, hyperparameters=slow, num_folds=10, executor="inline")
    assert any("no 10 folds (" in text and "best of the search is kept" in text for text in warnings_of(predictor))
    assert "num_folds" not in predictor.fit_summary()
    assert predictor.predict(frame).notna().all()


def test_after_a_failed_fold_the_best_of_the_search_is_kept(
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


def test_too_few_images_are_an_error_before_the_search(
    make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="num_folds=50 is too many for 16"):
        ImagePredictor(path=tmp_path / "run", verbosity=0).fit(make_colours(8), hyperparameters=tiny, num_folds=50)
    assert not list((tmp_path / "run").glob("trials/*/best*"))


def test_regression_is_evaluated_out_of_fold(make_colours: MakeColours, tiny: dict[str, Any], tmp_path: Path) -> None:
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
def test_the_costs_of_folds_grow_with_their_number(num_train, num_val, num_folds, workers) -> None:
    costs = FoldCosts.of(num_train, num_val, num_folds, workers)
    assert costs.num_rounds * workers >= num_folds > (costs.num_rounds - 1) * workers
    more = FoldCosts.of(num_train, num_val, num_folds + 1, 1)
    assert more.ratio > FoldCosts.of(num_train, num_val, num_folds, 1).ratio > 0


@given(limit_s=st.floats(100, 1e4), trial_s=st.floats(0.1, 10), num_folds=st.integers(2, 10))
def test_the_reserve_leaves_time_for_folds_after_the_longest_trial(limit_s, trial_s, num_folds) -> None:
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


def test_a_group_of_several_classes_is_in_one_fold_or_in_all_training_sets() -> None:
    targets = np.array([0, 1, 0, 1, 0, 0, 2, 0])
    groups = ["p", "p", "q", "q", "r", "s", "t", "t"]  # class 2 is in group t alone
    folds = fold_numbers(targets, Problem.of(["a", "b", "c"]), groups, 2)
    assert folds[6:].tolist() == [TRAIN_ONLY, TRAIN_ONLY]
    assert folds[0] == folds[1]
    assert folds[2] == folds[3] != folds[0]
