from __future__ import annotations

import os

import pytest

from saccade.executor import num_usable_cpus


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
def test_newer_pythons_count_for_themselves(monkeypatch, tmp_path, count, num):
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
