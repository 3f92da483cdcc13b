from __future__ import annotations

import math
import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import HyperparameterError
from saccade.executor import WorkerSlot, local_slots, num_usable_cpus, plan_workers
from saccade.executor.slots import SHORT_WAIT, THREAD_VARIABLES, WAIT_VARIABLES

CPUS = st.integers(1, 96)
GPUS = st.integers(0, 8)
MAYBE = st.none() | st.integers(1, 40)
GPUS_PER_TRIAL = st.none() | st.sampled_from([0, 0.1, 0.25, 1 / 3, 0.5, 0.7, 1, 1.0, 2, 3, 16]) | st.floats(0.001, 1)


def warnings_of(*args, **options):
    warnings = []
    plan_workers(*args, warn=warnings.append, **options)
    return warnings


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
    assert {slot.num_gpus for slot in slots} == {int(max(1, min(ngpus or 1, gpus)))}
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
def test_only_requests_beyond_the_machine_cause_warnings(cpus, gpus, nthreads, ngpus):
    warnings = warnings_of(cpus, gpus, nthreads, ngpus)
    if ngpus is None and (nthreads or 1) * max(gpus, 1) <= cpus:
        assert warnings == []
    if (ngpus or 0) > gpus or (nthreads or 0) > cpus:
        assert warnings


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
        ((8, 4), {"ngpus_per_trial": 2}, [("cuda:0", 4, False, 2), ("cuda:2", 4, False, 2)]),
        ((8, 3), {"ngpus_per_trial": 2}, [("cuda:0", 8, False, 2)]),
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
        ((2, 0), {"num_workers": 3}, ["2 workers instead of 3: 2 usable cores"]),
        (
            (4, 0),
            {"num_workers": 3, "nthreads_per_trial": 2},
            ["2 workers instead of 3: 4 usable cores, 2 threads per trial"],
        ),
        ((1, 2), {}, ["1 worker instead of 2: 1 usable core and 2 GPUs"]),
        ((8, 1), {"num_workers": 2}, ["1 worker instead of 2: 8 usable cores and 1 GPU"]),
        (
            (4, 0),
            {"nthreads_per_trial": 8},
            ["nthreads_per_trial=8 exceeds the 4 usable cores: one worker, slower than with 4 threads"],
        ),
        (
            (8, 2),
            {"ngpus_per_trial": 2},
            [],
        ),
        (
            (2, 0),
            {"ngpus_per_trial": 0.5},
            ["ngpus_per_trial=0.5, but this machine has 0 CUDA devices: trials train on the CPU"],
        ),
        (
            (2, 1),
            {"ngpus_per_trial": 2},
            ["ngpus_per_trial=2, but this machine has 1 CUDA device: a trial gets all of them"],
        ),
    ],
)
def test_a_reduced_number_causes_a_warning_with_the_reason(machine, asked, lines):
    assert warnings_of(*machine, **asked) == lines


@pytest.mark.parametrize("value", [-1, 1.5, math.nan, math.inf, 1e-9, True, "all"])
def test_invalid_numbers_of_gpus_are_errors(value):
    with pytest.raises(HyperparameterError, match=r"ngpus_per_trial was given .*; expected"):
        plan_workers(4, 1, ngpus_per_trial=value)


def test_local_slots_obey_the_environment(monkeypatch):
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


def test_an_empty_slot_does_not_change_the_environment():
    assert WorkerSlot().environment({"OMP_NUM_THREADS": "5", "CUDA_VISIBLE_DEVICES": "3"}) == {
        "OMP_NUM_THREADS": "5",
        "CUDA_VISIBLE_DEVICES": "3",
    }
    assert WorkerSlot().local_device is None


def test_threads_are_limited_for_all_libraries():
    environment = WorkerSlot(num_threads=3).environment({"OMP_NUM_THREADS": "64", "PATH": "x"})
    assert environment == {"PATH": "x", **dict.fromkeys(THREAD_VARIABLES, "3")}


@pytest.mark.parametrize("name", sorted(WAIT_VARIABLES))
def test_waiting_threads_sleep_early_unless_the_user_has_decided(name):
    slot = WorkerSlot(is_wait_short=True)
    assert slot.environment({"PATH": "x"}) == {"PATH": "x", **SHORT_WAIT}
    assert slot.environment({name: "5"}) == {name: "5"}


