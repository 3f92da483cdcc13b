from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.events import EpochDone, JobFailed
from saccade.study.objectives import (
    check_objectives,
    check_score_name,
    pareto_front,
    same_costs,
    speed_limits,
    trial_costs,
    within_limits,
)
from saccade.study.trial import Status, Trial


def trial(number: int, model: str, score: float, **costs: float) -> Trial:
    return Trial(number, {"model": model, "lr": number}, reports=[EpochDone(number, 1, score, metrics=costs)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["latency"], r"only costs; add the score: \['accuracy', 'latency'\]"),
        (["accuracy", "latency", "latency"], "each name once"),
        (["accuracy", "f1", "latency"], "expected one score"),
        (3, "expected a list such as"),
        ([1, 2], "expected a list such as"),
    ],
)
def test_invalid_objectives(given: object, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        check_objectives(given)


def test_objectives_may_be_written_as_one_word() -> None:
    assert check_objectives("accuracy, latency") == ["accuracy", "latency"]
    assert check_objectives([]) == []


def test_the_score_is_called_by_its_name_or_score() -> None:
    check_score_name(["f1", "latency"], "f1")
    check_score_name(["score", "bytes"], "f1")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'latency'\? .*eval_metric, which is 'f1'"):
        check_score_name(["latensy", "bytes"], "f1")


def test_the_shortest_latency_of_a_network_counts() -> None:
    trials = [
        trial(0, "a", 0.5, latency_ms=5.0),
        trial(1, "a", 0.6, latency_ms=3.0),
        trial(2, "b", 0.4, latency_ms=4.0),
        Trial(3, {"model": "a"}),
    ]
    costs = trial_costs(trials, ["latency_ms"])
    assert {number: cost["latency_ms"] for number, cost in costs.items()} == {0: 3.0, 1: 3.0, 2: 4.0}
    assert [each.number for each in pareto_front(trials, ["accuracy", "latency"])] == [1]


def test_trials_within_the_limits_or_else_the_nearest_are_returned() -> None:
    trials = [
        trial(0, "a", 0.5, image_ms=5.0, latency_ms=8.0),
        trial(1, "a", 0.6, image_ms=4.0, latency_ms=9.0),
        trial(2, "b", 0.4, image_ms=20.0, latency_ms=30.0),
        trial(3, "c", 0.9),  # of a run that measured nothing
        Trial(4, {"model": "a"}),
    ]

    def numbers(*limits: float | None) -> list[int]:
        return [each.number for each in within_limits(trials, speed_limits(*limits))]

    assert numbers(None, None) == [0, 1, 2, 3]
    assert numbers(250, None) == numbers(None, 8.0) == numbers(250, 8.0) == [0, 1]
    assert numbers(50, 30.0) == [0, 1, 2]
    assert numbers(251, None) == numbers(50, 7.0) == numbers(1e9, 1e-9) == [0, 1]


def test_hyperparameters_of_training_do_not_change_what_a_network_costs() -> None:
    assert same_costs({"model": "a", "lr": 1}) == same_costs({"model": "a", "lr": 2})
    assert same_costs({"model": "a", "img_size": 32}) != same_costs({"model": "a", "img_size": 64})


def test_failed_trials_are_left_out() -> None:
    failed = trial(0, "a", 0.9, num_params=1.0)
    failed.status, failed.failure = Status.FAILED, JobFailed(0, "no", "")
    assert [
        each.number for each in pareto_front([failed, trial(1, "b", 0.1, num_params=9.0)], ["score", "params"])
    ] == [1]


def test_of_equal_trials_the_earliest_is_on_the_front() -> None:
    trials = [trial(number, "a", 0.5, num_params=1.0) for number in range(3)]
    assert [each.number for each in pareto_front(trials, ["score", "params"])] == [0]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20))
def test_no_trial_dominates_the_front(values: list[tuple[int, int, int]]) -> None:
    trials = [
        trial(number, f"net{number}", score, num_params=params, num_bytes=size)
        for number, (score, params, size) in enumerate(values)
    ]
    front = {each.number for each in pareto_front(trials, ["score", "params", "bytes"])}

    def beats(one: int, other: int) -> bool:
        (score, *costs), (other_score, *other_costs) = values[one], values[other]
        no_worse = score >= other_score and all(a <= b for a, b in zip(costs, other_costs, strict=True))
        return no_worse and (values[one] != values[other] or one < other)

    for number in range(len(values)):
        assert (number in front) == (not any(beats(other, number) for other in range(len(values))))
