"""The end of a fit, on synthetic predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from saccade.selection.finishing import _class_prior
from saccade.tasks.problem import Multiclass
from saccade.training.task import Split


def test_classes_of_equal_size_stay_equal_whichever_images_are_held_out(make_task: Any) -> None:
    """Which class loses training images to the validation set is random, so the class prior must not depend on it."""
    task = make_task()
    targets = np.repeat([0, 1, 2], 4)
    is_held_out = np.array([1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0], bool)
    train, val = (Split(np.flatnonzero(rows), targets[rows]) for rows in (~is_held_out, is_held_out))
    task = replace(task, train=train, val=val, problem=Multiclass(("a", "b", "c")))
    np.testing.assert_allclose(_class_prior(replace(task, is_holdout=True), {}), [1 / 3] * 3)
    np.testing.assert_allclose(_class_prior(replace(task, is_holdout=False), {}), [1 / 8, 3 / 8, 4 / 8])
