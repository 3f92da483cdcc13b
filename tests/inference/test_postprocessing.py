from __future__ import annotations

import json

import numpy as np
import pytest

from saccade.inference.postprocessing import Trust
from saccade.tasks.metrics import make_metric
from saccade.tasks.problem import Binary, Multiclass, Multilabel, Problem, Regression


def draw(problem: Problem, num: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that are too sure by half, of labels that follow them."""
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
def test_what_is_learned_is_written_and_read_exactly(problem: Problem, name: str | None) -> None:
    trust = Trust.of(*draw(problem), problem, make_metric(name, problem))
    again = Trust.from_json(json.loads(json.dumps(trust.to_json())))
    assert again == trust
    assert again != Trust()
    json.dumps(trust.summary(problem))


def test_a_predictor_of_old_knows_nothing() -> None:
    assert Trust.from_json({}) == Trust()
    record = Trust().to_json()
    del record["calibration"]["shares"], record["calibration"]["logit_adjustment"]
    assert Trust.from_json(record) == Trust()


def test_balanced_accuracy_divides_by_what_calibration_has_left_of_shares() -> None:
    problem = Multiclass(("a", "b", "c"))
    shares = np.array([0.6, 0.3, 0.1])
    predictions, targets = draw(problem, 500)
    predictions = predictions * shares
    predictions /= predictions.sum(1, keepdims=True)
    trust = Trust.of(predictions, targets, problem, make_metric("balanced_accuracy", problem), shares)
    assert 0 < trust.calibration.logit_adjustment < 1
    assert trust.thresholds.shares == pytest.approx(trust.calibration.shares_left)
    assert Trust.from_json(json.loads(json.dumps(trust.to_json()))) == trust
    assert trust.summary(problem)["logit_adjustment"] == trust.calibration.logit_adjustment


def test_the_summary_tells_what_was_found_and_on_which_images() -> None:
    problem = PROBLEMS[0][0]
    told = Trust.of(*draw(problem, 1000), problem, make_metric("f1", problem)).summary(problem)
    assert told["temperature"] == pytest.approx(1.5, rel=0.3)
    assert told["ece_after"] < told["ece_before"]
    assert told["calibrated_on"] == "1000 validation images; ece_after is cross-fitted in 5 folds"
    assert list(told["thresholds"]) == ["yes"]
    assert 0 < told["valid_figure_at_thresholds"] < 1
    refitted = Trust.of(*draw(problem), problem, make_metric(None, problem)).summary(problem, is_refit=True)
    assert "before the refit" in refitted["calibrated_on"]
    assert "thresholds" not in refitted
    assert Trust().summary(problem)["calibrated_on"].startswith("no images")
    assert Trust().summary(PROBLEMS[3][0]) == {}


def test_sets_are_by_calibrated_probabilities() -> None:
    problem = PROBLEMS[1][0]
    p, y = draw(problem)
    trust = Trust.of(p, y, problem, make_metric(None, problem))
    calibrated = trust.calibration.apply(p, problem)
    assert sorted(trust.conformal.scores) == sorted(calibrated[np.arange(200), y].astype(np.float32).tolist())


def test_where_a_deadline_cut_judging_short_the_first_images_count() -> None:
    problem = PROBLEMS[1][0]
    p, y = draw(problem)
    metric = make_metric(None, problem)
    assert Trust.of(p[:50], y, problem, metric) == Trust.of(p[:50], y[:50], problem, metric)
    assert Trust.of(p[:0], y, problem, metric) == Trust()
