from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import HyperparameterError
from saccade.executor import WorkerSlot, local_slots, num_usable_cpus, plan_workers
from saccade.executor.slots import THREAD_VARIABLES

CPUS = st.integers(1, 96)
GPUS = st.integers(0, 8)
MAYBE = st.none() | st.integers(1, 40)
GPUS_PER_TRIAL = st.none() | st.sampled_from([0, 0.1, 0.25, 1 / 3, 0.5, 0.7, 1, 1.0, 2, 3, 16]) | st.floats(0.001, 1)


def told_by(*args, **options):
    told = []
    slots = plan_workers(*args, tell=told.append, **options)
    return slots, told


@given(CPUS, GPUS, MAYBE, GPUS_PER_TRIAL, MAYBE, MAYBE, MAYBE)
def test_cores_are_never_oversubscribed(cpus, gpus, nthreads, ngpus, workers, trials, max_threads):
    slots = plan_workers(cpus, gpus, nthreads, ngpus, workers, num_trials=trials, max_threads=max_threads)
    threads = [slot.num_threads for slot in slots]
    assert len(slots) >= 1
    assert min(threads) >= 1
    if nthreads is not None and nthreads > cpus:
        assert threads == [nthreads]
    else:
        assert sum(threads) <= cpus
    if nthreads is not None:
        assert set(threads) == {nthreads}
    elif max_threads is not None:
        assert max(threads) <= max_threads
    assert len(slots) <= min(workers or math.inf, trials or math.inf)


@given(CPUS, GPUS, MAYBE, GPUS_PER_TRIAL, MAYBE)
def test_gpus_are_never_oversubscribed(cpus, gpus, nthreads, ngpus, workers):
    slots = plan_workers(cpus, gpus, nthreads, ngpus, workers)
    devices = Counter(slot.device for slot in slots)
    if ngpus == 0:
        assert set(devices) == {"cpu"}
        return
    if gpus == 0:
        assert set(devices) == {None}
        return
    assert set(devices) <= {f"cuda:{number}" for number in range(gpus)}
    per_trial = ngpus or 1
    assert max(devices.values()) * min(per_trial, 1) <= 1 + 1e-6
    assert len(slots) * max(1, min(per_trial, gpus)) <= gpus or per_trial < 1
    assert max(devices.values()) - min(devices.values()) <= 1


@given(CPUS, GPUS, MAYBE, GPUS_PER_TRIAL)
def test_only_what_was_asked_for_and_is_not_there_is_told(cpus, gpus, nthreads, ngpus):
    _, told = told_by(cpus, gpus, nthreads, ngpus)
    if ngpus is None and (nthreads or 1) * max(gpus, 1) <= cpus:
        assert told == []
    if (ngpus or 0) > gpus or (nthreads or 0) > cpus:
        assert told


@pytest.mark.parametrize(
    ("machine", "asked", "plan"),
    [
        ((2, 0), {}, [(None, 2)]),
        ((2, 0), {"nthreads_per_trial": 1}, [(None, 1)] * 2),
        ((8, 0), {"nthreads_per_trial": 3}, [(None, 3)] * 2),
        ((8, 0), {"num_workers": 3}, [(None, 2)] * 3),
        ((8, 0), {"num_workers": 2, "nthreads_per_trial": 1}, [(None, 1)] * 2),
        ((8, 0), {"nthreads_per_trial": 1, "num_trials": 3}, [(None, 1)] * 3),
        ((8, 0), {"num_trials": 3}, [(None, 8)]),
        ((2, 0), {"nthreads_per_trial": 8}, [(None, 8)]),
        ((8, 0), {"max_threads": 1}, [(None, 1)]),
        ((8, 0), {"max_threads": 1, "nthreads_per_trial": 4}, [(None, 4)] * 2),
        ((9, 2), {}, [("cuda:0", 4), ("cuda:1", 4)]),
        ((8, 2), {"num_trials": 1}, [("cuda:0", 8)]),
        ((8, 2), {"ngpus_per_trial": 0}, [("cpu", 8)]),
        ((8, 2), {"ngpus_per_trial": 0, "nthreads_per_trial": 4}, [("cpu", 4)] * 2),
        ((8, 1), {"ngpus_per_trial": 0.5}, [("cuda:0", 4)] * 2),
        ((8, 2), {"ngpus_per_trial": 0.5, "num_workers": 3}, [("cuda:0", 2), ("cuda:1", 2), ("cuda:0", 2)]),
        ((8, 4), {"ngpus_per_trial": 2}, [("cuda:0", 4), ("cuda:2", 4)]),
        ((8, 3), {"ngpus_per_trial": 2}, [("cuda:0", 8)]),
        ((8, 1), {"ngpus_per_trial": 2}, [("cuda:0", 8)]),
        ((2, 0), {"ngpus_per_trial": 1}, [(None, 2)]),
        ((2, 4), {}, [("cuda:0", 1), ("cuda:1", 1)]),
    ],
)
def test_plans(machine, asked, plan):
    assert plan_workers(*machine, **asked) == [WorkerSlot(*slot) for slot in plan]


