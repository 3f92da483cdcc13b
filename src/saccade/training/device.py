"""Which device, and which number format on it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of that name, or the best one here: CUDA, then Apple's MPS, then the CPU."""
    if name is not None:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@dataclass(frozen=True)
class Numerics:
    """The number format of the arithmetic; weights, losses and sums stay in 32 bits.

    Attributes
    ----------
    device : torch.device
        Where the arithmetic is done.
    dtype : torch.dtype
        float32, bfloat16 or float16; float16 needs its gradients scaled.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32

    @classmethod
    def choose(cls, device: torch.device, amp: bool | None) -> Numerics:
        """Return the format for `device`: 16 bits when `amp` says so, or by itself on a CUDA device."""
        if not (device.type == "cuda" if amp is None else amp):
            return cls(device)
        if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            return cls(device, torch.float16)
        return cls(device, torch.bfloat16)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        if self.dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def place(self, network: torch.nn.Module) -> torch.nn.Module:
        """Move a network to the device, with the memory order that its convolutions are fastest in."""
        # Channels-last was the faster order for every network measured on CPUs, and is on GPUs with 16 bits.
        return network.to(self.device).to(memory_format=torch.channels_last)
