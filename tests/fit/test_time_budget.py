"""The phases of a fit, and the time that is reserved for its end."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.deadline import Deadline
from saccade.events import (
    EpochDone,
    Event,
    JobDone,
    JobFailed,
    JobStarted,
    NetworksScreened,
    PhaseDone,
    TrialCreated,
    TrialRestarted,
    WorkerJoined,
)
from saccade.fit.time_budget import (
    LEAST_FINISHING_S,
    SELECTION_FRACTION,
    FinishingReserve,
    TimeBudget,
    too_short,
)
from saccade.study.time_use import TimeUse
from saccade.study.trial import Trial


@given(
    used_s=st.floats(0, 100),
    phases=st.lists(
        st.tuples(st.sampled_from(["decoding", "search", "folds", "selection", "finishing"]), st.floats(0, 100)),
        max_size=8,
    ),
    num_workers=st.integers(0, 4),
)
def test_the_seconds_of_all_phases_add_up_to_the_total(used_s, phases, num_workers) -> None:
    now_s = 0.0
    told: list[Event] = []
    budget = TimeBudget(Deadline(60, lambda: now_s, used_s=used_s), used_s, told.append)
    for trial, (phase, seconds) in enumerate(phases):
        budget(WorkerJoined(num_workers))
        budget.begin(phase)
        budget(JobStarted(trial))
        budget(EpochDone(trial, 0, 0.5, seconds / 4))
        budget(EpochDone(trial, 1, 0.6, seconds / 2, {"train_s": seconds / 3, "val_s": seconds / 6}))
        now_s += seconds
    *parts, total = budget.seconds().items()
    assert total == ("total", pytest.approx(used_s + now_s))
    assert sum(seconds for _, seconds in parts) == pytest.approx(used_s + now_s, abs=1e-9)
    assert len(told) == len(phases)
    assert all(isinstance(event, PhaseDone) for event in told)


def test_the_search_is_divided_among_its_workers() -> None:
    now_s = 0.0
    told: list[Event] = []
    budget = TimeBudget(Deadline(60, lambda: now_s), 0.0, told.append)
    now_s = 3.0
    budget(WorkerJoined(2))
    budget.begin("search")
    for trial in (0, 1):
        budget(JobStarted(trial))
    for trial in (0, 1):
        budget(EpochDone(trial, 0, 0.5, 2.0))
        budget(EpochDone(trial, 1, 0.6, 9.0, {"train_s": 5.0, "val_s": 2.0}))
    now_s = 13.0
    budget(JobDone(0))
    now_s = 15.0
    budget.begin("selection")
    budget(EpochDone(0, 2, 0.5, 2.0, {"train_s": 6.0}))  # a refit is not a part of the search
    assert budget.seconds() == {
        "preparing": 3.0, "probes": 2.0, "training": 5.0, "validation": 2.0, "idle": 1.0, "overhead": 2.0,
        "total": 15.0,
    }  # fmt: skip
    assert told == [PhaseDone("preparing", 0.0, 3.0, "search"), PhaseDone("search", 3.0, 12.0, "selection")]


def test_a_worker_is_idle_without_a_job_and_this_process_never_is() -> None:
    for num_workers, idle_s in ((0, 0.0), (1, 2.0), (3, (2.0 + 7.0 + 7.0) / 3)):
        use = TimeUse()
        for now_s, event in [
            (0.0, WorkerJoined(num_workers)),
            (1.0, PhaseDone("preparing", 0.0, 1.0, "search")),
            (2.0, NetworksScreened({}, 0, 1.0)),
            (4.0, JobStarted(0)),
            (8.0, TrialRestarted(0, -1)),
            (8.0, JobStarted(0)),
            (9.0, JobFailed(0, "why")),
        ]:
            use.add(event, now_s)
        assert use.seconds(9.0).get("idle", 0.0) == pytest.approx(idle_s)


@pytest.mark.parametrize(("limit_s", "elapsed_s", "left_s"), [(100, 5, 15), (2, 0, 1), (100, 50, 1)])
def test_decoding_stops_after_a_fifth_of_the_limit_but_lasts_a_second(limit_s, elapsed_s, left_s) -> None:
    budget = TimeBudget(Deadline(limit_s, lambda: 0.0, used_s=elapsed_s), 0.0, [].append)
    assert budget.part("decoding").limit_s == pytest.approx(left_s)


@pytest.mark.parametrize(
    ("limit_s", "elapsed_s", "measuring_s", "selection_s"),
    [(100, 5, 2.0, 94.0), (10, 0, 0.8, 9.8), (5, 4.9, 0.1, -0.1), (5, 8, -3.0, -3.2)],
)
def test_each_phase_has_a_part_of_the_time_that_is_left(limit_s, elapsed_s, measuring_s, selection_s) -> None:
    budget = TimeBudget(Deadline(limit_s, lambda: 0.0, used_s=elapsed_s), 0.0, [].append)
    assert budget.part("measuring speed").limit_s == pytest.approx(measuring_s)
    assert budget.part("selection").limit_s == pytest.approx(selection_s)
    assert budget.part("checking").limit_s == limit_s


def test_a_limit_that_is_over_before_training_is_named() -> None:
    assert "time_limit=2 is over before training, since the start took 3.5 s" in too_short(
        Deadline(2, lambda: 0.0, used_s=3.5)
    )


def report(trial: int, epoch: int, score: float, seconds: float, write_s: float = 0.0) -> EpochDone:
    return EpochDone(trial, epoch, score, seconds, {"train_s": seconds - 0.1, "val_s": 0.1, "write_s": write_s})


def test_writing_is_estimated_by_the_slowest_checkpoint() -> None:
    reserve = FinishingReserve(Deadline(None))
    assert reserve.seconds() == LEAST_FINISHING_S
    for number, write_s in enumerate([0.5, 3.0, 1.0]):
        reserve(report(number, 1, 0.5, 10.0, write_s))
    assert reserve.seconds() == pytest.approx(LEAST_FINISHING_S + 3.0)


def test_the_reserve_for_the_summary_grows_with_the_trials() -> None:
    few, many = FinishingReserve(Deadline(None)), FinishingReserve(Deadline(None))
    for reserve, num in ((few, 10), (many, 100_000)):
        reserve(TrialCreated(num - 1, {}))
        reserve(JobDone(num - 1))
    assert many.seconds() > few.seconds() > LEAST_FINISHING_S


@given(
    limit_s=st.floats(10, 1e5),
    ratio=st.floats(1.0, 2.0),
    epochs_s=st.lists(st.tuples(st.floats(0.1, 50), st.floats(0, 1)), max_size=10),
)
def test_a_trial_that_uses_all_its_time_can_be_refitted(limit_s, ratio, epochs_s) -> None:
    """Whether it is new, or the best so far that goes on."""
    now_s = 0.0
    deadline = Deadline(limit_s, lambda: now_s)
    reserve = FinishingReserve(deadline, ratio)
    best_score, best_s = -math.inf, 0.0
    for trial, (seconds, score) in enumerate(epochs_s):
        now_s += seconds
        reserve(EpochDone(trial, 1, score, seconds))
        if score > best_score:
            best_score, best_s = score, seconds
    given_s = deadline.seconds_left() - reserve.seconds()
    if given_s > 0:
        left_s = deadline.seconds_left() - given_s
        assert left_s >= ratio * (best_s + given_s) - 1e-6 * limit_s
        # Nor is more kept than that.
        assert left_s <= ratio * (best_s + given_s) + reserve.finishing_s + 1e-6 * limit_s


def test_without_a_time_limit_nothing_is_divided() -> None:
    reserve = FinishingReserve(Deadline(None), 1.1)
    reserve(report(0, 1, 0.5, 1000.0))
    assert reserve.seconds() < 1


def test_a_refit_reserves_the_set_up_time_of_trials() -> None:
    now_s = 0.0
    plain, slow = (FinishingReserve(Deadline(100, lambda: now_s), 1.0) for _ in range(2))
    plain(JobStarted(0))
    slow(JobStarted(0))
    plain(EpochDone(0, 1, 0.5, 1.0))  # it says that it has taken longer than it was away
    slow(EpochDone(0, 1, 0.5, 0.0))
    assert plain._setup_s == 0
    assert slow._setup_s > 0


@given(
    limit_s=st.floats(1, 1e4),
    trials=st.lists(st.tuples(st.integers(0, 8), st.floats(0.01, 50)), max_size=20),
    max_members=st.integers(1, 6),
)
def test_ensemble_selection_has_a_small_part_of_the_time(limit_s, trials, max_members) -> None:
    deadline = Deadline(limit_s, lambda: 0.0)
    reserve = FinishingReserve(deadline, max_members=max_members)
    for number, (network, val_s) in enumerate(trials):
        reserve(TrialCreated(number, {"model": f"net{network}"}))
        reserve(EpochDone(number, 1, 0.5, val_s + 1, {"val_s": val_s}))
    assert 0 <= reserve.selection_s <= SELECTION_FRACTION * limit_s
    assert reserve.seconds() == pytest.approx(reserve.finishing_s + reserve.selection_s)
    if not trials:
        assert reserve.selection_s == 0


def test_a_resumed_run_reserves_as_much_as_one_without_interruption() -> None:
    trials = [
        Trial(number, {"model": "a"}, reports=[EpochDone(number, 1, 0.5, 1.0, {"write_s": 2.0})]) for number in (0, 1)
    ]
    live, recalled = (FinishingReserve(Deadline(100, lambda: 0.0), max_members=3) for _ in range(2))
    for trial in trials:
        live(TrialCreated(trial.number, trial.config))
        live(trial.reports[0])
    recalled.recall(SimpleNamespace(trials=trials))  # type: ignore[arg-type]
    assert recalled.seconds() == live.seconds() > LEAST_FINISHING_S + 4.0
