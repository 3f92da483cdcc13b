"""A fit on a Ray cluster whose workers see none of its files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from saccade import Categorical, ImagePredictor


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system has no /proc")
def test_a_worker_without_images_store_weights_and_run_folder_gives_the_same_scores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_colours: Callable[..., pd.DataFrame],
    tiny: dict[str, Any],
    tiny_weights: Path,
) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    hidden = f"/proc/self/fd/{descriptor}"  # a path in this process only
    frame = make_colours(12)
    frame["image"] = frame["image"].str.replace(str(tmp_path), hidden)
    shutil.copytree(tiny_weights, tmp_path / "weights")
    monkeypatch.setenv("SACCADE_CACHE", f"{hidden}/cache")
    # Measured numerics may differ from process to process.
    recipe = {
        **tiny,
        "pretrained": True,
        "epochs": 1,
        "amp": False,
        "channels_last": False,
        "lr": Categorical(1e-3, 1e-2),
    }
    options: dict[str, Any] = {"num_trials": 2, "searcher": "random", "scheduler": "fifo", "nthreads_per_trial": 1}
    scores = []
    for executor, more in (("inline", {}), ("ray", {"max_workers": 1})):
        path = f"{hidden}/{executor}"
        predictor = ImagePredictor(path=path, verbosity=0)
        predictor.fit(frame, hyperparameters=recipe, weights=f"{hidden}/weights", executor=executor, **options, **more)
        events = [json.loads(line) for line in Path(path, "events.jsonl").read_text().splitlines()]
        reports = [event for event in events if event["kind"] == "epoch_done"]
        assert all(bool(report.get("node")) == (executor == "ray") for report in reports)
        scores.append([(report["trial"], report["epoch"], report["score"]) for report in reports])
    assert scores[0] == scores[1]
    assert len(scores[0]) == 4
    os.close(descriptor)
