"""What each worker is given of the machine: a device, and a number of threads."""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from saccade.errors import HyperparameterError
from saccade.executor.cores import num_usable_cpus

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Where libraries for arithmetic look, once, when they are loaded."""


@dataclass(frozen=True)
class WorkerSlot:
    """A worker's part of the machine.

    It is put into the environment before the worker's interpreter starts, because libraries read it only once. Two
    workers that both take all cores for themselves do not share them: their threads wait for one another, and each
    worker becomes many times slower. How threads wait is left to the libraries (`benchmarks/waiting.py`).

    Attributes
    ----------
    device : str or None
        ``"cuda:1"`` as this process counts, ``"cpu"`` to hide all GPUs, or None to leave the choice to the worker:
        Apple's MPS, of which there is one and which needs no name, or the CPU.
    num_threads : int or None
        Threads for arithmetic; None leaves that to the libraries.

    Examples
    --------
    >>> slot = WorkerSlot("cuda:1", num_threads=4)
    >>> slot.environment({})["CUDA_VISIBLE_DEVICES"], slot.local_device
    ('1', 'cuda:0')
    """

    device: str | None = None
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if self.device is not None and not re.fullmatch(r"cpu|cuda:\d+", self.device):
            raise HyperparameterError(
                f"a worker's device was given as {self.device!r}; expected 'cpu', 'cuda:0', 'cuda:1' …, or None"
            )
        if self.num_threads is not None:
            _check_whole("num_threads", self.num_threads, 1)

    @property
    def local_device(self) -> str | None:
        """The device's name within the worker, which sees no other GPU than its own."""
        return "cuda:0" if self.device and self.device != "cpu" else self.device

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment for the worker's interpreter.

        Parameters
        ----------
        base
            What it is added to; by default this process's own. When that shows some GPUs only, the slot's device is
            counted among those.

        Raises
        ------
        HyperparameterError
            When the base does not show so many GPUs.
        """
        environment = dict(os.environ if base is None else base)
        if self.num_threads is not None:
            environment.update(dict.fromkeys(THREAD_VARIABLES, str(self.num_threads)))
        if self.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = "-1"  # an empty one would be no variable at all on Windows
        elif self.device is not None:
            number = int(self.device.removeprefix("cuda:"))
            shown = environment.get("CUDA_VISIBLE_DEVICES")
            names = [str(number)] * (number + 1) if shown is None else [name.strip() for name in shown.split(",")]
            if number >= len(names):
                raise HyperparameterError(
                    f"a worker's device was given as {self.device!r}, but CUDA_VISIBLE_DEVICES={shown!r} shows "
                    f"{len(names)}; name one of those, or unset the variable"
                )
            environment["CUDA_VISIBLE_DEVICES"] = names[number]
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
    tell: Callable[[str], object] | None = None,
) -> list[WorkerSlot]:
    """Divide a machine among workers.

    With nothing asked for, there is a worker for each GPU, or without a GPU one worker that has all cores. The workers'
    threads are never more than the cores, unless `nthreads_per_trial` alone is more than that.

    What cannot be at all, such as ``ngpus_per_trial=1.5``, is an error. What merely this machine does not have is
    reduced to what it has, and `tell` is called with the reason: a script written for a large machine shall run on a
    small one too, only slower.

    Parameters
    ----------
    num_cpus
        Cores that may be used; see `num_usable_cpus`.
    num_gpus
        CUDA devices. Apple's MPS is not counted: workers find it by themselves.
    nthreads_per_trial
        Threads for a trial. Without GPUs there are as many workers as this leaves room for. More threads than cores
        are given to one worker, as asked. None divides the cores evenly.
    ngpus_per_trial
        GPUs for a trial; None is 1 where there are any. 0 trains on the CPU. A fraction lets trials share a GPU: 0.5
        makes two workers for each. With 2 a trial still trains on one device, but the second one is kept free for it.
    num_workers
        How many workers are wanted; None is as many as described above.
    num_trials
        How many trials there will be; no more workers than that are planned, so that none starts for nothing.
    max_threads
        Threads for a worker at most, where `nthreads_per_trial` does not say; for what is in ``OMP_NUM_THREADS``.
    tell
        Called with a line for each request that was reduced.

    Returns
    -------
    list of WorkerSlot
        At least one.

    Raises
    ------
    HyperparameterError
        For a number that is out of range.

    Examples
    --------
    >>> plan_workers(num_cpus=2, num_gpus=0)
    [WorkerSlot(device=None, num_threads=2)]
    >>> [slot.num_threads for slot in plan_workers(2, 0, nthreads_per_trial=1)]
    [1, 1]
    >>> [slot.device for slot in plan_workers(16, 2, ngpus_per_trial=0.5)]
    ['cuda:0', 'cuda:1', 'cuda:0', 'cuda:1']
    >>> plan_workers(4, 0, nthreads_per_trial=8, tell=print)
    nthreads_per_trial=8 is more than the 4 cores that may be used: one worker, slower than with 4 threads
    [WorkerSlot(device=None, num_threads=8)]
    """
    _check(num_cpus, num_gpus, nthreads_per_trial, ngpus_per_trial, num_workers, num_trials, max_threads)
    tell = tell or _ignore
    if nthreads_per_trial is not None and nthreads_per_trial > num_cpus:
        tell(
            f"nthreads_per_trial={nthreads_per_trial} is more than the {_count(num_cpus, 'core')} that may be used: "
            f"one worker, slower than with {_count(num_cpus, 'thread')}"
        )
    num_by_gpu, gpu_step = _gpu_places(num_gpus, ngpus_per_trial, tell)
    num_by_cpu = max(1, num_cpus // (nthreads_per_trial or 1))
    num_places = min(num_by_gpu, num_by_cpu)
    wanted = num_workers or (num_by_gpu if gpu_step else num_by_cpu if nthreads_per_trial else 1)
    wanted = min(wanted, num_trials or math.inf)
    if wanted > num_places and (num_workers or gpu_step):
        threads = f", for {_count(nthreads_per_trial, 'thread')} a trial" if nthreads_per_trial else ""
        gpus = f" and {_count(num_gpus, 'GPU')}" if num_by_gpu < math.inf else ""
        tell(
            f"{_count(num_places, 'worker')} instead of {_number(wanted)}: "
            f"{_count(num_cpus, 'core')}{gpus} may be used{threads}"
        )
    num = int(min(wanted, num_places))
    if nthreads_per_trial is not None:
        num_threads = nthreads_per_trial
    else:
        num_threads = min(num_cpus // num, max_threads or num_cpus)
    if gpu_step:
        return [WorkerSlot(f"cuda:{place * gpu_step % num_gpus}", num_threads) for place in range(num)]
    return [WorkerSlot("cpu" if ngpus_per_trial == 0 else None, num_threads)] * num


def local_slots(
    num_gpus: int,
    nthreads_per_trial: int | None = None,
    ngpus_per_trial: float | None = None,
    num_workers: int | None = None,
    *,
    num_trials: int | None = None,
    tell: Callable[[str], object] | None = None,
) -> list[WorkerSlot]:
    """Divide this machine among workers; see `plan_workers`.

    A number in ``OMP_NUM_THREADS`` is obeyed where `nthreads_per_trial` is not given.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list has a number for each nesting level
    return plan_workers(
        num_usable_cpus(),
        num_gpus,
        nthreads_per_trial,
        ngpus_per_trial,
        num_workers,
        num_trials=num_trials,
        max_threads=int(given) if given.isdecimal() and int(given) else None,
        tell=tell,
    )


