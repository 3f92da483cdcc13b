"""Where in a network there is still a picture: the last layer whose output has places in the image.

Networks hold images as (channels, height, width), as (height, width, channels), or as a sequence of tokens with a few
in front that are no places. So each layer is asked by its output's shape, not each family of networks by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

LEAST_SIDE = 7
"""Places along a side that a layer must have to tell where things are: as many as common networks end with."""

_NUM_COPIES = 3  # of an image in a trial pass; windows and heads that are put into the batch give other numbers

# What comes of a linear layer are queries, keys or hidden units; the others change nothing, or hold attention.
_NOT_ASKED = (torch.nn.Linear, torch.nn.Identity, torch.nn.Dropout, torch.nn.Softmax)

Score = Callable[[torch.Tensor], torch.Tensor]
"""From a network's outputs of shape (num_images, num_outputs) to one number for each image."""


@dataclass(frozen=True)
class Layout:
    """How a tensor holds the places of an image.

    Attributes
    ----------
    kind : {"NCHW", "NHWC", "tokens"}
        The order of its dimensions; tokens have the shape (num_images, num_tokens, channels).
    side : int
        Places along each side of the image.
    num_prefix : int
        Tokens in front that are no places, such as a class token.
    """

    kind: Literal["NCHW", "NHWC", "tokens"]
    side: int
    num_prefix: int = 0

    @classmethod
    def of(cls, shape: tuple[int, ...], num_images: int, num_prefix: int = 0) -> Layout | None:
        """Return how a tensor of that shape holds square images; None when it does not.

        Parameters
        ----------
        shape : tuple of int
            Of the tensor.
        num_images : int
            How many images there are in the batch.
        num_prefix : int
            Tokens in front, where the network says so.

        Examples
        --------
        >>> Layout.of((2, 512, 7, 7), 2), Layout.of((2, 7, 7, 768), 2)
        (Layout(kind='NCHW', side=7, num_prefix=0), Layout(kind='NHWC', side=7, num_prefix=0))
        >>> Layout.of((2, 197, 192), 2, num_prefix=1)
        Layout(kind='tokens', side=14, num_prefix=1)
        >>> Layout.of((2, 1000), 2)
        """
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
        """Return such a tensor in the shape (num_images, channels, side, side)."""
        if self.kind == "tokens":
            return x[:, self.num_prefix :].transpose(1, 2).reshape(len(x), -1, self.side, self.side)
        return x if self.kind == "NCHW" else x.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class SpatialLayer:
    """A layer whose output has places, and depends on them.

    Attributes
    ----------
    name : str
        As in ``network.named_modules()``.
    module : torch.nn.Module
        The layer.
    call : int
        Which of its calls in a pass, for layers that are used several times.
    layout : Layout
        Of its output.
    """

    name: str
    module: torch.nn.Module
    call: int
    layout: Layout

    def maps_and_gradients(
        self, network: torch.nn.Module, x_BCHW: torch.Tensor, score: Score
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the layer's output for a batch, and the gradients of the scores by it.

        Returns
        -------
        maps, gradients : torch.Tensor, shape (num_images, channels, side, side)
            In float32.
        """
        kept: list[torch.Tensor] = []
        num_calls = 0

        def cut(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
            nonlocal num_calls
            num_calls += 1
            if num_calls != self.call + 1:
                return None
            torch.set_grad_enabled(True)  # only what comes after needs a graph
            kept.append(output.detach().requires_grad_())
            return kept[0].clone()  # since the next layer may work in place

        hook = self.module.register_forward_hook(cut)
        try:
            with torch.no_grad():
                scores = score(network.forward(x_BCHW))  # as it is written, also where it was compiled
                (gradients,) = torch.autograd.grad(scores.sum(), kept[0])
        finally:
            hook.remove()
        return self.layout.as_maps(kept[0].detach()).float(), self.layout.as_maps(gradients).float()


def last_spatial_layer(network: torch.nn.Module, x_BCHW: torch.Tensor, score: Score) -> SpatialLayer | None:
    """Return the last layer with places through which all goes that the score depends on; None where none has places.

    The score of a network with a class token does not depend on the patches' tokens any more after its last attention,
    so it is a layer before that. A layer in a branch, beside which something passes, is taken only where there is no
    other; and one of less than `LEAST_SIDE` places along a side likewise.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    x_BCHW : torch.Tensor, shape (num_images, channels, side, side)
        An image to try; the first one counts.
    score : callable
        What the layer is wanted for.
    """
    x_BCHW = x_BCHW[:1].repeat(_NUM_COPIES, 1, 1, 1).requires_grad_()
    num_prefix = getattr(network, "num_prefix_tokens", 0)
    num_prefix = num_prefix if isinstance(num_prefix, int) else 0
    with torch.enable_grad(), _outputs_noted(network) as noted:
        scores = score(network.forward(x_BCHW))
        candidates = [
            (SpatialLayer(name, module, call, layout), output, node)
            for name, module, call, output, node in noted
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
    usable.reverse()  # the last one first
    large = [(layer, node) for layer, node in usable if layer.layout.side >= LEAST_SIDE]
    through = (layer for layer, node in large if not _passes_by(scores.grad_fn, node, x_BCHW))
    return next(through, next((layer for layer, _ in large + usable), None))


def _passes_by(end: Any, node: Any, x_BCHW: torch.Tensor) -> bool:
    """Say whether a way leads through the graph from its end to the images that does not go by a node."""
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
def _outputs_noted(network: torch.nn.Module) -> Iterator[list[tuple[str, torch.nn.Module, int, torch.Tensor, Any]]]:
    """Note the output of each layer that is called meanwhile, and its node in the graph, in the order of their ends."""
    noted: list[tuple[str, torch.nn.Module, int, torch.Tensor, Any]] = []
    calls: dict[str, int] = {}
    hooks = []

    def noting(name: str) -> Callable[[torch.nn.Module, Any, Any], None]:
        def note(module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            call = calls[name] = calls.get(name, -1) + 1
            if isinstance(output, torch.Tensor) and output.is_floating_point() and output.requires_grad:
                noted.append((name, module, call, output, output.grad_fn))

        return note

    for name, module in network.named_modules():
        if name and not isinstance(module, _NOT_ASKED):
            hooks.append(module.register_forward_hook(noting(name)))
    try:
        yield noted
    finally:
        for hook in hooks:
            hook.remove()
