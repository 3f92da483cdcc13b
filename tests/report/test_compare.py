"""Comparing runs: paired differences on the same images, what is left out, and the page."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import html5lib
import numpy as np
import pandas as pd
import pytest

import saccade
from saccade import ImagePredictor
from saccade.errors import DataError, UnknownNameError
from saccade.events import JobFailed, TrialCreated
from saccade.inference.evaluation import NUM_RESAMPLES
from saccade.report.compare import Comparison
from saccade.report.compared_runs import ComparedRun, ComparedRuns, RunPredictions, _order_of_classes, _short_names
from saccade.report.record import RunRecord
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Binary, Multiclass, Multilabel, Problem, Regression

TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1, "lr": 3e-3}
ODD = {"blue": "<b>'bold' & \"$x$\"</b>", "green": "عربي", "red": "🍎\n`co`de_x"}


@pytest.fixture(scope="module")
def images(make_colours_once: Callable[..., pd.DataFrame]) -> dict[str, pd.DataFrame]:
    made = {name: make_colours_once(16, tuple(ODD), seed) for name, seed in (("train", 0), ("test", 1))}
    return {name: frame.assign(label=frame["label"].map(ODD)) for name, frame in made.items()}


@pytest.fixture(scope="module")
def runs(images: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    for name, given in (("a", {"epochs": 3}), ("<i>$b", {"lr": 1e-5}), ("another split", {})):
        predictor = ImagePredictor(path=root / name, verbosity=0)
        seed = 7 if name == "another split" else 0
        predictor.fit(images["train"], hyperparameters={**TINY, **given}, holdout_frac=0.4, random_state=seed)
    return [root / "a", root / "<i>$b", root / "another split"]


def test_scores_are_those_of_evaluate_and_differences_are_paired(
    runs: list[Path], images: dict[str, pd.DataFrame]
) -> None:
    predictors = [ImagePredictor.load(run, verbosity=0) for run in runs]
    found = saccade.compare([runs[0], *predictors[1:]], images["test"], interval=0.9)
    table = found.frames["runs"].set_index("run")
    assert table.index.tolist() == [run.name for run in runs]
    right = {}
    for run, predictor in zip(runs, predictors, strict=True):
        scores = predictor.evaluate(images["test"], ["accuracy"], interval=0.9)
        row = table.loc[run.name]
        assert row["score"] == scores["accuracy"]
        assert (row["score_low"], row["score_high"]) == scores["accuracy_interval"]
        assert row["images_per_s"] == predictor.fit_summary()["images_per_s"]
        assert row["networks"] == "test_resnet"
        assert row["num_bytes"] == predictor.pipeline.saved.weights_path.stat().st_size
        right[run.name] = (predictor.predict(images["test"]) == images["test"]["label"]).to_numpy()
    rng, num = np.random.default_rng(0), len(images["test"])
    samples = [rng.integers(num, size=num) for _ in range(NUM_RESAMPLES)]
    gain = right["<i>$b"].astype(float) - right["a"]
    ends = np.quantile([gain[rows].mean() for rows in samples], [0.05, 0.95])
    row = table.loc["<i>$b"]
    assert row["difference"] == pytest.approx(gain.mean())
    assert [row["difference_low"], row["difference_high"]] == pytest.approx(ends)
    assert len(found.frames["differences"]) == 3
    counts = found.frames["agreement"].set_index("run").loc["<i>$b"]
    assert counts["only this run right"] == (gain > 0).sum()
    assert counts["only the baseline right"] == (gain < 0).sum()
    assert set(found.frames["disagreements"]["image"]) >= set(images["test"]["image"][gain != 0])
    assert found.frames["settings"].set_index("setting").loc["space: epochs"].tolist() == ["3", "1", "1"]


def test_the_page_is_valid_and_its_figures_are_drawn(
    runs: list[Path], images: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    found = saccade.compare(runs, images["test"])
    assert isinstance(found, Comparison)
    page = found.save(tmp_path / "compare.html").read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(page)
    assert "cannot be made" not in page
    assert "&lt;i&gt;$b" in page
    assert "<i>$b" not in page
    for name in found.frames:
        assert f'<section id="{name}"' in page
    assert found.plot("differences").axes[0].lines
    assert "<iframe" in found._repr_html_()
    with pytest.raises(UnknownNameError, match="Did you mean 'agreement'"):
        found.frames["agreemet"]


def test_images_that_a_run_was_trained_on_are_left_out(runs: list[Path], images: dict[str, pd.DataFrame]) -> None:
    both = pd.concat([images["test"], images["train"].iloc[:5]], ignore_index=True)
    found = saccade.compare(runs[:2], both)
    num_seen = len(both) - len(found.record.targets)
    assert 0 < num_seen <= 5
    assert f"a was trained on {num_seen} of the {len(both)} images; they are left out." in found.warnings
    with pytest.raises(DataError, match="No image is left to compare on"):
        saccade.compare([runs[0], runs[0]], images["train"].drop(index=_held_out(runs[0], images["train"])))


def _held_out(run: Path, train: pd.DataFrame) -> list[int]:
    record = RunRecord.read(run).validation
    assert record is not None
    return train.index[train["image"].isin(record.paths)].tolist()


def test_without_data_the_validation_images_in_common_are_compared(
    runs: list[Path], images: dict[str, pd.DataFrame]
) -> None:
    found = saccade.compare(runs[:2])
    first, second = (RunRecord.read(run).validation for run in runs[:2])
    assert first is not None
    assert second is not None
    assert len(found.record.targets) == len(first.targets) == len(second.targets)
    assert found.frames["runs"]["score"].tolist() == [
        ImagePredictor.load(run).fit_summary()["valid_acc"] for run in runs[:2]
    ]
    assert any("selected on these images" in text for text in found.warnings)
    # Of another split some images are common, and it was trained on the others.
    sides = [set(_held_out(run, images["train"])) for run in (runs[0], runs[2])]
    found = saccade.compare([runs[0], runs[2]])
    assert len(found.record.targets) == len(sides[0] & sides[1])
    num_seen = len(sides[0] - sides[1])
    assert any(
        f"was trained on {num_seen} of the {len(sides[0])} validation images of a" in text for text in found.warnings
    )


def test_runs_without_common_validation_images_are_not_compared(
    runs: list[Path], images: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    ImagePredictor(path=tmp_path / "others", verbosity=0).fit(images["test"], hyperparameters=TINY, holdout_frac=0.4)
    found = saccade.compare([runs[0], tmp_path / "others", runs[1]])
    assert found.frames["runs"]["verdict"].tolist()[:2] == ["baseline", "not compared"]
    assert found.frames["runs"]["score"].isna().tolist() == [False, True, False]
    assert "others has no validation image in common with a, and is not compared." in found.warnings
    found = saccade.compare([runs[0], tmp_path / "others"])
    assert found.frames["runs"]["score"].isna().all()
    assert any(text.startswith("No validation images are common to the runs") for text in found.warnings)
    assert list(found.frames) == ["summary", "runs", "settings"]
    assert "No validation images" in found.html()


def test_runs_without_a_predictor_have_a_row(runs: list[Path], tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(runs[0], unfinished)
    shutil.rmtree(unfinished / "predictor")
    found = saccade.compare([unfinished, *runs[:2]])
    assert found.frames["runs"]["status"].tolist() == ["not finished, 1 trial", "finished", "finished"]
    assert found.frames["runs"]["verdict"].tolist()[:2] == ["not compared", "baseline"]
    assert "unfinished" in found.html()
    with pytest.raises(DataError, match=r"None of the 2 runs has a predictor \(unfinished: not finished, 1 trial"):
        saccade.compare([unfinished, unfinished])
    failed = RunRecord(tmp_path, True, None, [TrialCreated(0, {}), JobFailed(0, "no memory")])
    assert ComparedRun("x", failed).status == "failed: no memory"


@pytest.mark.parametrize("given", ["run", ["run"], [1, 2], None])
def test_at_least_two_runs_are_required(given: Any) -> None:
    with pytest.raises(DataError, match="compare was given"):
        saccade.compare(given)


def test_problem_types_and_classes_must_agree(
    runs: list[Path], images: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    two = images["train"][images["train"]["label"] != ODD["red"]]
    other = ImagePredictor(path=tmp_path / "two", verbosity=0).fit(two, hyperparameters=TINY)
    with pytest.raises(DataError, match="two is a binary problem, and a a multiclass problem"):
        saccade.compare([runs[0], other], images["test"])
    other = ImagePredictor(problem_type="multiclass", path=tmp_path / "2", verbosity=0).fit(two, hyperparameters=TINY)
    with pytest.raises(DataError, match="2 has other classes than a: it lacks"):
        saccade.compare([runs[0], other], images["test"])


def test_classes_are_matched_by_name() -> None:
    first, other = (SimpleNamespace(names_of_classes=names) for names in (["a", "é", "c"], ["c", "a", "e\u0301"]))
    assert _order_of_classes(other, first).tolist() == [1, 2, 0]  # type: ignore[arg-type]
    assert _order_of_classes(*[SimpleNamespace(names_of_classes=[])] * 2).tolist() == [0]  # type: ignore[arg-type]


def test_names_are_the_shortest_ends_of_paths_that_differ() -> None:
    assert _short_names([["/", "x", "a"], ["/", "y", "a"], ["/", "y", "b"]]) == ["x/a", "y/a", "y/b"]
    assert _short_names([["/", "x", "a"], ["/", "x", "a"]]) == ["a", "a (2)"]


PROBLEMS = {
    "binary": (Binary(("a", "b")), "roc_auc"),
    "multiclass": (Multiclass(tuple("abcdefg")), "f1_macro"),
    "multilabel": (Multilabel(("a", "b", "c")), None),
    "regression": (Regression(mean=3.0, std=2.0), "rmse"),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_all_problem_types_are_compared(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.inference.evaluation.NUM_RESAMPLES", 100)
    problem, name = PROBLEMS[kind]
    rng, predictions = np.random.default_rng(0), {}
    good = _targets(problem, rng)
    perfect = problem.perfect_predictions(good)
    for number, noise in enumerate((0.6, 0.1, 0.6)):
        p = perfect + noise * rng.normal(size=perfect.shape)
        p = np.clip(p, 0.01, 0.99) if problem.has_classes else p
        p = p / p.sum(1, keepdims=True) if problem.has_one_class else p
        predictions[f"r{number}"] = RunPredictions(p, p)
    runs = [ComparedRun(each, RunRecord(Path(), False, None)) for each in predictions]
    names, metric = list(map(str, problem.classes)), make_metric(name, problem)
    compared = ComparedRuns(runs, predictions, problem, names, metric, 0.95, good, [], "80 images")
    found = Comparison(compared)
    table = found.frames["runs"]
    assert table["verdict"].tolist()[:2] == ["baseline", "better"]
    sign = 1 if compared.metric.greater_is_better else -1
    assert sign * table["difference"][1] > 0
    assert (found.frames["differences"]["verdict"] == "better").sum() == 1
    assert found.frames["differences"].iloc[2]["verdict"] == "worse"  # r2 less r1
    assert (table["p_value"].dropna() <= 1).all()
    assert ("per_class" in found.frames) == ("agreement" in found.frames) == problem.has_classes
    assert len(found.frames["disagreements"])
    assert "cannot be made" not in found.html()
    equal = dict.fromkeys(("r0", "r1"), predictions["r0"])
    same = Comparison(replace(compared, runs=runs[:2], predictions=equal))
    row = same.frames["runs"].iloc[1]
    assert (row["difference"], row["p_value"], row["verdict"]) == (0, 1, "no clear difference")
    assert not len(same.frames["disagreements"])
    assert "cannot be made" not in same.html()


def _targets(problem: Problem, rng: np.random.Generator) -> np.ndarray:
    if not problem.has_classes:
        return rng.normal(size=80).astype(np.float32)
    if not problem.has_one_class:
        return rng.integers(0, 2, (80, problem.num_outputs)).astype(np.float32)
    return rng.permutation(np.arange(80) % problem.num_outputs)
