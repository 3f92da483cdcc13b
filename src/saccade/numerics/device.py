"""Devices, and the number format and memory format on them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of that name, or the best available: CUDA, then Apple's MPS, then the CPU."""
    if name is not None:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def half_precision(device: torch.device) -> torch.dtype:
    """Return the 16-bit format of a device: bfloat16, or float16 on GPUs that only emulate bfloat16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def is_half_native(device: torch.device) -> bool:
    """Return whether a device supports 16-bit arithmetic in hardware."""
    if device.type == "cuda":
        return True
    if device.type != "cpu":
        return False
    # torch has no public function for this; where these are missing, the answer is no.
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    if any(check() for check in checks if check is not None):
        return True
    is_arm = torch.backends.cpu.get_cpu_capability().startswith(("SVE", "NEON"))
    onednn = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return is_arm and onednn is not None and bool(onednn())


@dataclass(frozen=True)
class Numerics:
    """Number format and memory format of the arithmetic; weights, batch statistics and losses stay in float32."""

    device: torch.device
    dtype: torch.dtype = torch.float32  # or bfloat16, or float16, which requires gradient scaling
    channels_last: bool = True  # memory format of images and of the weights of convolutions
    compiled: bool = False  # by `torch.compile`
    num_threads: int | None = None  # of the CPU; None is all that a trial may use
    engine: str = "torch"  # or "onnxruntime", for networks whose weights do not change: `saccade.numerics.engine`

    @classmethod
    def choose(
        cls, device: torch.device, amp: bool | None, channels_last: bool | None = None, compiled: bool = False
    ) -> Numerics:
        """Return the default numerics of a device; arguments that are not None override it.

        By default there are 16 bits on a CUDA device, and channels last, which was faster for nearly every network
        measured on CPUs, and is on GPUs with 16 bits.
        """
        is_half = device.type == "cuda" if amp is None else amp
        dtype = half_precision(device) if is_half else torch.float32
        return cls(device, dtype, channels_last is not False, compiled)

    def __str__(self) -> str:
        parts = [str(self.dtype).removeprefix("torch."), "channels last" if self.channels_last else "channels first"]
        parts += ["compiled"] * self.compiled
        parts += [] if self.num_threads is None else [f"{self.num_threads} threads"]
        parts += [] if self.engine == "torch" else [self.engine]
        return ", ".join(parts)

    @property
    def memory_format(self) -> torch.memory_format:
        """Torch's memory format."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context of forward passes."""
        if self.dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def threads(self) -> contextlib.AbstractContextManager[None]:
        """Return a context with this number of threads, limited by the current one."""
        return cpu_threads(self.num_threads and min(self.num_threads, torch.get_num_threads()))

    def place(self, network: torch.nn.Module) -> torch.nn.Module:
        """Move a network to the device and memory format, in place; return it."""
        network = network.to(self.device).to(memory_format=self.memory_format)
        if self.compiled:
            network.compile()
        return network

    def to_json(self) -> dict[str, Any]:
        """Return a record without the device, for `from_json`."""
        fields = asdict(self)
        del fields["device"]
        return {**fields, "dtype": str(self.dtype).removeprefix("torch.")}

    @classmethod
    def from_json(cls, record: dict[str, Any], device: torch.device) -> Numerics:
        """Return the numerics of a record on a device."""
        return cls(device, **{**record, "dtype": _DTYPES[record["dtype"]]})


_is_forked = False  # whether this process was forked, so that threads of OpenMP may be missing


@contextlib.contextmanager
def cpu_threads(num: int | None) -> Iterator[None]:
    """Context in which torch uses this number of threads; None changes nothing."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if _is_forked else num or before)
        yield
    finally:
        torch.set_num_threads(before)


FEWER_THREADS_GAIN, MEASURED_S = 1.25, 0.1  # how many times as fast fewer threads must be, because of noise; and time


def useful_threads() -> int:
    """Return how many CPU threads are the fastest now: torch's number, or fewer beside other busy programs.

    Threads wait for each other after every layer. If another program uses one of their cores, that is a wait for the
    operating system's scheduler, and a network takes many times as long as on one thread. Small convolutions are timed
    with each number, for about 0.1 s.
    """
    most = torch.get_num_threads()
    numbers = sorted({most, max(1, most - 1), max(1, most // 2), 1}, reverse=True)
    if most == 1:
        return 1
    x_BCHW = torch.ones(2, 16, 56, 56).contiguous(memory_format=torch.channels_last)
    weight = torch.full((16, 16, 3, 3), 1 / 144)
    seconds = dict.fromkeys(numbers, 0.0)
    with torch.inference_mode():
        start_of_all_s = time.perf_counter()
        for round_ in range(4):
            if round_ > 1 and time.perf_counter() - start_of_all_s > MEASURED_S:
                break
            for number in numbers:
                with cpu_threads(number):
                    start_s = time.perf_counter()
                    for _ in range(20):
                        x_BCHW = torch.nn.functional.conv2d(x_BCHW, weight, padding=1)
                    seconds[number] += (time.perf_counter() - start_s) * bool(round_)  # the first round is set-up
    fastest = min(numbers, key=seconds.__getitem__)
    return fastest if FEWER_THREADS_GAIN * seconds[fastest] < seconds[most] else most


def _after_fork() -> None:
    """Continue with one thread: OpenMP's threads do not survive a fork, and torch would wait for them for ever."""
    global _is_forked
    _is_forked = True
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
