"""One image, one label: every public way in must give the label that `ImagePredictor.predict` gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from saccade import ImageClassifier, ImagePredictor, ImageRegressor
from saccade.cli import app
from saccade.inference.calibration import Calibration
from saccade.inference.pipeline import InferencePipeline
from saccade.inference.thresholds import Thresholds

MakeColours = Callable[..., pd.DataFrame]
TINY = {
    "model": "test_resnet",
    "pretrained": False,
    "img_size": 32,
    "batch_size": 16,
    "epochs": 1,
    "lr": 3e-3,
    "amp": False,
}
NAMES = ("blue", "green", "red")
CASES = ("binary", "multilabel", "multiclass", "regression")


@dataclass
class Case:
    predictor: ImagePredictor
    images: pd.DataFrame
    labels: list[Any]

    @property
    def paths(self) -> list[str]:
        return self.images["image"].tolist()

    def named(self, label: Any) -> str:
        """The label as the command line prints it."""
        if isinstance(label, float):
            return f"{label:.6g}"
        return ",".join(label) if isinstance(label, list) else str(label)


@pytest.fixture(scope="module", params=CASES)
def case(request: Any, make_colours_once: MakeColours, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A predictor whose label often differs from the most probable one, and images."""
    kind, metric = request.param, {"binary": "f1", "multiclass": "balanced_accuracy"}.get(request.param)
    frame = make_colours_once(10, NAMES[:2] if kind == "binary" else NAMES)
    if kind == "multiclass":  # imbalanced: 10, 6 and 3 images
        frame = frame[frame.groupby("label").cumcount() < frame["label"].map({"blue": 10, "green": 6, "red": 3})]
    elif kind == "multilabel":
        tags = {"blue": ["blue", "cold"], "green": ["cold"], "red": []}
        frame["label"] = [[*tags[label], *(["odd"] * (row % 3 == 0))] for row, label in enumerate(frame["label"])]
    elif kind == "regression":
        frame["label"] = np.linspace(-3.0, 50.0, len(frame))
    predictor = ImagePredictor(eval_metric=metric, path=tmp_path_factory.mktemp(kind) / "run", verbosity=0)
    predictor.fit(frame, frame, hyperparameters=TINY)
    # Calibration and thresholds of their own, strong enough to change labels of this barely trained network.
    saved = predictor.pipeline.saved
    num_classes = saved.problem.num_outputs
    if saved.problem.has_classes:
        prior = tuple((np.array([0.7, 0.2, 0.1]) if num_classes == 3 else np.array([0.8, 0.2])).tolist())
        calibration = Calibration(1.7, class_prior=() if kind == "multilabel" else prior, logit_adjustment=0.5)
        calibrated = replace(saved.postprocessing, calibration=calibration, thresholds=Thresholds())
        found = InferencePipeline(replace(saved, postprocessing=calibrated)).predict(frame["image"].tolist())
        median = np.median(found.predictions, axis=0)
        values = {"binary": (median[1].item(),), "multilabel": tuple(median.tolist())}.get(kind, ())
        class_prior = tuple((median / median.sum()).tolist()) if kind == "multiclass" else ()
        thresholds = Thresholds(values, class_prior=class_prior)
        saved = replace(saved, postprocessing=replace(calibrated, thresholds=thresholds))
    saved.write({})
    predictor = ImagePredictor.load(predictor.path, verbosity=0)
    return Case(predictor, frame[["image"]], predictor.predict(frame[["image"]]).tolist())


def test_labels_differ_from_the_usual_rule(case: Case) -> None:
    """Otherwise the tests below would prove nothing."""
    problem = case.predictor.pipeline.saved.problem
    if problem.has_classes:
        plain = problem.decode(case.predictor.predict_proba(case.images, as_pandas=False)).tolist()
        assert 0 < sum(a != b for a, b in zip(plain, case.labels, strict=True)) < len(plain)


def test_probabilities_and_the_decision_rule(case: Case) -> None:
    saved = case.predictor.pipeline.saved
    values = case.predictor.predict_proba(case.images, as_pandas=False)
    if not saved.problem.has_classes:
        assert values.tolist() == case.labels
        return
    given = saved.problem.given_labels(saved.postprocessing.thresholds.adjust(torch.from_numpy(values)))
    assert saved.problem.decode(given.numpy().astype(np.float32)).tolist() == case.labels


