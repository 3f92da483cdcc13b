"""Building networks quickly, and what timm hides when it loads weights."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

_RANDOM_METHODS = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.erfinv_)
_CONSTRUCTORS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_CONSTANT_INITS = ("constant_", "ones_", "zeros_", "eye_", "dirac_")

MAX_CALLS = 1000
"""Draws into one tensor after which an initialiser is taken to be rejection sampling, which never ends on zeros."""


class RandomValuesNeededError(Exception):
    """The network needs random values that `SkipInit` did not draw; build it without `SkipInit`."""


class SkipInit(TorchFunctionMode):
    """Context in which layers of this thread are initialised with zeros instead of random numbers.

    Drawing initial weights that are overwritten next is most of the work of building a network: 0.3 of 0.33 s for
    resnet50. Only random methods of tensors and `torch.nn.init` are replaced; ``torch.randn`` and the like are not. The
    state of the random generator does not change.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: Counter[int] = Counter()  # by the address of the tensor's memory

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, unless it draws random numbers into a tensor."""
        kwargs = kwargs or {}
        is_init = getattr(func, "__module__", None) == nn.init.__name__ and func.__name__ not in _CONSTANT_INITS
        if not is_init and func not in _RANDOM_METHODS:
            return func(*args, **kwargs)
        tensor: torch.Tensor = args[0] if args else kwargs["tensor"]
        address = tensor.untyped_storage().data_ptr()
        self._calls[address] += 1
        if self._calls[address] > MAX_CALLS:
            raise RandomValuesNeededError("an initialiser draws until the values suit it")
        with torch.no_grad():
            return tensor.zero_()

    def check(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Raise a RandomValuesNeededError with the name of the first of these tensors that should have been random."""
        for name, tensor in tensors:
            if tensor.numel() and tensor.untyped_storage().data_ptr() in self._calls:
                raise RandomValuesNeededError(name)


class AllocationLimit(TorchFunctionMode):
    """Context in which the tensors that this thread makes take at most `max_bytes`; else a MemoryError is raised."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._num_left = max_bytes

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        result = func(*args, **(kwargs or {}))
        if func in _CONSTRUCTORS:
            self._num_left -= result.nbytes
            if self._num_left < 0:
                raise MemoryError("the network is larger than its weights")
        return result


@contextmanager
def watch_loading() -> Iterator[dict[nn.Module, tuple[list[str], list[str]]]]:
    """Record missing and unexpected keys of the modules that are built and loaded within this context.

    timm loads a file leniently when its head is not wanted, and only logs what was missing. The keys are those after
    timm's checkpoint filters, which may rename everything in the file.
    """
    loaded: dict[nn.Module, tuple[list[str], list[str]]] = {}
    handles: dict[nn.Module, Any] = {}

    def record(module: nn.Module, incompatible: Any) -> None:
        loaded[module] = (incompatible.missing_keys, incompatible.unexpected_keys)

    def watch(module: nn.Module, _name: str, _submodule: nn.Module | None) -> None:
        if module not in handles:
            handles[module] = module.register_load_state_dict_post_hook(record)  # type: ignore[no-untyped-call]

    def is_wanted(entry: logging.LogRecord) -> bool:
        return not entry.getMessage().startswith("Unexpected keys")  # they are counted here instead

    log = logging.getLogger("timm.models._builder")
    log.addFilter(is_wanted)
    registration = register_module_module_registration_hook(watch)
    try:
        yield loaded
    finally:
        registration.remove()
        log.removeFilter(is_wanted)
        for handle in handles.values():
            handle.remove()