def _gpu_places(num_gpus: int, per_trial: float | None, tell: Callable[[str], object]) -> tuple[float, int]:
    """Return for how many workers there are GPUs, and how far their GPUs are apart; (inf, 0) for the CPU."""
    if per_trial == 0:
        return math.inf, 0
    if per_trial is not None and per_trial > num_gpus:
        instead = "a trial has all of it" if num_gpus else "trials train without"
        tell(f"ngpus_per_trial={_number(per_trial)}, and this machine has {_count(num_gpus, 'CUDA device')}: {instead}")
    if num_gpus == 0:
        return math.inf, 0
    if per_trial is None or per_trial <= 1:
        num_sharing = math.floor(1 / (per_trial or 1) + 1e-9)  # 1 / 0.1 and the like must not fall short
        return num_gpus * num_sharing, 1
    step = min(int(per_trial), num_gpus)
    if step > 1:
        tell(f"ngpus_per_trial={_number(per_trial)}: a trial trains on one of its {step}, and the rest stays free")
    return num_gpus // step, step


def _check(
    num_cpus: int,
    num_gpus: int,
    nthreads_per_trial: int | None,
    ngpus_per_trial: float | None,
    num_workers: int | None,
    num_trials: int | None,
    max_threads: int | None,
) -> None:
    _check_whole("num_cpus", num_cpus, 1)
    _check_whole("num_gpus", num_gpus, 0)
    for name, number in (
        ("nthreads_per_trial", nthreads_per_trial),
        ("num_workers", num_workers),
        ("num_trials", num_trials),
        ("max_threads", max_threads),
    ):
        if number is not None:
            _check_whole(name, number, 1)
    if ngpus_per_trial is None:
        return
    is_number = isinstance(ngpus_per_trial, int | float) and not isinstance(ngpus_per_trial, bool)
    if not is_number or not (ngpus_per_trial == 0 or 1e-3 <= ngpus_per_trial < math.inf):
        raise HyperparameterError(f"ngpus_per_trial was given {ngpus_per_trial!r}; expected 0, 0.5, 1, 2 or the like")
    if ngpus_per_trial > 1 and ngpus_per_trial != int(ngpus_per_trial):
        raise HyperparameterError(
            f"ngpus_per_trial was given {ngpus_per_trial!r}; expected a whole number, or a part of one GPU up to 1"
        )


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise HyperparameterError(f"{name} was given {value!r}; expected a whole number, {least} or more")


def _ignore(text: str) -> None:
    """Tell nobody."""


def _count(num: float, what: str) -> str:
    return f"{_number(num)} {what}" if num == 1 else f"{_number(num)} {what}s"


def _number(num: float) -> str:
    return f"{num:g}"
