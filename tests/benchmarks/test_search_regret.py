from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from benchmarks.curves import Curve, Curves
from benchmarks.learn_portfolio import is_known_at, learn

from benchmarks import fit_forecaster, learn_portfolio, search_regret
from saccade.autosearch.features import Description

COLUMNS = {
    "lr": 1e-3, "batch_size": 32, "opt": "adamw", "momentum": 0.9, "weight_decay": 0.01, "sched": "cosine",
    "warmup_epochs": 0, "warmup_lr": 1e-5, "decay_epochs": 10, "decay_rate": 0.1, "patience_epochs": 5,
    "layer_decay": 0.75, "pct_to_freeze": 0.0, "linear_probing": 0.0, "mixup": 0.0, "cutmix": 0.0, "mixup_prob": 0.0,
    "smoothing": 0.0, "drop": 0.0, "clip_grad": 1.0, "data_augmentation": "None", "amp": 0.0, "opt_betas": "None",
    "sp_reg": 0.0, "delta_reg": 0.0, "bss_reg": 0.0, "cotuning_reg": 0.0, "stoch_norm": 0.0,
}  # fmt: skip
NETWORKS = ("edgenext_small", "volo_d1_384", "edgenext_x_small", "volo_d3_448")


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch):
    """Learn faster than from real recordings."""
    monkeypatch.setattr(learn_portfolio, "NUM_TREES", 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings of three data sets: with linear probing a run ends after an epoch that tells nothing of its worth."""
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


def test_a_kind_of_run_that_ends_after_an_epoch_is_not_expected_to_become_good(folder):
    curves = Curves.read(folder)
    portfolio = learn(curves, curves.datasets[1:])
    network = curves.describe("c1").network
    kinds = [
        Description(network, {"lr": 1e-3, "batch_size": 32, "head_only": head_only}) for head_only in (True, False)
    ]
    ended, trained = portfolio.predict_scores(kinds, curves.datasets[0].data)
    assert ended[-1] < trained[-1] - 0.3
    assert ended[-1] < ended[0] + 0.1


@pytest.mark.parametrize(
    ("num_epochs", "epoch_s", "is_known"),
    [(50, 60.0, True), (20, 60.0, True), (19, 60.0, True), (2, 6 * 3600.0, False), (1, 15 * 3600.0, False)],
)
def test_what_would_have_come_of_a_run_that_was_cut_short_is_not_known(num_epochs, epoch_s, is_known):
    curve = Curve(np.full(num_epochs, 0.5), np.full(num_epochs, epoch_s))
    assert is_known_at(curve, 20) is is_known
    assert is_known_at(curve, 1)


@pytest.mark.slow
def test_the_table_beside_others_and_kept_portfolios(folder, tmp_path, capsys):
    out, kept = tmp_path / "out.json", tmp_path / "kept"
    words = ["--curves", str(folder), "--hours", "0.2", "--workers", "1", "--seeds", "1", "--portfolios", str(kept)]
    search_regret.main([*words, "--json", str(out)])
    table = json.loads(out.read_text())
    assert 0 <= table["auto + auto"]["1"]["0.2"]["regret"] < 0.2
    files = sorted(kept.iterdir())
    assert [file.name for file in files] == ["without-A.json", "without-B.json", "without-C.json"]
    written = [file.stat().st_mtime_ns for file in files]
    search_regret.main([*words, "--json", str(out)])
    assert json.loads(out.read_text()) == table
    assert [file.stat().st_mtime_ns for file in files] == written
    fit_forecaster.main(["--curves", str(folder), "--portfolios", str(kept), "--configs", "5"])
    assert "evaluated on the rest" in capsys.readouterr().out


@pytest.mark.slow
def test_families_are_left_out_one_by_one(folder, tmp_path):
    out = tmp_path / "out.json"
    search_regret.main(["--curves", str(folder), "--hours", "0.2", "--seeds", "2", "--families", "--json", str(out)])
    table = json.loads(out.read_text())
    assert set(table) == {"edgenext", "volo"}
    for row in table.values():
        assert row["datasets"] == 3
        assert 0 <= row["unseen"] < 0.3
