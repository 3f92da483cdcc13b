"""Call a user's function with a reporter, or without one for its score."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

from saccade.errors import HyperparameterError
from saccade.space.constants import plain
from saccade.study.function import FunctionReporter

NAMES = ("report", "reporter")
"""Names of a parameter that receives the reporter although it has a default or is keyword-only."""


class CalledFunction:
    """A user's function, with or without a reporter, as a function of configuration and reporter.

    It is called as ``function(config, report)`` or ``function(config)``. A second parameter with a default gets the
    reporter only if its name is ``report`` or ``reporter``. If the function reports nothing, the number (the metric
    `score_name`) or the dict of metrics that it returns is its only report. A function that cannot be called in one of
    these ways is a HyperparameterError.
    """

    def __init__(self, function: Callable[..., Any], score_name: str) -> None:
        self.function, self.score_name = function, score_name
        self.reporter = _reporter_place(function)

    def __call__(self, config: dict[Any, Any], report: FunctionReporter) -> None:
        """Call the function, and report what it returns if it has not reported anything."""
        if self.reporter is None:
            returned = self.function(config)
        elif self.reporter == "":
            returned = self.function(config, report)
        else:
            returned = self.function(config, **{self.reporter: report})
        if returned is None or report.has_reported or report.last_epoch > 0:
            return
        if isinstance(returned, Mapping):
            report.send(returned, is_last=True)
        elif isinstance(plain(returned), (bool, int, float)):
            report.send({self.score_name: returned}, is_last=True)
        else:
            raise HyperparameterError(
                f"the function returned {returned!r} ({type(returned).__name__}); expected its {self.score_name} as a "
                f"number, or a dict of metrics such as {{{self.score_name!r}: 0.9}}, or reports of epochs"
            )


def _reporter_place(function: Callable[..., Any]) -> Literal[""] | str | None:  # noqa: PYI051 (the two differ in use)
    """Return the keyword of the parameter for the reporter, "" for the second position; None if there is none."""
    if not callable(function):
        raise HyperparameterError(
            f"train_fn was given {function!r} ({type(function).__name__}); expected a function of (config, "
            "report), or of (config) that returns the score"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions that are written in C have no signature
        return ""
    for name, parameter in list(signature.parameters.items())[1:]:
        is_ours = name in NAMES and parameter.kind is not parameter.POSITIONAL_ONLY
        if is_ours and _takes(signature, {name: None}):
            return name
    if _takes(signature, {}):
        # Another parameter with a default is the user's own. *args usually belongs to a wrapper, which passes both on.
        is_any = any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values())
        return "" if is_any else None
    if _takes(signature, {}, None):
        return ""
    name = getattr(function, "__name__", type(function).__name__)
    raise HyperparameterError(
        f"{name}{signature} cannot be called with a configuration and a reporter, nor with a configuration alone; "
        f"expected {name}(config, report), or {name}(config) that returns the score"
    )


def _takes(signature: inspect.Signature, named: Mapping[str, Any], *rest: Any) -> bool:
    """Return whether a function can be called with a configuration and these arguments."""
    try:
        signature.bind({}, *rest, **named)
    except TypeError:
        return False
    return True
