"""The end of a fit, on made-up folders and predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.fit.run_folder import tidy_up
from saccade.selection.finishing import _trust_of
from saccade.training.task import Split


def test_tidying_up_leaves_results_and_can_be_done_twice(tmp_path: Path) -> None:
    for name in ("trials/0000/last-0003.safetensors", "trials/0000/best-0002.safetensors", "trials/start.safetensors",
                 "trials/0000/best-0003.safetensors.part", "trials/0000/config.json", "store/pixels.bin",
                 "trials/0000/best-0002.outputs.npy", "trials/0000/best-0003.outputs.npy.part",
                 "refit/best-0003.safetensors", "predictor/predictor.json"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for _ in range(2):
        tidy_up(tmp_path)
        files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
        best = ["trials/0000/best.outputs.npy", "trials/0000/best.safetensors"]
        assert files == ["predictor/predictor.json", *best, "trials/0000/config.json"]


def test_classes_of_equal_size_stay_equal_whichever_images_are_held_out(make_task: Any) -> None:
    """The class that an image was held out from has fewer to learn from, and more to be judged by: by chance alone."""
    task = make_task()
    targets = np.repeat([0, 1, 2], 4)
    is_held_out = np.array([1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0], bool)
    train, val = (Split(np.flatnonzero(rows), targets[rows]) for rows in (~is_held_out, is_held_out))
    task = replace(task, train=train, val=val)
    predictions = np.full((len(val.targets), 3), 1 / 3, np.float32)

    def shares(is_holdout: bool) -> tuple[float, ...]:
        told = replace(task, is_holdout=is_holdout)
        return _trust_of(predictions, val.targets, told, {}).calibration.shares

    assert shares(is_holdout=True) == ()
    assert shares(is_holdout=False) == (1 / 8, 3 / 8, 4 / 8)
