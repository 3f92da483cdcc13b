"""Benchmarks run on a few tiny photos, and in this process: new interpreters would take most of the time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.photos import make_photos

from benchmarks import measuring

COLUMNS = {
    "lr": 1e-3, "batch_size": 32, "opt": "adamw", "momentum": 0.9, "weight_decay": 0.01, "sched": "cosine",
    "warmup_epochs": 0, "warmup_lr": 1e-5, "decay_epochs": 10, "decay_rate": 0.1, "patience_epochs": 5,
    "layer_decay": 0.75, "pct_to_freeze": 0.0, "linear_probing": 0.0, "mixup": 0.0, "cutmix": 0.0, "mixup_prob": 0.0,
    "smoothing": 0.0, "drop": 0.0, "clip_grad": 1.0, "data_augmentation": "None", "amp": 0.0, "opt_betas": "None",
    "sp_reg": 0.0, "delta_reg": 0.0, "bss_reg": 0.0, "cotuning_reg": 0.0, "stoch_norm": 0.0,
}  # fmt: skip
NETWORKS = ("edgenext_small", "volo_d1_384", "edgenext_x_small", "volo_d3_448")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a benchmark does in processes of its own run in this one."""
    monkeypatch.setattr(measuring, "in_own_process", measuring.in_this_process)


@pytest.fixture(scope="session")
def tiny_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos with train and test."""
    folder = tmp_path_factory.mktemp("photos")
    make_photos(folder / "train", 40, num_classes=2, size=(48, 36))
    make_photos(folder / "test", 10, num_classes=2, size=(48, 36), seed=1)
    return folder


@pytest.fixture
def run_benchmark(here: None, tmp_path: Path) -> Callable[..., Any]:
    """Run a benchmark's `main`, and return the figures that it wrote."""

    def run(main: Callable[[list[str]], None], *arguments: object) -> Any:
        path = tmp_path / "figures.json"
        main([*map(str, arguments), "--json", str(path)])
        return json.loads(path.read_text())["figures"]

    return run


@pytest.fixture(scope="session")
def recorded_curves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of three data sets: with linear probing, runs end after an uninformative epoch."""
    path = tmp_path_factory.mktemp("curves")
    rng = np.random.default_rng(0)
    rows, curves = [], {name: {} for name in ("A", "B", "C")}
    for number in range(36):
        network, is_probing, log_lr = NETWORKS[number % 4], number % 3 == 0, rng.uniform(-5, -1)
        key = f"c{number}"
        rows.append(
            {**COLUMNS, "config_id": key, "model": network, "lr": 10**log_lr, "linear_probing": float(is_probing)}
        )
        height = 90 - 12 * abs(log_lr + 3)
        accuracies = [30.0] if is_probing else [height * (1 - 0.6**epoch) for epoch in range(1, 51)]
        for name in curves:
            epoch_s = [1.0 if is_probing else 10.0] * len(accuracies)
            curves[name][key] = {"val_acc": [a + rng.normal() for a in accuracies], "epoch_s": epoch_s}
    with (path / "configs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["config_id", "model", *COLUMNS])
        writer.writeheader()
        writer.writerows(rows)
    (path / "curves.json").write_text(json.dumps(curves))
    about = {name: {"num_images": 1000, "num_classes": 10} for name in curves}
    (path / "datasets.json").write_text(json.dumps(about))
    return path
