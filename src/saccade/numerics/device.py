"""Which device, and which number format and memory order on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of that name, or the best one here: CUDA, then Apple's MPS, then the CPU."""
    if name is not None:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def half_precision(device: torch.device) -> torch.dtype:
    """Return the 16-bit format of a device: bfloat16, or float16 on GPUs that only emulate the former."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def is_half_native(device: torch.device) -> bool:
    """Say whether a device computes in 16 bits itself, so that it is worth trying; others only emulate it."""
    if device.type == "cuda":
        return True
    if device.type != "cpu":
        return False
    # torch has no public question for this; without an answer, no.
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    if any(check() for check in checks if check is not None):
        return True
    is_arm = torch.backends.cpu.get_cpu_capability().startswith(("SVE", "NEON"))
    onednn = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return is_arm and onednn is not None and bool(onednn())


@dataclass(frozen=True)
class Numerics:
    """The number format and memory order of the arithmetic; weights, batch statistics and losses stay in 32 bits.

    Attributes
    ----------
    device : torch.device
        Where the arithmetic is done.
    dtype : torch.dtype
        float32, bfloat16 or float16; float16 needs its gradients scaled.
    channels_last : bool
        Whether the channels of a pixel lie side by side, in images and in the weights of convolutions.
    compiled : bool
        Whether networks are compiled by `torch.compile`.
    num_threads : int or None
        CPU threads; None is all that there are, or that a trial may have.

    Examples
    --------
    >>> str(Numerics(torch.device("cpu"), torch.bfloat16))
    'bfloat16, channels last'
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    channels_last: bool = True
    compiled: bool = False
    num_threads: int | None = None

    @classmethod
    def choose(
        cls, device: torch.device, amp: bool | None, channels_last: bool | None = None, compiled: bool | None = None
    ) -> Numerics:
        """Return what is used on `device` where nothing was measured, or is fixed by the arguments that are not None.

        Parameters
        ----------
        device
            Where the arithmetic is done.
        amp
            16 bits or not; None is yes on a CUDA device.
        channels_last
            None is yes: it was the faster order for nearly every network measured on CPUs, and is on GPUs with 16 bits.
        compiled
            None is no.
        """
        is_half = device.type == "cuda" if amp is None else amp
        dtype = half_precision(device) if is_half else torch.float32
        return cls(device, dtype, channels_last is not False, compiled is True)

    def __str__(self) -> str:
        parts = [str(self.dtype).removeprefix("torch."), "channels last" if self.channels_last else "channels first"]
        parts += ["compiled"] * self.compiled
        parts += [] if self.num_threads is None else [f"{self.num_threads} threads"]
        return ", ".join(parts)

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory order as torch names it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        if self.dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def threads(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which torch has the threads that are meant, so far as it may have them."""
        return cpu_threads(self.num_threads and min(self.num_threads, torch.get_num_threads()))

    def place(self, network: torch.nn.Module) -> torch.nn.Module:
        """Move a network to the device, in the memory order; it is changed, and returned."""
        network = network.to(self.device).to(memory_format=self.memory_format)
        if self.compiled:
            network.compile()
        return network

    def to_json(self) -> dict[str, Any]:
        """Return all but the device, for `from_json`."""
        fields = asdict(self)
        del fields["device"]
        return {**fields, "dtype": str(self.dtype).removeprefix("torch.")}

    @classmethod
    def from_json(cls, record: dict[str, Any], device: torch.device) -> Numerics:
        """Return what `to_json` wrote, on a device.

        Raises
        ------
        KeyError, TypeError
            When it is no such record.
        """
        return cls(device, **{**record, "dtype": _DTYPES[record["dtype"]]})


@contextlib.contextmanager
def cpu_threads(num: int | None) -> Iterator[None]:
    """Give torch so many threads for the while; None leaves it as it is."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(num or before)
        yield
    finally:
        torch.set_num_threads(before)
