from __future__ import annotations

import json

import numpy as np
import pytest
from benchmarks.curves import Curve, Curves
from benchmarks.learn_portfolio import is_known_at, learn

from benchmarks import fit_forecaster, learn_portfolio, search_regret
from saccade.autosearch.features import Description


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch):
    """Learn faster than from real recordings."""
    monkeypatch.setattr(learn_portfolio, "NUM_TREES", 60)


def test_a_kind_of_run_that_ends_after_an_epoch_is_not_expected_to_become_good(recorded_curves):
    curves = Curves.read(recorded_curves)
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
def test_the_table_beside_others_and_kept_portfolios(recorded_curves, tmp_path, capsys):
    out, kept = tmp_path / "out.json", tmp_path / "kept"
    words = ["--curves", str(recorded_curves), "--hours", "0.2", "--workers", "1", "--seeds", "1"]
    words += ["--portfolios", str(kept)]
    search_regret.main([*words, "--json", str(out)])
    table = json.loads(out.read_text())
    assert 0 <= table["auto + auto"]["1"]["0.2"]["regret"] < 0.2
    files = sorted(kept.iterdir())
    assert [file.name for file in files] == ["without-A.json", "without-B.json", "without-C.json"]
    written = [file.stat().st_mtime_ns for file in files]
    search_regret.main([*words, "--json", str(out)])
    assert json.loads(out.read_text()) == table
    assert [file.stat().st_mtime_ns for file in files] == written
    fit_forecaster.main(["--curves", str(recorded_curves), "--portfolios", str(kept), "--configs", "5"])
    assert "evaluated on the rest" in capsys.readouterr().out


@pytest.mark.slow
def test_families_are_left_out_one_by_one(recorded_curves, tmp_path):
    out = tmp_path / "out.json"
    search_regret.main(
        ["--curves", str(recorded_curves), "--hours", "0.2", "--seeds", "2", "--families", "--json", str(out)]
    )
    table = json.loads(out.read_text())
    assert set(table) == {"edgenext", "volo"}
    for row in table.values():
        assert row["datasets"] == 3
        assert 0 <= row["unseen"] < 0.3