@pytest.mark.parametrize(
    ("device", "num_gpus", "shown", "visible"),
    [
        ("cuda:0", 1, None, "0"),
        ("cuda:3", 1, None, "3"),
        ("cuda:2", 2, None, "2,3"),
        ("cuda:1", 1, "5, 7", "7"),
        ("cuda:1", 2, "5,7,9", "7,9"),
        ("cuda:0", 1, "GPU-8f2a", "GPU-8f2a"),
        ("cpu", 1, "5,7", "-1"),
    ],
)
def test_a_worker_sees_its_gpus_only(device, num_gpus, shown, visible):
    base = {"TORCHELASTIC_RUN_ID": "1"} | ({} if shown is None else {"CUDA_VISIBLE_DEVICES": shown})
    slot = WorkerSlot(device, num_gpus=num_gpus)
    assert slot.environment(base) == {"CUDA_VISIBLE_DEVICES": visible}
    assert slot.local_device == ("cpu" if device == "cpu" else "cuda:0")


def test_a_gpu_that_is_not_shown_is_an_error():
    with pytest.raises(HyperparameterError, match="1 GPU from 'cuda:2' on, but CUDA_VISIBLE_DEVICES='5,7' lists 2"):
        WorkerSlot("cuda:2").environment({"CUDA_VISIBLE_DEVICES": "5,7"})


@pytest.mark.parametrize("device", ["cuda", "gpu:0", "cuda:-1", "mps", ""])
def test_devices_of_a_slot_are_validated(device):
    with pytest.raises(HyperparameterError, match="The device of a worker is"):
        WorkerSlot(device)


def test_a_slot_has_at_least_one_thread():
    with pytest.raises(HyperparameterError, match="num_threads was given 0"):
        WorkerSlot(num_threads=0)


@pytest.fixture
def many_cores(monkeypatch):
    """Let this process be bound to eight cores."""
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)


def make_root(tmp_path, groups, files):
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are not bound to cores here")
def test_only_the_cores_that_the_process_is_bound_to_count():
    bound_to = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(bound_to)})
        assert num_usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, bound_to)


@pytest.mark.parametrize(("count", "num"), [(6, 6), (None, 1)])
def test_newer_pythons_have_a_count(monkeypatch, tmp_path, count, num):
    monkeypatch.setattr(os, "process_cpu_count", lambda: count, raising=False)
    assert num_usable_cpus(tmp_path) == num


@pytest.mark.parametrize(
    ("limit", "num"),
    [
        ("200000 100000", 2),
        ("max 100000", 8),
        ("350000 100000", 3),
        ("50000 100000", 1),
        ("9900000 100000", 8),
        ("", 8),
    ],
)
def test_the_limit_of_a_control_group_counts(many_cores, tmp_path, limit, num):
    root = make_root(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": limit})
    assert num_usable_cpus(root) == num


def test_the_limits_of_groups_around_the_group_count_too(many_cores, tmp_path):
    files = {
        "sys/fs/cgroup/user/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/user/job/cpu.max": "max 100000\n",
        "sys/fs/cgroup/other/cpu.max": "100000 100000\n",
    }
    assert num_usable_cpus(make_root(tmp_path, "0::/user/job\n", files)) == 3


@pytest.mark.parametrize(("quota", "num"), [("400000", 4), ("-1", 8)])
@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_older_control_groups_count(many_cores, tmp_path, quota, num, mount):
    files = {
        f"sys/fs/cgroup/{mount}/box/cpu.cfs_quota_us": quota,
        f"sys/fs/cgroup/{mount}/box/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/box/cpu.cfs_quota_us": "100000",
        "sys/fs/cgroup/memory/box/cpu.cfs_period_us": "100000",
    }
    root = make_root(tmp_path, f"5:memory:/box\n4:{mount}:/box\n1:name=systemd:/\n", files)
    assert num_usable_cpus(root) == num


def test_within_a_container_the_group_has_another_path_than_outside(many_cores, tmp_path):
    root = make_root(tmp_path, "0::/../docker/3f2a\n", {"sys/fs/cgroup/cpu.max": "200000 100000"})
    assert num_usable_cpus(root) == 2