@pytest.mark.parametrize(
    ("machine", "asked", "lines"),
    [
        ((2, 0), {"num_workers": 2}, []),
        ((8, 2), {"num_workers": 1}, []),
        ((8, 0), {"nthreads_per_trial": 1, "num_trials": 3}, []),
        ((2, 0), {"num_workers": 3}, ["2 workers instead of 3: 2 cores may be used"]),
        (
            (4, 0),
            {"num_workers": 3, "nthreads_per_trial": 2},
            ["2 workers instead of 3: 4 cores may be used, for 2 threads a trial"],
        ),
        ((1, 2), {}, ["1 worker instead of 2: 1 core and 2 GPUs may be used"]),
        ((8, 1), {"num_workers": 2}, ["1 worker instead of 2: 8 cores and 1 GPU may be used"]),
        (
            (4, 0),
            {"nthreads_per_trial": 8},
            ["nthreads_per_trial=8 is more than the 4 cores that may be used: one worker, slower than with 4 threads"],
        ),
        (
            (8, 2),
            {"ngpus_per_trial": 2},
            ["ngpus_per_trial=2: a trial trains on one of its 2, and the rest stays free"],
        ),
        (
            (2, 0),
            {"ngpus_per_trial": 0.5},
            ["ngpus_per_trial=0.5, and this machine has 0 CUDA devices: trials train without"],
        ),
        (
            (2, 1),
            {"ngpus_per_trial": 2},
            ["ngpus_per_trial=2, and this machine has 1 CUDA device: a trial has all of it"],
        ),
    ],
)
def test_what_is_reduced_is_told_with_its_reason(machine, asked, lines):
    assert told_by(*machine, **asked)[1] == lines


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nthreads_per_trial", 0),
        ("nthreads_per_trial", 1.5),
        ("nthreads_per_trial", True),
        ("num_workers", 0),
        ("num_workers", "2"),
        ("num_trials", -1),
        ("max_threads", 0),
        ("ngpus_per_trial", -1),
        ("ngpus_per_trial", 1.5),
        ("ngpus_per_trial", math.nan),
        ("ngpus_per_trial", math.inf),
        ("ngpus_per_trial", 1e-9),
        ("ngpus_per_trial", True),
        ("ngpus_per_trial", "all"),
        ("num_cpus", 0),
        ("num_gpus", -1),
    ],
)
def test_what_cannot_be_is_an_error(name, value):
    with pytest.raises(HyperparameterError, match=f"{name} was given .*; expected"):
        plan_workers(**{"num_cpus": 4, "num_gpus": 1, name: value})


def test_this_machine_is_divided_as_the_environment_says(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert local_slots(0) == [WorkerSlot(None, num_usable_cpus())]
    for text, num in (
        ("1", 1),
        ("1,4", 1),
        ("", num_usable_cpus()),
        ("many", num_usable_cpus()),
        ("0", num_usable_cpus()),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert local_slots(0) == [WorkerSlot(None, num)]
    assert len(local_slots(0, nthreads_per_trial=1, num_trials=1)) == 1


def test_a_slot_leaves_alone_what_it_does_not_name():
    assert WorkerSlot().environment({"OMP_NUM_THREADS": "5", "CUDA_VISIBLE_DEVICES": "3"}) == {
        "OMP_NUM_THREADS": "5",
        "CUDA_VISIBLE_DEVICES": "3",
    }
    assert WorkerSlot().local_device is None


def test_threads_are_limited_for_all_libraries():
    environment = WorkerSlot(num_threads=3).environment({"OMP_NUM_THREADS": "64", "PATH": "x"})
    assert environment == {"PATH": "x", **dict.fromkeys(THREAD_VARIABLES, "3")}


@pytest.mark.parametrize(
    ("device", "shown", "visible"),
    [
        ("cuda:0", None, "0"),
        ("cuda:3", None, "3"),
        ("cuda:1", "5, 7", "7"),
        ("cuda:0", "GPU-8f2a", "GPU-8f2a"),
        ("cpu", "5,7", "-1"),
    ],
)
def test_a_worker_sees_its_gpu_only(device, shown, visible):
    base = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    slot = WorkerSlot(device)
    assert slot.environment(base) == {"CUDA_VISIBLE_DEVICES": visible}
    assert slot.local_device == ("cpu" if device == "cpu" else "cuda:0")


def test_a_gpu_that_is_not_shown_is_an_error():
    with pytest.raises(HyperparameterError, match="'cuda:2', but CUDA_VISIBLE_DEVICES='5,7' shows 2"):
        WorkerSlot("cuda:2").environment({"CUDA_VISIBLE_DEVICES": "5,7"})


@pytest.mark.parametrize("device", ["cuda", "gpu:0", "cuda:-1", "mps", ""])
def test_a_slot_has_a_device_that_can_be_kept_for_it(device):
    with pytest.raises(HyperparameterError, match="a worker's device was given as"):
        WorkerSlot(device)


def test_a_slot_has_a_thread_at_least():
    with pytest.raises(HyperparameterError, match="num_threads was given 0"):
        WorkerSlot(num_threads=0)
