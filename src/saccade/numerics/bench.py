"""Time single steps of a copy of a network, and compare what they compute with float32."""

from __future__ import annotations

import copy
import gc
import math
import time

import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional

from saccade.models.network import classifier_parameters
from saccade.numerics.device import Numerics

# Over 17 networks, 16 bits changed the loss of a batch of noise by at most 0.5 % and the norm of its gradient by 4 %
# (batch statistics of 4 images). Overflow and cancellation are far beyond these limits.
MAX_LOSS_CHANGE = 0.05
MAX_GRADIENT_CHANGE = 0.25
MAX_OUTPUT_CHANGE = 0.05
_LOSS_SCALE = 128.0  # small gradients underflow in float16

Result = tuple[float, float, float, torch.Tensor]  # seconds of a step, loss, norm of the gradient, outputs


class Bench:
    """A copy of a network with noise of `shape` (B, C, H, W); a step includes loss and backward if `is_training`."""

    def __init__(self, network: nn.Module, is_training: bool, shape: tuple[int, int, int, int]) -> None:
        self._network, self._is_training = copy.deepcopy(network), is_training
        self._numerics: Numerics | None = None
        device = next(self._network.parameters()).device
        self._x_BCHW = torch.randn(shape).to(device).contiguous(memory_format=torch.channels_last)  # as `Batches` are
        self._targets: torch.Tensor | None = None
        # Without dropout, so that all numerics compute the same.
        for module in self._network.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd | DropPath):
                module.eval()
            if isinstance(getattr(module, "drop_rate", None), float):  # timm's networks pass it to a function
                module.drop_rate = 0.0  # type: ignore[assignment]
        # A classifier layer of zeros would hide everything that the backbone computes.
        head = classifier_parameters(self._network)
        with torch.no_grad():
            for name, parameter in self._network.named_parameters():
                if name in head and parameter.ndim > 1 and not parameter.any():
                    parameter.normal_(0.0, 0.02)

    def step(self, numerics: Numerics) -> Result:
        """Take one step. In inference there is no gradient, and loss and norm are 0."""
        before, self._numerics = self._numerics, numerics
        if before is not None and before.compiled and not numerics.compiled:
            self._network = copy.deepcopy(self._network)  # a copy is not compiled
        if before is None or (before.memory_format, before.compiled) != (numerics.memory_format, numerics.compiled):
            numerics.place(self._network)
        torch.manual_seed(0)
        # On one thread, CPU time of this thread excludes what other programs take.
        is_alone = numerics.device.type == "cpu" and torch.get_num_threads() == 1
        now = time.thread_time if is_alone else time.perf_counter
        with numerics.threads():
            _synchronize(numerics.device)
            start_s = now()
            if not self._is_training:
                with torch.inference_mode():
                    outputs = self._forward(numerics)
                _synchronize(numerics.device)
                return now() - start_s, 0.0, 0.0, outputs
            scale = _LOSS_SCALE if numerics.dtype is torch.float16 else 1.0
            self._network.zero_grad()
            outputs = self._forward(numerics)
            if self._targets is None:
                self._targets = torch.randn_like(outputs)
            loss = functional.mse_loss(outputs, self._targets)
            (loss * scale).backward()  # type: ignore[no-untyped-call]
            _synchronize(numerics.device)
            seconds = now() - start_s
        gradients = [parameter.grad for parameter in self._network.parameters() if parameter.grad is not None]
        return seconds, loss.item(), nn.utils.get_total_norm(gradients).item() / scale, outputs.detach()

    def _forward(self, numerics: Numerics) -> torch.Tensor:
        with numerics.autocast():
            outputs = self._network(self._x_BCHW)
        # Some networks return the outputs of a second head as well.
        first: torch.Tensor = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
        return first.float()

    def clear(self) -> None:
        """Release the memory."""
        is_cuda = self._x_BCHW.is_cuda
        del self._network, self._x_BCHW, self._targets
        if is_cuda:
            gc.collect()
            torch.cuda.empty_cache()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def is_sound(result: Result, reference: Result) -> bool:
    """Return whether a step computed what the reference did, apart from rounding."""
    _, loss, norm, outputs = result
    _, loss_32, norm_32, outputs_32 = reference
    if not (math.isfinite(loss) and math.isfinite(norm) and bool(outputs.isfinite().all())):
        return False
    if norm_32:  # training, where batch statistics of a few images make single outputs unreliable
        is_near = abs(loss - loss_32) <= MAX_LOSS_CHANGE * abs(loss_32)
        return is_near and abs(norm - norm_32) <= MAX_GRADIENT_CHANGE * norm_32
    change = (outputs - outputs_32).norm().item()
    return bool(change <= MAX_OUTPUT_CHANGE * outputs_32.norm().item())
