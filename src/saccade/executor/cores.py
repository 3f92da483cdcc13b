"""How many cores this process may use, which in a container is seldom how many the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def num_usable_cpus(root: Path = Path("/")) -> int:
    """Return how many cores this process may keep busy, at least 1.

    That is the least of what the machine has, what the process is bound to (affinity), and, on Linux, what its
    control groups allow in computing time; half cores are not counted, since a thread too many costs more than it
    gives.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` are found.

    Examples
    --------
    >>> 1 <= num_usable_cpus() <= os.cpu_count()
    True
    """
    count = getattr(os, "process_cpu_count", None)  # Python 3.13; it obeys PYTHON_CPU_COUNT as well
    if count is not None:
        num = count() or 1
    elif hasattr(os, "sched_getaffinity"):
        num = len(os.sched_getaffinity(0))
    else:
        num = os.cpu_count() or 1
    return max(1, int(min(num, *_quotas(root))))


def _quotas(root: Path) -> Iterator[float]:
    """Yield, for each control group around this process, the cores' worth of time that it allows."""
    yield math.inf
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (controllers, "cpu") if controllers else ("", "unified"):
            for folder in _and_parents(root / "sys/fs/cgroup" / mount, path):
                yield _quota(folder)


def _and_parents(mount: Path, path: str) -> Iterator[Path]:
    """Yield the folders from the mount down to the group: each of them limits; in a container only some exist."""
    yield mount
    for part in PurePosixPath(path).parts:
        if part not in ("/", ".."):
            mount = mount / part
            yield mount


def _quota(folder: Path) -> float:
    try:
        if (folder / "cpu.max").exists():  # version 2: "200000 100000", or "max 100000"
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:  # version 1, where -1 is no limit
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such group here, or no limit
        return math.inf
