from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.peers import Peer, rows_of, saccade_fit

from benchmarks import peers

SCRIPT = """
import argparse, json
parser = argparse.ArgumentParser()
for name in ("--data", "--weights", "--network", "--epochs", "--batch-size"):
    parser.add_argument(name, required=True)
parser.add_argument("--lr", nargs="+")
given = parser.parse_args()
print("talk")
print(json.dumps({"import_s": 1, "fit_s": len(given.lr), "evaluate_s": 1, "test_acc": 0.5}))
"""


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "handwritten.py").write_text(SCRIPT)
    assert Peer("handwritten", sys.executable, tmp_path / "handwritten.py").lacks() == ""
    assert "--peers" in Peer("handwritten", sys.executable, tmp_path / "no.py").lacks()
    assert "cannot be run" in Peer("handwritten", str(tmp_path / "python"), tmp_path / "handwritten.py").lacks()
    missing = Peer("autogluon", sys.executable, tmp_path / "handwritten.py").lacks()
    assert "autogluon.multimodal" in missing
    assert "--python" in missing


def test_saccade_beside_a_peer(
    run_benchmark: Callable[..., Any], tiny_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "handwritten.py").write_text(SCRIPT)
    found = {"import_s": 1.0, "fit_s": 4.0, "evaluate_s": 1.0, "wall_s": 6.0, "peak_mb": 100.0, "test_acc": 0.9}
    monkeypatch.setattr(peers, "run_saccade", lambda *_: found)
    (tmp_path / "autogluon_fit.py").write_text("raise SystemExit('out of luck')")
    monkeypatch.setitem(peers.NEEDS, "autogluon", ("json",))
    arguments = ["--data", tiny_photos, "--network", "test_resnet", "--peers", tmp_path, "--rounds", 1]
    (one,) = run_benchmark(peers.main, *arguments, "--lr", 0.1, 0.2)
    assert list(one) == [peers.OURS, peers.AGAIN, "handwritten"]
    assert one["handwritten"]["fit_s"] == 2
    assert one["handwritten"]["peak_mb"] > 1
    said = capsys.readouterr().out
    assert "autogluon failed" in said
    assert "out of luck" in said
    assert "fastai is skipped" in said


def test_a_search_of_ours(tiny_photos: Path, tmp_path: Path) -> None:
    weights = str(tmp_path / "weights.safetensors")
    peers.random_weights("test_resnet", weights)
    result = saccade_fit(str(tiny_photos), weights, "test_resnet", 1, 8, [1e-3, 1e-2], str(tmp_path / "run"), 20)
    assert 0 <= result["test_acc"] <= 1
    assert len(list((tmp_path / "run" / "trials").glob("*/config.json"))) == 2


def test_ratios_are_taken_within_a_round() -> None:
    def result(fit_s: float) -> dict[str, float]:
        return {**dict.fromkeys(peers.COLUMNS, 1.0), "fit_s": fit_s}

    rounds = [{peers.OURS: result(ours), "autogluon": result(theirs)} for ours, theirs in ((1, 4), (2, 8), (10, 40))]
    row = dict(zip(peers.HEADS, rows_of(rounds, "resnet18")[-1], strict=True))
    assert row["x fit"] == 4.0
    assert row["fit s"] == 8.0
    assert row["target x fit"] == "≥ 3.0"
