"""What a program shares with the libraries it calls, and gets back unchanged: random numbers, threads, filters."""

from __future__ import annotations

import contextlib
import inspect
import logging
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

_Class = TypeVar("_Class", bound=type)

_lock = threading.Lock()
_num_inside = 0
_undo = contextlib.ExitStack()


@contextlib.contextmanager
def preserved_global_state() -> Iterator[None]:
    """Restore random numbers, torch's number of threads, warning filters and logging levels at the end of a block.

    Blocks may be nested and may run in several threads: the first one that begins saves the state, and the last one
    that ends restores it. Nothing is imported.
    """
    global _num_inside, _undo
    with _lock:
        if not _num_inside:
            _undo = _saved_state()
        _num_inside += 1
    torch = sys.modules.get("torch")
    num_threads = torch.get_num_threads() if torch else 0  # OpenMP has a number for each calling thread
    try:
        yield
    finally:
        if torch and torch.get_num_threads() != num_threads:
            torch.set_num_threads(num_threads)
        with _lock:
            _num_inside -= 1
            if not _num_inside:
                _undo.close()


def runs_in(*contexts: Callable[[], contextlib.ContextDecorator]) -> Callable[[_Class], _Class]:
    """Return a decorator of a class whose public methods are to run in contexts, the first one outermost."""

    def decorate(cls: _Class) -> _Class:
        for name, value in list(vars(cls).items()):
            is_class_method = isinstance(value, classmethod)
            method = value.__func__ if is_class_method else value
            if name.startswith("_") or not inspect.isfunction(method):
                continue
            for context in reversed(contexts):
                method = context()(method)
            setattr(cls, name, classmethod(method) if is_class_method else method)
        return cls

    return decorate


def _saved_state() -> contextlib.ExitStack:
    """Return a stack whose end restores the present state; of libraries that are not imported there is none."""
    undo = contextlib.ExitStack()
    undo.enter_context(warnings.catch_warnings())
    undo.callback(random.setstate, random.getstate())
    loggers = [each for each in list(logging.root.manager.loggerDict.values()) if isinstance(each, logging.Logger)]
    undo.callback(_set_levels, [(logger, logger.level) for logger in (logging.root, *loggers)])
    if numpy := sys.modules.get("numpy"):
        undo.callback(numpy.random.set_state, numpy.random.get_state())
    if torch := sys.modules.get("torch"):
        undo.callback(torch.set_rng_state, torch.get_rng_state())
        if torch.cuda.is_initialized():
            undo.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
        if torch.backends.mps.is_available():
            undo.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
    return undo


def _set_levels(levels: list[tuple[logging.Logger, int]]) -> None:
    for logger, level in levels:
        if logger.level != level:  # setting a level clears the caches of all loggers
            logger.setLevel(level)
