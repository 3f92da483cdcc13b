"""What a program shares with the libraries it calls, and gets back unchanged: random numbers and warning filters."""

from __future__ import annotations

import contextlib
import functools
import inspect
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type)

_lock = threading.Lock()
_num_inside = 0
_undo = contextlib.ExitStack()


@contextlib.contextmanager
def preserved_global_state() -> Iterator[None]:
    """Restore the state of `random`, NumPy and torch, and the warning filters, at the end of a block.

    Blocks may be nested and may run in several threads: the first one that begins saves the state, and the last one
    that ends restores it. Nothing is imported.

    Examples
    --------
    >>> random.seed(0)
    >>> with preserved_global_state():
    ...     random.seed(1)
    >>> random.random()
    0.8444218515250481
    """
    global _num_inside, _undo
    with _lock:
        if not _num_inside:
            _undo = _saved_state()
        _num_inside += 1
    try:
        yield
    finally:
        with _lock:
            _num_inside -= 1
            if not _num_inside:
                _undo.close()


def preserves_global_state(cls: _Class) -> _Class:
    """Decorate a class so that each of its public methods runs in `preserved_global_state`."""
    for name, value in list(vars(cls).items()):
        if name.startswith("_"):
            continue
        if isinstance(value, classmethod):
            setattr(cls, name, classmethod(_preserving(value.__func__)))
        elif inspect.isfunction(value):
            setattr(cls, name, _preserving(value))
    return cls


def _preserving(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def preserving(*args: Any, **kwargs: Any) -> Any:
        with preserved_global_state():
            return function(*args, **kwargs)

    return preserving


def _saved_state() -> contextlib.ExitStack:
    """Return a stack whose end restores the present state; of libraries that are not imported there is none."""
    undo = contextlib.ExitStack()
    undo.enter_context(warnings.catch_warnings())
    undo.callback(random.setstate, random.getstate())
    if numpy := sys.modules.get("numpy"):
        undo.callback(numpy.random.set_state, numpy.random.get_state())
    if torch := sys.modules.get("torch"):
        undo.callback(torch.set_rng_state, torch.get_rng_state())
        if torch.cuda.is_initialized():
            undo.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
        if torch.backends.mps.is_available():
            undo.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
    return undo
