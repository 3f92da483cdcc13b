"""Networks built without drawing random weights that are overwritten next, which is most of the work of building."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_METHODS = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.erfinv_)
_NOT_RANDOM = ("constant_", "ones_", "zeros_", "eye_", "dirac_")

MAX_CALLS = 1000
"""Calls on one piece of memory after which something draws until it likes what it gets."""


class StillRandomError(Exception):
    """The network holds, or asks for, random numbers that were not drawn: build it in the plain way."""


class NothingDrawn(TorchFunctionMode):
    """Fill tensors with zeros, meanwhile and in this thread, where layers draw their first weights.

    Only the ways in which layers initialise themselves are meant, that is methods of tensors and `torch.nn.init`;
    ``torch.randn`` and the like draw as ever. No random number is taken from the generator by what does not draw.

    Examples
    --------
    >>> weight = torch.full((2,), 3.0)
    >>> with NothingDrawn() as nothing_drawn:
    ...     nn.init.normal_(weight)
    tensor([0., 0.])
    >>> nothing_drawn.check([("weight", weight)])
    Traceback (most recent call last):
    saccade.models.random_start.StillRandomError: weight
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: Counter[int] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what is called, unless it draws."""
        kwargs = kwargs or {}
        is_init = getattr(func, "__module__", None) == nn.init.__name__ and func.__name__ not in _NOT_RANDOM
        if not is_init and func not in _METHODS:
            return func(*args, **kwargs)
        tensor: torch.Tensor = args[0] if args else kwargs["tensor"]
        place = tensor.untyped_storage().data_ptr()
        self._calls[place] += 1
        if self._calls[place] > MAX_CALLS:
            raise StillRandomError("something waits for random numbers")
        with torch.no_grad():
            return tensor.zero_()

    def check(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """See that none of these tensors was to be drawn.

        Raises
        ------
        StillRandomError
            With the name of the first that was.
        """
        for name, tensor in tensors:
            if tensor.numel() and tensor.untyped_storage().data_ptr() in self._calls:
                raise StillRandomError(name)
