"""A batch in parts that are computed side by side, each in a stream: a thread that has its share of the CPU.

Threads that share each operation of a network wait for each other after each of them, of which there are hundreds, many
too small to be shared well. Threads that have images of their own wait once. Where a network computes each image by
itself, which it does in predictions, and in training while batch normalisation keeps its statistics, both give the same
numbers but for rounding. (Inference servers know this as throughput streams.)
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.models.parameter_sharing import twin_of
from saccade.numerics.device import Numerics

MOST_STREAMS = 8
"""Streams that are tried: Python itself runs in one of them at a time."""


def nums_of_streams(num_threads: int) -> list[int]:
    """Return into how many streams so many threads can be divided to advantage, besides one.

    Examples
    --------
    >>> [nums_of_streams(num_threads) for num_threads in (1, 2, 4, 32)]
    [[], [2], [2, 4], [2, 8]]
    """
    return sorted({2, min(num_threads, MOST_STREAMS)}) if num_threads > 1 else []


def computes_by_image(network: nn.Module) -> bool:
    """Say whether a network, in the mode it is in, makes of an image what it would without the others of a batch.

    Parameters
    ----------
    network : torch.nn.Module
        One that draws random numbers, or learns statistics, does not: a part would draw others, and learn by itself.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    >>> computes_by_image(network.train()), computes_by_image(network.eval())
    (False, True)
    """
    modules = list(network.modules())
    if any(isinstance(module, _BatchNorm) and module.running_mean is None for module in modules):
        return False
    learning = [module for module in modules if module.training]
    has_statistics = any("running" in name for module in learning for name, _ in module.named_buffers(recurse=False))
    return not has_statistics and not draws(learning)


def draws(modules: Iterable[nn.Module]) -> bool:
    """Say whether some modules drop something at random when they are trained."""
    rates = (getattr(module, name, None) for module in modules for name in ("p", "drop_prob", "drop_rate"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


class Forward:
    """A network's forward pass in some numerics, as a function of batches.

    With several streams, parts of a batch go through copies of the network that share its parameters. Make it anew when
    the network's mode has changed, or its tensors were replaced.

    Parameters
    ----------
    network : torch.nn.Module
        On its device.
    numerics : Numerics
        How to compute. With several streams, `computes_by_image` should be true.

    Examples
    --------
    >>> network = nn.Linear(2, 3)
    >>> forward = Forward(network, Numerics(torch.device("cpu"), num_streams=2))
    >>> forward(torch.ones(5, 2)).sum().backward()
    >>> network.bias.grad
    tensor([5., 5., 5.])
    """

    def __init__(self, network: nn.Module, numerics: Numerics) -> None:
        self._numerics = numerics
        self._networks = [network, *(twin_of(network) for _ in range(numerics.num_streams - 1))]
        self._learning = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def __call__(self, x_BCHW: torch.Tensor) -> Any:
        """Return what the network says to a batch."""
        num_parts = min(len(self._networks), len(x_BCHW))
        if num_parts < 2:
            return self._forward(self._networks[0], x_BCHW)
        parts = x_BCHW.tensor_split(num_parts)
        if torch.is_grad_enabled() and self._learning:
            return _InStreams.apply(self, parts, *self._learning)
        said = self.side_by_side(self._forward, self._networks, parts)
        return tuple(map(torch.cat, zip(*said, strict=True))) if isinstance(said[0], tuple) else torch.cat(said)

    def _forward(self, network: nn.Module, x_BCHW: torch.Tensor) -> Any:
        with self._numerics.autocast():
            return network(x_BCHW)

    def side_by_side(self, function: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
        """Return what a function makes of arguments, of which each stream has one, in the mode of this thread."""
        is_inference, has_gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def in_mode(*own: Any) -> Any:
            with torch.inference_mode(is_inference), torch.set_grad_enabled(has_gradients):
                return function(*own)

        num_streams, num_threads = self._numerics.num_streams, torch.get_num_threads()
        return list(_streams(num_streams, max(1, num_threads // num_streams)).map(in_mode, *arguments))

    def outputs_with_gradients(self, parts: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """Return the outputs of parts of a batch, each at the end of a graph of its own."""
        with torch.enable_grad():
            return self.side_by_side(self._forward, self._networks, parts)


class _InStreams(torch.autograd.Function):
    """The forward and the backward pass of the parts of a batch: for all else, one function of the parameters."""

    @staticmethod
    def forward(ctx: Any, forward: Forward, parts: tuple[torch.Tensor, ...], *parameters: nn.Parameter) -> torch.Tensor:
        ctx.graphs, ctx.run, ctx.parameters = forward.outputs_with_gradients(parts), forward, parameters
        return torch.cat([outputs.detach() for outputs in ctx.graphs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        def gradients(outputs: torch.Tensor, of_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            found: tuple[torch.Tensor | None, ...]
            found = torch.autograd.grad(outputs, ctx.parameters, of_outputs, allow_unused=True)
            return found

        of_parts = torch.split(gradient, [len(outputs) for outputs in ctx.graphs])
        found = ctx.run.side_by_side(gradients, ctx.graphs, of_parts)
        # In the order of the parts, so that the same numbers come each time.
        return None, None, *map(_sum, zip(*found, strict=True))


def _sum(gradients: tuple[torch.Tensor | None, ...]) -> torch.Tensor | None:
    used = [gradient for gradient in gradients if gradient is not None]
    return functools.reduce(torch.add, used) if used else None  # not in place: two parameters may have the same one


@functools.cache
def _streams(num_streams: int, num_threads: int) -> ThreadPoolExecutor:
    """Return threads, each of which shares its operations among so many."""
    before = torch.get_num_threads()
    ready = threading.Barrier(num_streams + 1)

    def prepare() -> None:
        torch.get_num_threads()  # a thread takes over its first number of threads late, on being asked for it
        torch.set_num_threads(num_threads)
        ready.wait()

    pool = ThreadPoolExecutor(num_streams, thread_name_prefix="saccade-stream")
    for _ in range(num_streams):
        pool.submit(prepare)
    ready.wait()
    torch.set_num_threads(before)  # what threads begin with that come later
    return pool


if hasattr(os, "register_at_fork"):  # a child has none of these threads
    os.register_at_fork(after_in_child=_streams.cache_clear)
