"""Single steps of a network in some numerics: what they take, and whether what they compute is sound."""

from __future__ import annotations

import copy
import gc
import math
import time
from dataclasses import dataclass
from typing import Literal

import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional

from saccade.models.network import classifier_parameters
from saccade.numerics.device import Numerics
from saccade.numerics.memory import machine

# 16 bits were measured to change the loss of a batch of noise by 0.5 % at most, and the norm of its gradient by 4 %
# (batch statistics of 4 images, 17 networks); what overflows, or loses what a network computes, is far from that.
MAX_LOSS_CHANGE = 0.05
MAX_GRADIENT_CHANGE = 0.25
MAX_OUTPUT_CHANGE = 0.05
_LOSS_SCALE = 128.0  # float16 has no room for small gradients

Purpose = Literal["training", "inference"]


@dataclass(frozen=True)
class Workload:
    """What the arithmetic is for.

    Attributes
    ----------
    purpose : str
        ``"training"`` or ``"inference"``.
    network : str
        A name for what is computed: timm's, or `structure_name` of others.
    shape : tuple of int
        Of a batch: (images, channels, height, width).
    """

    purpose: Purpose
    network: str
    shape: tuple[int, int, int, int]

    def key(self, candidates: list[Numerics]) -> str:
        """Return the name under which a choice among these is remembered on this machine."""
        among = "; ".join(map(str, candidates))
        shape = "x".join(map(str, self.shape))
        return f"{self.purpose} | {self.network} | {shape} | {machine(candidates[0].device)} | {among}"


Result = tuple[float, float, float, torch.Tensor]
"""Of a step: its seconds, the loss, the norm of the gradient, and the outputs."""


class Bench:
    """A copy of a network, and a batch of noise for it.

    Parameters
    ----------
    network : torch.nn.Module
        What is copied.
    workload : Workload
        Says whether a step is a step of training, or a prediction.
    part : float
        How much of a batch to take.
    """

    def __init__(self, network: nn.Module, workload: Workload, part: float = 1.0) -> None:
        self._network = copy.deepcopy(network)
        self._is_training = workload.purpose == "training"
        self._numerics: Numerics | None = None
        device = next(self._network.parameters()).device
        num, *sides = workload.shape
        x_BCHW = torch.randn(max(min(2, num), round(num * part)), *sides).to(device)  # one has no batch statistics
        self._x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)  # as `Batches` are
        self._targets: torch.Tensor | None = None
        for module in self._network.modules():  # without dropout, so that all candidates compute the same
            if isinstance(module, nn.modules.dropout._DropoutNd | DropPath):
                module.eval()
            if isinstance(getattr(module, "drop_rate", None), float):  # which timm's networks pass to a function
                module.drop_rate = 0.0  # type: ignore[assignment]
        head = classifier_parameters(self._network)
        with torch.no_grad():
            for name, parameter in self._network.named_parameters():
                if name in head and parameter.ndim > 1 and not parameter.any():
                    parameter.normal_(0.0, 0.02)  # from zero, it would hide all that the body computes

    def step(self, numerics: Numerics) -> Result:
        """Take one step; return its seconds, the loss, the norm of the gradient, and the outputs.

        Without training there is no gradient, and both figures are 0.
        """
        self._place(numerics)
        torch.manual_seed(0)
        with numerics.threads():
            return self._training_step(numerics) if self._is_training else self._prediction(numerics)

    def _place(self, numerics: Numerics) -> None:
        before, self._numerics = self._numerics, numerics
        if before is not None and before.compiled and not numerics.compiled:
            self._network = copy.deepcopy(self._network)  # a copy is not compiled
        if before is None or (before.memory_format, before.compiled) != (numerics.memory_format, numerics.compiled):
            numerics.place(self._network)

    def _prediction(self, numerics: Numerics) -> Result:
        clock = _Clock(numerics.device)
        with torch.inference_mode(), numerics.autocast():
            outputs = _tensor_of(self._network(self._x_BCHW)).float()
        return clock.seconds(), 0.0, 0.0, outputs

    def _training_step(self, numerics: Numerics) -> Result:
        scale = _LOSS_SCALE if numerics.dtype is torch.float16 else 1.0
        clock = _Clock(numerics.device)
        self._network.zero_grad()
        with numerics.autocast():
            outputs = _tensor_of(self._network(self._x_BCHW)).float()
        if self._targets is None:
            self._targets = torch.randn_like(outputs)
        loss = functional.mse_loss(outputs, self._targets)
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        seconds = clock.seconds()
        gradients = [parameter.grad for parameter in self._network.parameters() if parameter.grad is not None]
        return seconds, loss.item(), nn.utils.get_total_norm(gradients).item() / scale, outputs.detach()

    def clear(self) -> None:
        """Give the memory back that measuring took."""
        is_cuda = self._x_BCHW.is_cuda
        del self._network, self._x_BCHW, self._targets
        if is_cuda:
            gc.collect()
            torch.cuda.empty_cache()


class _Clock:
    """The seconds that a device needs from now on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Where one thread does it all, its own time: what other programs take of the machine is no candidate's fault.
        is_alone = device.type == "cpu" and torch.get_num_threads() == 1
        self._now = time.thread_time if is_alone else time.perf_counter
        self._wait()
        self._start_s = self._now()

    def seconds(self) -> float:
        """Return how many they were when all that the device was told is done."""
        self._wait()
        return self._now() - self._start_s

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()


def _tensor_of(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]  # some give the loss of a second head, too


def is_sound(result: Result, reference: Result) -> bool:
    """Say whether a step computed what the reference did, but for rounding.

    Parameters
    ----------
    result, reference
        What `Bench.step` returned.

    Examples
    --------
    >>> is_sound((0.1, 2.31, 0.5, torch.ones(2)), (0.2, 2.30, 0.5, torch.ones(2)))
    True
    >>> is_sound((0.1, math.nan, 0.5, torch.ones(2)), (0.2, 2.30, 0.5, torch.ones(2)))
    False
    """
    _, loss, norm, outputs = result
    _, loss_32, norm_32, outputs_32 = reference
    if not (math.isfinite(loss) and math.isfinite(norm) and bool(outputs.isfinite().all())):
        return False
    if norm_32:  # of training; batch statistics of a few images say little of single outputs
        is_near = abs(loss - loss_32) <= MAX_LOSS_CHANGE * abs(loss_32)
        return is_near and abs(norm - norm_32) <= MAX_GRADIENT_CHANGE * norm_32
    change = (outputs - outputs_32).norm().item()
    return bool(change <= MAX_OUTPUT_CHANGE * outputs_32.norm().item())
