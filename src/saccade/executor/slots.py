"""Dividing a machine among workers: usable cores, devices and threads for each."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from saccade.checks import whole_number
from saccade.errors import HyperparameterError, count_of

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Environment variables that numeric libraries read once, when they are loaded."""

WAIT_VARIABLES = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
"""Environment variables for how long OpenMP's threads spin before they sleep, while they wait for each other."""

SHORT_WAIT = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}
"""About 20 µs (GNU) or 1 ms (LLVM).

The libraries' defaults are faster on a quiet machine. But if another program uses one of the cores, each layer of a
network may wait for the operating system's scheduler, and a batch takes up to a hundred times as long.
"""


@dataclass(frozen=True)
class WorkerSlot:
    """A worker's part of the machine.

    The environment of the worker's interpreter holds it, because libraries read it only once. Two workers whose threads
    outnumber the cores become many times slower, because threads wait for one another (`benchmarks/waiting.py`).

    Examples
    --------
    >>> slot = WorkerSlot("cuda:1", num_threads=4)
    >>> slot.environment({})["CUDA_VISIBLE_DEVICES"], slot.local_device
    ('1', 'cuda:0')
    """

    device: str | None = None
    """``"cuda:1"`` as numbered in this process, ``"cpu"`` to hide all GPUs, or None to let the worker choose."""
    num_threads: int | None = None
    """Threads for numeric libraries; None is their own default."""
    is_wait_short: bool = False
    """Whether waiting threads sleep early (`SHORT_WAIT`), unless the environment has one of `WAIT_VARIABLES`.

    A batch then takes a similar time beside other busy programs, which short time limits require.
    """
    num_gpus: int = 1
    """GPUs that the worker sees: `device` and those after it."""

    def __post_init__(self) -> None:
        if self.device is not None and not re.fullmatch(r"cpu|cuda:\d+", self.device):
            raise HyperparameterError(
                f"The device of a worker is {self.device!r}; expected 'cpu', 'cuda:0', 'cuda:1' …, or None."
            )
        if self.num_threads is not None:
            whole_number("num_threads", self.num_threads, 1)

    @property
    def local_device(self) -> str | None:
        """Name of the device within the worker, which sees only its own GPU."""
        return "cuda:0" if self.device and self.device != "cpu" else self.device

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment for the worker's interpreter, which extends `base`, by default that of this process.

        If its CUDA_VISIBLE_DEVICES lists GPUs, the slot's device is an index into it, or raises a HyperparameterError.
        """
        environment = dict(os.environ if base is None else base)
        environment.pop("TORCHELASTIC_RUN_ID", None)  # a worker is none of the processes that torchrun has started
        if self.is_wait_short and not environment.keys() & WAIT_VARIABLES:
            environment.update(SHORT_WAIT)
        if self.num_threads is not None:
            environment.update(dict.fromkeys(THREAD_VARIABLES, str(self.num_threads)))
        if self.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = "-1"  # Windows treats an empty variable as absent
        elif self.device is not None:
            number = int(self.device.removeprefix("cuda:"))
            shown = environment.get("CUDA_VISIBLE_DEVICES")
            names = (
                list(map(str, range(number + self.num_gpus)))
                if shown is None
                else [name.strip() for name in shown.split(",")]
            )
            if number + self.num_gpus > len(names):
                raise HyperparameterError(
                    f"A worker has {count_of(self.num_gpus, 'GPU')} from {self.device!r} on, but "
                    f"CUDA_VISIBLE_DEVICES={shown!r} lists {len(names)}. Choose some of those, or unset the variable."
                )
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(names[number : number + self.num_gpus])
        return environment


def plan_workers(
    num_cpus: int,
    num_gpus: int,
    nthreads_per_trial: int | None = None,
    ngpus_per_trial: float | None = None,
    num_workers: int | None = None,
    *,
    num_trials: int | None = None,
    max_threads: int | None = None,
    warn: Callable[[str], object] | None = None,
) -> list[WorkerSlot]:
    """Divide a machine among workers.

    The default is one worker for each GPU, or without a GPU one worker with all cores. The threads of all workers are
    never more than the cores, unless `nthreads_per_trial` alone is. A number that exceeds this machine is reduced, and
    `warn` is called with the reason, so that a script for a large machine also runs on a small one. `num_trials` and
    `max_threads` are upper bounds of workers and of their threads. Raises a HyperparameterError for an invalid
    `ngpus_per_trial`.
    """
    if ngpus_per_trial is not None:
        is_number = isinstance(ngpus_per_trial, int | float) and not isinstance(ngpus_per_trial, bool)
        if not is_number or not (ngpus_per_trial == 0 or 1e-3 <= ngpus_per_trial < math.inf):
            raise HyperparameterError(
                f"ngpus_per_trial was given {ngpus_per_trial!r}; expected 0, 0.5, 1, 2 or the like"
            )
        if ngpus_per_trial > 1 and ngpus_per_trial != int(ngpus_per_trial):
            raise HyperparameterError(
                f"ngpus_per_trial was given {ngpus_per_trial!r}; expected a whole number, or a fraction up to 1"
            )
    warn = warn or (lambda _: None)
    if nthreads_per_trial is not None and nthreads_per_trial > num_cpus:
        warn(
            f"nthreads_per_trial={nthreads_per_trial} exceeds the {count_of(num_cpus, 'usable core')}: "
            f"one worker, slower than with {count_of(num_cpus, 'thread')}"
        )
    num_by_gpu, gpu_step = _gpu_places(num_gpus, ngpus_per_trial, warn)
    num_by_cpu = max(1, num_cpus // (nthreads_per_trial or 1))
    num_places = min(num_by_gpu, num_by_cpu)
    wanted = num_workers or (num_by_gpu if gpu_step else num_by_cpu if nthreads_per_trial else 1)
    wanted = min(wanted, num_trials or math.inf)
    if wanted > num_places and (num_workers or gpu_step):
        threads = f", {count_of(nthreads_per_trial, 'thread')} per trial" if nthreads_per_trial else ""
        gpus = f" and {count_of(num_gpus, 'GPU')}" if num_by_gpu < math.inf else ""
        available = f"{count_of(num_cpus, 'usable core')}{gpus}{threads}"
        warn(f"{count_of(int(num_places), 'worker')} instead of {wanted:g}: {available}")
    num = int(min(wanted, num_places))
    if nthreads_per_trial is not None:
        num_threads = nthreads_per_trial
    else:
        num_threads = min(num_cpus // num, max_threads or num_cpus)
    if gpu_step:
        return [
            WorkerSlot(f"cuda:{place * gpu_step % num_gpus}", num_threads, num_gpus=gpu_step) for place in range(num)
        ]
    return [WorkerSlot("cpu" if ngpus_per_trial == 0 else None, num_threads)] * num


def local_slots(num_gpus: int, *asked: Any, **options: Any) -> list[WorkerSlot]:
    """Divide this machine among workers, with ``OMP_NUM_THREADS`` as `max_threads`; see `plan_workers`."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list has a number for each nesting level
    max_threads = int(given) if given.isdecimal() and int(given) else None
    return plan_workers(num_usable_cpus(), num_gpus, *asked, max_threads=max_threads, **options)


