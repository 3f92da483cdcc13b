"""Find the last spatial layer of a network: the last layer whose output has positions in the image.

Layers of networks represent images as (channels, height, width), as (height, width, channels), or as a sequence of
tokens after a few prefix tokens. Spatial layers are recognized by the shape of their output, not by the name of the
network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

MIN_SIDE = 7  # preferred minimum of positions along a side: that of the last layer of common networks

_NUM_COPIES = 3  # batch size of the trial pass; windows and heads folded into the batch give other sizes

# The output of a linear layer is queries, keys or hidden units; the others change nothing, or are attention.
_IGNORED = (torch.nn.Linear, torch.nn.Identity, torch.nn.Dropout, torch.nn.Softmax)

Score = Callable[[torch.Tensor], torch.Tensor]
"""From a network's outputs of shape (num_images, num_outputs) to one number for each image."""


@dataclass(frozen=True)
class Layout:
    """Layout of the spatial positions in a tensor."""

    # the order of its dimensions; tokens have the shape (num_images, num_tokens, channels)
    kind: Literal["NCHW", "NHWC", "tokens"]
    side: int  # positions along each side of the image
    num_prefix: int = 0  # number of prefix tokens without position, such as a class token

    @classmethod
    def of(cls, shape: tuple[int, ...], num_images: int, num_prefix: int = 0) -> Layout | None:
        """Return the layout of a tensor of square images; None if its shape fits none."""
        if not shape or shape[0] != num_images:
            return None
        if len(shape) == 4:
            if shape[2] == shape[3]:
                return cls("NCHW", shape[2])
            return cls("NHWC", shape[1]) if shape[1] == shape[2] else None
        if len(shape) == 3:
            for prefix in dict.fromkeys((num_prefix, 0, 1)):
                side = math.isqrt(max(0, shape[1] - prefix))
                if side and side * side == shape[1] - prefix:
                    return cls("tokens", side, prefix)
        return None

    def as_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of this layout with the shape (num_images, channels, side, side)."""
        if self.kind == "tokens":
            return x[:, self.num_prefix :].transpose(1, 2).reshape(len(x), -1, self.side, self.side)
        return x if self.kind == "NCHW" else x.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class SpatialLayer:
    """A layer whose output has spatial positions."""

    name: str  # as in ``network.named_modules()``
    module: torch.nn.Module  # the layer
    call: int  # number of the call in a forward pass, for layers that are used several times
    layout: Layout  # layout of its output

    def maps_and_gradients(
        self, network: torch.nn.Module, x_BCHW: torch.Tensor, score: Score
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output of the layer for a batch, and the gradients of the scores by it."""
        kept: list[torch.Tensor] = []
        num_calls = 0

        def cut(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
            nonlocal num_calls
            num_calls += 1
            if num_calls != self.call + 1:
                return None
            torch.set_grad_enabled(True)  # only the layers after this one need a graph
            kept.append(output.detach().requires_grad_())
            return kept[0].clone()  # the next layer may work in place

        hook = self.module.register_forward_hook(cut)
        try:
            with torch.no_grad():
                scores = score(network.forward(x_BCHW))  # the original forward of a compiled network as well
                (gradients,) = torch.autograd.grad(scores.sum(), kept[0])
        finally:
            hook.remove()
        return self.layout.as_maps(kept[0].detach()).float(), self.layout.as_maps(gradients).float()


def last_spatial_layer(network: torch.nn.Module, x_BCHW: torch.Tensor, score: Score) -> SpatialLayer | None:
    """Return the last spatial layer through which all paths to the score lead; None if no layer is spatial.

    With a class token it is before the last attention, after which the score does not depend on patch tokens. A layer
    that a skip connection bypasses, or with less than `MIN_SIDE` positions along a side, is used only without another.
    """
    x_BCHW = x_BCHW[:1].repeat(_NUM_COPIES, 1, 1, 1).requires_grad_()
    num_prefix = getattr(network, "num_prefix_tokens", 0)
    num_prefix = num_prefix if isinstance(num_prefix, int) else 0
    with torch.enable_grad(), _recorded_outputs(network) as recorded:
        scores = score(network.forward(x_BCHW))
        candidates = [
            (SpatialLayer(name, module, call, layout), output, node)
            for name, module, call, output, node in recorded
            if (layout := Layout.of(tuple(output.shape), _NUM_COPIES, num_prefix))
            and 1 < layout.side <= x_BCHW.shape[2]
        ]
        if not candidates or not scores.requires_grad:
            return None
        gradients = torch.autograd.grad(
            scores.sum(), [output for _, output, _ in candidates], allow_unused=True, retain_graph=True
        )
    usable = [
        (layer, node)
        for (layer, _, node), gradient in zip(candidates, gradients, strict=True)
        if gradient is not None and bool((layer.layout.as_maps(gradient) != 0).any())
    ]
    usable.reverse()  # last layer first
    large = [(layer, node) for layer, node in usable if layer.layout.side >= MIN_SIDE]
    through = (layer for layer, node in large if not _bypasses(scores.grad_fn, node, x_BCHW))
    return next(through, next((layer for layer, _ in large + usable), None))


def _bypasses(end: Any, node: Any, x_BCHW: torch.Tensor) -> bool:
    """Return whether a path of the autograd graph leads from its end to the images without passing a node."""
    seen, waiting = {node}, [end]
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            continue
        if getattr(one, "variable", None) is x_BCHW:
            return True
        seen.add(one)
        waiting += [function for function, _ in one.next_functions]
    return False


@contextmanager
def _recorded_outputs(network: torch.nn.Module) -> Iterator[list[tuple[str, torch.nn.Module, int, torch.Tensor, Any]]]:
    """Record the output of each called layer and its autograd node, in the order in which the calls return."""
    recorded: list[tuple[str, torch.nn.Module, int, torch.Tensor, Any]] = []
    calls: dict[str, int] = {}
    hooks = []

    def hook_for(name: str) -> Callable[[torch.nn.Module, Any, Any], None]:
        def record(module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            call = calls[name] = calls.get(name, -1) + 1
            if isinstance(output, torch.Tensor) and output.is_floating_point() and output.requires_grad:
                recorded.append((name, module, call, output, output.grad_fn))

        return record

    for name, module in network.named_modules():
        if name and not isinstance(module, _IGNORED):
            hooks.append(module.register_forward_hook(hook_for(name)))
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()
