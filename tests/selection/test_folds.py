"""Which image is in which fold, and that no network is judged by what it has learned from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import DataError
from saccade.events import EpochDone
from saccade.selection.folds import OUTPUTS, TEACHES_ALWAYS, FoldOrder, FoldTrainable, fold_numbers, part_of
from saccade.study.trial import Decision, Job
from saccade.tasks.problem import Problem
from saccade.training.task import ImageTask, Split

TWO = Problem.of(["cat", "dog"])


@given(
    classes=st.lists(st.integers(0, 3), min_size=12, max_size=60),
    equals=st.integers(6, 100),
    num_folds=st.integers(2, 4),
    seed=st.integers(0, 9),
)
def test_folds_are_fair_and_keep_equal_images_together(classes, equals, num_folds, seed) -> None:
    # Equal images have equal labels here.
    groups = [f"{kind} {number % equals}" for number, kind in enumerate(classes)]
    targets, problem = np.array(classes), Problem.of(["a", "b", "c", "d"])
    try:
        folds = fold_numbers(targets, problem, groups, num_folds, seed)
    except DataError:
        several = [kind for kind in set(classes) if len({g for g in groups if g.startswith(str(kind))}) > 1]
        assert len({group for group in groups if int(group[0]) in several}) < num_folds + len(set(classes))
        return
    assert set(folds) - {TEACHES_ALWAYS} == set(range(num_folds))
    for group in set(groups):
        assert len({fold for fold, other in zip(folds, groups, strict=True) if other == group}) == 1
    for kind in set(classes):
        of_kind = {group: fold for group, fold, other in zip(groups, folds, classes, strict=True) if other == kind}
        counts = np.bincount([fold for fold in of_kind.values() if fold >= 0], minlength=num_folds)
        if len(of_kind) == 1:
            assert set(of_kind.values()) == {TEACHES_ALWAYS}
        else:
            assert counts.max() - counts.min() <= 1
            assert counts.max() < len(of_kind)  # each network learns from some of each class


def test_the_same_seed_draws_the_same_folds_and_unknown_images_are_alone() -> None:
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


def test_too_many_folds_are_told() -> None:
    with pytest.raises(DataError, match="num_folds=5 are too many for 4 different images"):
        fold_numbers(np.array([0, 0, 1, 1, 1]), TWO, ["a", "b", "c", "d", "d"], 5)


def test_a_part_has_the_weights_of_its_images() -> None:
    split = Split(np.arange(4), np.array([0, 1, 0, 1]), np.array([1, 2, 3, 4], np.float32))
    part = part_of(split, np.array([True, False, False, True]))
    assert (part.indices.tolist(), part.targets.tolist()) == ([0, 3], [0, 1])
    assert part.weights is not None
    assert part.weights.tolist() == [1, 4]


def test_no_network_is_judged_by_images_that_it_has_learned_from(
    make_task: Callable[..., ImageTask], tiny: dict[str, Any], tmp_path: Path
) -> None:
    task = make_task()
    folds = fold_numbers(task.train.targets, task.problem, [""] * len(task.train.indices), 3)
    trainable = FoldTrainable(task, folds)
    judged: list[int] = []
    for fold in range(3):
        of_fold = trainable.of_fold(fold)
        assert not set(of_fold.train.indices) & set(of_fold.val.indices)
        assert sorted([*of_fold.train.indices, *of_fold.val.indices]) == sorted(task.train.indices)
        assert of_fold.is_refit  # so that its images choose nothing
        judged += of_fold.val.indices.tolist()
    assert sorted(judged) == sorted(task.train.indices)

    reports: list[EpochDone] = []

    def report(event: EpochDone) -> Decision:
        reports.append(event)
        return Decision.CONTINUE

    job = Job(1, {"order": FoldOrder(1, {**tiny, "epochs": 3})}, str(tmp_path / "fold"), until_epoch=2)
    trainable.train(job, report)
    assert [event.epoch for event in reports] == [1, 2]
    assert np.load(tmp_path / "fold" / OUTPUTS).shape == ((folds == 1).sum(), 2)
