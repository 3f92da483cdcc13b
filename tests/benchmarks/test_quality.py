from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.quality import rows_of
from benchmarks.quality_methods import ADDITIONS, PRESETS, ablation, arguments_of, metrics_of
from benchmarks.subsets import images_by_class, make_subset, parse_subset
from PIL import Image

from benchmarks import peers, quality

SCRIPT = """
import argparse, json, time
parser = argparse.ArgumentParser()
for name in ("--data", "--weights", "--network", "--epochs", "--seed"):
    parser.add_argument(name, required=True)
given = parser.parse_args()
print(json.dumps({"import_s": 1, "fit_s": 2.0 * int(given.epochs), "evaluate_s": 1, "val_acc": 0.7, "test_acc": 0.6}))
"""


def test_fits_in_turns_beside_what_an_ingredient_costs_and_none_is_done_twice(
    run_benchmark: Callable[..., Any], tiny_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", tiny_photos, "--limits", 2, "--seeds", 1, "--networks", "test_resnet", "--from-scratch"]
    arguments += ["--methods", "saccade", "probe"]
    found = run_benchmark(quality.main, *arguments)
    assert [fit["method"] for fit in found] == ["saccade"]
    assert {
        "top1",
        "top1_se",
        "log_loss",
        "log_loss_se",
        "ece",
        "ece_se",
        "ece_by_chance",
        "valid",
        "fit_s",
        "wall_s",
        "images_per_s",
    } <= found[0].keys()
    assert 0 < found[0]["fit_s"] <= found[0]["wall_s"]
    assert found[0]["model"] == "test_resnet"
    assert "probe is skipped: it requires pretrained weights" in capsys.readouterr().out
    again = run_benchmark(quality.main, *arguments, "--ablate", "ensemble")
    assert again[0] == found[0]
    assert [fit["method"] for fit in again] == ["saccade", "saccade - ensemble"]
    said = capsys.readouterr().out
    assert said.count("after") == 1  # fits that were done now
    assert "less than saccade" in said


def test_a_probe_of_frozen_features(run_benchmark: Callable[..., Any], tiny_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    for name in ("test_resnet", "test_vit"):
        peers.random_weights(name, str(tmp_path / "weights" / f"{name}.safetensors"))
    arguments = ["--data", tiny_photos, "--weights", tmp_path / "weights", "--limits", 30, "--seeds", 1]
    (fit,) = run_benchmark(quality.main, *arguments, "--methods", "probe")
    assert fit["tried"].keys() == {"test_resnet", "test_vit"}
    assert fit["valid"] == max(fit["tried"].values())
    assert 0 <= fit["top1"] <= 1
    assert fit["told"]["weights"] == str(tmp_path / "weights")


def test_a_loop_gets_the_epochs_that_there_is_time_for(
    run_benchmark: Callable[..., Any], tiny_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers.random_weights("test_resnet", str(tmp_path / "test_resnet.safetensors"))
    (tmp_path / "handwritten.py").write_text(SCRIPT)
    arguments = ["--data", tiny_photos, "--weights", tmp_path, "--peers", tmp_path, "--limits", 1, 9, "--seeds", 1]
    arguments += ["--methods", "handwritten", "fastai", "--fastai-python", tmp_path / "no"]
    found = run_benchmark(quality.main, *arguments)
    assert [fit["epochs"] for fit in found] == [1, 4]
    assert found[1]["valid"] == 0.7
    assert "fastai is left out" in capsys.readouterr().out


def test_what_fails_is_told_and_tried_again(
    run_benchmark: Callable[..., Any], tiny_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers.random_weights("test_resnet", str(tmp_path / "test_resnet.safetensors"))
    (tmp_path / "handwritten.py").write_text("raise SystemExit('out of luck')")
    arguments = ["--data", tiny_photos, "--weights", tmp_path, "--peers", tmp_path, "--limits", 9, "--seeds", 1]
    (failed,) = run_benchmark(quality.main, *arguments, "--methods", "handwritten")
    assert "out of luck" in failed["error"]
    assert "0 (1 failed)" in capsys.readouterr().out
    (tmp_path / "handwritten.py").write_text(SCRIPT)
    (found,) = run_benchmark(quality.main, *arguments, "--methods", "handwritten")
    assert found["top1"] == 0.6


def test_a_table_has_means_with_errors_and_differences_within_seeds() -> None:
    def fit(method: str, seed: int, top1: float, **more: float) -> dict[str, Any]:
        return {"method": method, "seed": seed, "top1": top1, "top1_se": 0.03, "fit_s": 1.0, "wall_s": 2.0, **more}

    fits = [fit("saccade", 0, 0.8, valid=0.9), fit("saccade", 1, 0.9, valid=0.9)]
    fits += [fit("probe", 0, 0.7), fit("probe", 1, 0.8), fit("random", 1, 0.9)]
    saccade, probe, random = (dict(zip(quality.HEADS, row, strict=True)) for row in rows_of(fits))
    assert saccade["accuracy"] == "0.8500 ± 0.0583"  # the root of .03 ** 2 + .005 / 2
    assert (saccade["sd"], saccade["optimism"], saccade["less than saccade"]) == ("0.0707", "0.0500", "-")
    assert probe["less than saccade"] == "+0.1000 ± 0.0000"
    assert (random["fits"], random["sd"], random["less than saccade"]) == ("1", "-", "+0.0000")


def test_probabilities_of_anyone_are_judged_alike() -> None:
    given = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    found = metrics_of(given, np.array(["b", "c"]), np.array(["b", "c", "a"]))
    assert found["top1"] == pytest.approx(2 / 3)
    assert found["top1_se"] > 0.1
    assert found["log_loss"] > 10  # "a" had been given no chance


@pytest.mark.parametrize("name", [*quality.ABLATIONS, *ADDITIONS])
def test_every_ingredient_is_an_argument_of_a_fit(name: str) -> None:
    from saccade.fit.options import FitOptions
    from saccade.training.recipes.recipe import Recipe

    arguments = arguments_of(ablation(name))
    Recipe.of(arguments.get("hyperparameters", {}))
    of_predictor = {"hyperparameters", "eval_metric"}
    FitOptions.of({key: value for key, value in arguments.items() if key not in of_predictor})
    json.dumps(arguments)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_methods(name: str) -> None:
    from saccade.fit.presets import find_preset

    assert find_preset(arguments_of(name)["presets"]) != find_preset(None)


def test_subsets(tiny_photos: Path, tmp_path: Path) -> None:
    def nums(subset: str, seed: int = 0) -> list[int]:
        folder = make_subset(tiny_photos, subset, seed, tmp_path / f"{subset}-{seed}")
        assert sum(map(len, images_by_class(folder / "test").values())) == 10
        return sorted(len(paths) for paths in images_by_class(folder / "train").values())

    assert nums("full") == [20, 20]
    assert nums("fewshot=5") == [5, 5]
    assert nums("imbalanced=4") == [5, 20]
    assert nums("imbalanced=100") == [2, 20]
    assert nums("side=8+fewshot=3") == [3, 3]
    with Image.open(next((tmp_path / "side=8+fewshot=3-0").glob("test/*/*"))) as image:
        assert image.size == (8, 8)
    noisy = make_subset(tiny_photos, "noisy=0.25", 1, tmp_path / "noisy")
    moved = [path for path in (noisy / "train").glob("*/*") if not path.name.startswith(path.parent.name)]
    assert len(moved) == 10
    assert nums("fewshot=5", seed=1) == [5, 5]
    drawn = [{path.name for path in (tmp_path / f"fewshot=5-{seed}").glob("train/*/*")} for seed in (0, 1)]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("subset", ["fewshot", "noisy=1.5", "side=-1", "blurred=3"])
def test_what_is_no_subset_is_refused(subset: str) -> None:
    with pytest.raises(ValueError, match="is no subset; expected full"):
        parse_subset(subset)
