"""A program that torchrun has started several times makes one fit: rank 0 runs it, and the others train with it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from saccade.errors import WorkerDiedError
from saccade.training.trial.ranks import LostRankError, launched_ranks
from saccade.training.trial.trainer import follow

P = TypeVar("P")  # a predictor, whose `path` is its run folder


def fits_once(load: Callable[[Any, str], P]) -> Callable[[Callable[..., P]], Callable[..., P]]:
    """Return a decorator of a method that returns a predictor; the processes other than rank 0 get theirs from `load`.

    `load` gets the method's object and the run folder. Raises a WorkerDiedError in these processes if rank 0 fails.
    """

    def decorate(method: Callable[..., P]) -> Callable[..., P]:
        @functools.wraps(method)
        def fit(owner: Any, *args: Any, **kwargs: Any) -> P:
            ranks = launched_ranks()
            if ranks is None:
                return method(owner, *args, **kwargs)
            if ranks.rank > 0:
                try:
                    path, failure = follow(ranks)
                except LostRankError as error:
                    path, failure = None, str(error)
                if path is None:
                    raise WorkerDiedError(f"the fit failed in the process of rank 0: {failure}")
                return load(owner, path)
            try:
                fitted = method(owner, *args, **kwargs)
            except BaseException as error:
                if not ranks.is_busy:  # else the others are out of step
                    ranks.share((None, f"{type(error).__name__}: {error}"))
                raise
            ranks.share((fitted.path, ""))  # type: ignore[attr-defined]
            return fitted

        return fit

    return decorate