def test_command_line_and_its_table(case: Case, tmp_path: Path) -> None:
    expected = [case.named(label) for label in case.labels]
    printed = CliRunner().invoke(app, ["predict", case.predictor.path, *case.paths])
    assert printed.exit_code == 0, printed.output
    width = max(map(len, case.paths))
    assert [line[width:].strip().split("  ")[0] for line in printed.stdout.splitlines()] == expected
    table = tmp_path / "out.csv"
    assert CliRunner().invoke(app, ["predict", case.predictor.path, *case.paths, "--csv", str(table)]).exit_code == 0
    written = pd.read_csv(table, keep_default_na=False)["label"]
    assert [case.named(label) for label in written] == expected


def test_scikit_learn_estimators(case: Case) -> None:
    problem = case.predictor.pipeline.saved.problem
    if problem.has_classes and not problem.has_one_class:
        pytest.skip("the estimators take one label per image")
    estimator = ImageClassifier() if problem.has_classes else ImageRegressor()
    estimator.predictor_ = case.predictor
    if problem.has_classes:
        estimator.classes_ = np.array(case.predictor.classes)
    assert estimator.predict(case.paths).tolist() == case.labels


def test_explanations_are_of_the_label(case: Case) -> None:
    images = case.paths[:6]
    reasons = case.predictor.reasons(images, k=1, among=images)
    assert [reason.predicted for reason in reasons] == [
        case.named(label).replace(",", ", ") or "none" for label in case.labels[:6]
    ]
    if case.predictor.pipeline.saved.problem.has_one_class:
        by_label = case.predictor.explain(images, method="smooth_grad", target=case.labels[:6])
        np.testing.assert_array_equal(case.predictor.explain(images, method="smooth_grad"), by_label)


def test_evaluation_implies_the_labels(case: Case) -> None:
    """Metrics are perfect if the labels are those that were predicted."""
    metrics = case.predictor.evaluate(case.images.assign(label=case.labels))
    for name, value in metrics.items():
        assert value == pytest.approx(0 if name == "rmse" else 1, abs=1e-5), name


def test_sets_contain_the_label_and_certain_labels_are_alone_in_theirs(case: Case) -> None:
    problem = case.predictor.pipeline.saved.problem
    if problem.has_classes and not problem.has_one_class:
        pytest.skip("multilabel problems have no sets")
    for coverage in (0.5, 0.9):
        sets = case.predictor.predict_set(case.images, coverage=coverage)
        if not problem.has_classes:
            assert [(low + high) / 2 for low, high in sets] == pytest.approx(case.labels)
            continue
        assert all(label in labels for label, labels in zip(case.labels, sets, strict=True))
        asked = case.predictor.predict(case.images, unsure="?", coverage=coverage).tolist()
        assert asked == [label if len(s) == 1 else "?" for label, s in zip(case.labels, sets, strict=True)]
    if problem.has_classes:
        proba = case.predictor.predict_proba(case.images)
        of_label = [proba[label].iloc[row] for row, label in enumerate(case.labels)]
        asked = case.predictor.predict(case.images, unsure="?", min_proba=0.5).tolist()
        assert asked == ["?" if p < 0.5 else label for p, label in zip(of_label, case.labels, strict=True)]


def test_saved_and_loaded(case: Case, tmp_path: Path) -> None:
    loaded = ImagePredictor.load(case.predictor.save(tmp_path / "saved"), verbosity=0)
    assert loaded.predict(case.images).tolist() == case.labels


def test_tensor_module(case: Case) -> None:
    pixels = torch.from_numpy(np.stack([np.array(Image.open(path)) for path in case.paths]))
    problem = case.predictor.to("cpu").pipeline.saved.problem
    with torch.inference_mode():
        found = case.predictor.pipeline.module()(pixels)
    if problem.has_classes:
        assert problem.decode(found.given.numpy().astype(np.float32)).tolist() == case.labels
    else:
        np.testing.assert_allclose(found.predictions[:, 0].numpy(), case.labels, rtol=1e-5)
