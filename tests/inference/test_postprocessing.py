from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from saccade.inference.postprocessing import Postprocessing
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Binary, Multiclass, Multilabel, Problem, Regression


def fitted_to(*args: Any, **options: Any) -> Postprocessing:
    return Postprocessing.fit(*args, **options)[0]


def draw(problem: Problem, num: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident predictions, and labels drawn from the calibrated ones."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(num, problem.num_outputs)) * 2 - 1
    if problem.type == "regression":
        return z * 3 + 10, z[:, 0].astype(np.float32)
    if problem.type == "multilabel":
        return 1 / (1 + np.exp(-1.5 * z)), (rng.random(z.shape) < 1 / (1 + np.exp(-z))).astype(np.float32)
    p, sure = (np.exp(scale * z) for scale in (1.0, 1.5))
    targets = ((p / p.sum(1, keepdims=True)).cumsum(1) > rng.random((num, 1))).argmax(1)
    return sure / sure.sum(1, keepdims=True), targets


PROBLEMS = [
    (Binary(("no", "yes")), "f1"),
    (Multiclass((1, 2, 3)), None),
    (Multilabel(("a", "b")), None),
    (Regression(mean=10.0, std=3.0), None),
]


@pytest.mark.parametrize(("problem", "name"), PROBLEMS, ids=lambda value: getattr(value, "type", None))
def test_json_round_trip_is_exact(problem: Problem, name: str | None) -> None:
    fitted = fitted_to(*draw(problem), problem, make_metric(name, problem))
    again = Postprocessing.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    assert again != Postprocessing()
    json.dumps(fitted.summary(problem))


def test_entries_that_a_record_lacks_have_their_defaults() -> None:
    record = Postprocessing().to_json()
    del record["calibration"]["class_prior"], record["calibration"]["logit_adjustment"]
    assert Postprocessing.from_json(record) == Postprocessing()


def test_balanced_accuracy_divides_by_the_prior_that_calibration_left() -> None:
    problem = Multiclass(("a", "b", "c"))
    shares = np.array([0.6, 0.3, 0.1])
    predictions, targets = draw(problem, 500)
    predictions = predictions * shares
    predictions /= predictions.sum(1, keepdims=True)
    fitted = fitted_to(predictions, targets, problem, make_metric("balanced_accuracy", problem), shares)
    assert 0 < fitted.calibration.logit_adjustment < 1
    assert fitted.thresholds.class_prior == pytest.approx(fitted.calibration.remaining_prior)
    assert Postprocessing.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted
    assert fitted.summary(problem)["logit_adjustment"] == fitted.calibration.logit_adjustment


def test_summary_has_the_fitted_values_and_the_number_of_images() -> None:
    problem = PROBLEMS[0][0]
    summary = fitted_to(*draw(problem, 1000), problem, make_metric("f1", problem)).summary(problem)
    assert summary["temperature"] == pytest.approx(1.5, rel=0.3)
    assert summary["ece_after"] < summary["ece_before"]
    assert summary["calibrated_on"] == "1000 validation images; ece_after is cross-fitted in 5 folds"
    assert list(summary["thresholds"]) == ["yes"]
    assert 0 < summary["valid_figure_at_thresholds"] < 1
    refitted = fitted_to(*draw(problem), problem, make_metric(None, problem)).summary(problem, is_refit=True)
    assert "before the refit" in refitted["calibrated_on"]
    assert "thresholds" not in refitted
    assert Postprocessing().summary(problem)["calibrated_on"].startswith("no images")
    assert Postprocessing().summary(PROBLEMS[3][0]) == {}


def test_conformal_scores_are_calibrated_probabilities() -> None:
    problem = PROBLEMS[1][0]
    p, y = draw(problem)
    fitted = fitted_to(p, y, problem, make_metric(None, problem))
    calibrated = fitted.calibration.apply(p, problem)
    assert sorted(fitted.conformal.scores) == sorted(calibrated[np.arange(200), y].astype(np.float32).tolist())


def test_targets_beyond_the_predictions_are_ignored() -> None:
    problem = PROBLEMS[1][0]
    p, y = draw(problem)
    metric = make_metric(None, problem)
    assert fitted_to(p[:50], y, problem, metric) == fitted_to(p[:50], y[:50], problem, metric)
    assert fitted_to(p[:0], y, problem, metric) == Postprocessing()