def _gpu_places(num_gpus: int, per_trial: float | None, warn: Callable[[str], object]) -> tuple[float, int]:
    """Return the number of workers that the GPUs allow, and the GPUs between two workers; (inf, 0) on the CPU."""
    if per_trial == 0:
        return math.inf, 0
    if per_trial is not None and per_trial > num_gpus:
        instead = "a trial gets all of them" if num_gpus else "trials train on the CPU"
        warn(f"ngpus_per_trial={per_trial:g}, but this machine has {count_of(num_gpus, 'CUDA device')}: {instead}")
    if num_gpus == 0:
        return math.inf, 0
    if per_trial is None or per_trial <= 1:
        num_sharing = math.floor(1 / (per_trial or 1) + 1e-9)  # 1e-9: rounding of 1 / 0.1 must not lose a worker
        return num_gpus * num_sharing, 1
    step = min(int(per_trial), num_gpus)
    return num_gpus // step, step


def num_usable_cpus(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may use, at least 1: by its affinity, and by quotas of a container.

    Fractions are rounded down, since one thread too many costs more than it gains.
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
    """Yield infinity, and the CPU quota in cores of each control group around this process."""
    yield math.inf
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (controllers, "cpu") if controllers else ("", "unified"):
            # Each folder from the mount down to the group limits; in a container only some of them exist.
            folder = root / "sys/fs/cgroup" / mount
            yield _quota(folder)
            for part in PurePosixPath(path).parts:
                if part not in ("/", ".."):
                    folder = folder / part
                    yield _quota(folder)


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
