"""The language of option values: durations, constants, and search spaces.

=================  ===========================================
``resnet18``       a constant: text, a number, True, False, None
``resnet18,vgg11`` a choice
``1e-4:1e-1``      a range of real numbers
``8:64``           a range of whole numbers
``1e-4:1e-1:log``  a range that is searched on a logarithmic scale
``(0.7,1)``        a constant tuple; brackets keep their commas
``'1,2'``          in quotes, text as it stands
=================  ===========================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from saccade.errors import HyperparameterError
from saccade.space import Categorical, Int, Real

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WHOLE_NUMBER = re.compile(r"[+-]?\d+")
_DURATION = re.compile(r"(?:([\d.]+) *h)? *(?:([\d.]+) *m(?:in)?)? *(?:([\d.]+) *s)?")
_WORDS = {"true": True, "false": False, "none": None}
_CLOSING = {"(": ")", "[": "]"}


def parse_time_limit(text: str) -> float | str | None:
    """Return a time limit as `ImagePredictor.fit` takes it: seconds, "auto", or None for no limit.

    Raises
    ------
    HyperparameterError
        When the text is no duration.

    Examples
    --------
    >>> parse_time_limit("90"), parse_time_limit("10m"), parse_time_limit("1h30m"), parse_time_limit("none")
    (90.0, 600.0, 5400.0, None)
    """
    given = text.strip().lower()
    if given in ("auto", "none"):
        return None if given == "none" else given
    if _NUMBER.fullmatch(given):
        return float(given)
    parts = _DURATION.fullmatch(given)
    numbers = parts.groups() if parts and given else ()
    if not numbers or not all(_NUMBER.fullmatch(number) for number in numbers if number):
        raise HyperparameterError(
            f"the time limit {text!r} is no duration; write seconds (600), a duration such as 90s, 10m or 1h30m, "
            "or 'none'"
        )
    hours, minutes, seconds = (float(number or 0) for number in numbers)
    return hours * 3600 + minutes * 60 + seconds


def parse_hyperparameters(settings: Sequence[str], **named: str | None) -> dict[str, Any]:
    """Return hyperparameters from ``name=value`` texts and from options of their own, which may be None.

    Raises
    ------
    HyperparameterError
        When a text is no setting, a value cannot be read, or a name is given twice.
    SpaceError
        When a range or a choice cannot be.

    Examples
    --------
    >>> parse_hyperparameters(["epochs=5", "opt=sgd,adamw"], lr="1e-4:1e-1:log", model=None)
    {'lr': Real(0.0001, 0.1, log=True), 'epochs': 5, 'opt': Categorical('sgd', 'adamw')}
    """
    hyperparameters = {name: parse_space(text) for name, text in named.items() if text is not None}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise HyperparameterError(f"--set {setting!r} is no setting; write it as name=value, such as epochs=5")
        if name in hyperparameters:
            raise HyperparameterError(f"hyperparameter {name!r} is given twice; for a choice, write {name}=a,b")
        hyperparameters[name] = parse_space(text)
    return hyperparameters


def parse_space(text: str) -> Any:
    """Return the constant, choice or range that the text stands for.

    Raises
    ------
    HyperparameterError
        When it stands for none.
    SpaceError
        When the range or choice cannot be, such as one whose lower bound is above the upper.

    Examples
    --------
    >>> parse_space("resnet18,mobilenetv3_small_100")
    Categorical('resnet18', 'mobilenetv3_small_100')
    >>> parse_space("8:64"), parse_space("0.1:0.5"), parse_space("(0.7,1)")
    (Int(8, 64), Real(0.1, 0.5), (0.7, 1))
    """
    pieces = _split(text)
    if len(pieces) > 1:
        return Categorical(*(parse_space(piece) for piece in pieces))
    piece = pieces[0]
    if ":" in piece and _NUMBER.fullmatch(piece.split(":")[0].strip()):
        return _range(piece)
    return _constant(piece)


def _split(text: str) -> list[str]:
    """Split at the commas that are not within brackets or quotes."""
    pieces, waiting_for = [""], [""]
    for character in text:
        if character == "," and waiting_for == [""]:
            pieces.append("")
            continue
        pieces[-1] += character
        if character == waiting_for[-1]:
            waiting_for.pop()
        elif waiting_for[-1] not in ("'", '"'):
            if character in _CLOSING:
                waiting_for.append(_CLOSING[character])
            elif character in "'\"" and not pieces[-1][:-1].strip(" (["):
                waiting_for.append(character)
    pieces = [piece.strip() for piece in pieces]
    if waiting_for != [""]:
        raise HyperparameterError(f"the value {text!r} has no closing {waiting_for[-1]}")
    if not all(pieces):
        raise HyperparameterError(f"the value {text!r} has an empty part; write '' for empty text, or a,b for a choice")
    return pieces


def _range(text: str) -> Real | Int:
    lower, upper, *scale = (part.strip() for part in text.split(":"))
    if not _NUMBER.fullmatch(upper) or scale not in ([], ["log"]):
        raise HyperparameterError(f"the range {text!r} is wrong; write lower:upper or lower:upper:log, with numbers")
    if _WHOLE_NUMBER.fullmatch(lower) and _WHOLE_NUMBER.fullmatch(upper):
        return Int(int(lower), int(upper), log=bool(scale))
    return Real(float(lower), float(upper), log=bool(scale))


def _constant(text: str) -> Any:
    first, last = text[0], text[-1]
    if len(text) > 1 and first in "'\"" and last == first:
        return text[1:-1]
    if _CLOSING.get(first) == last:
        inside = text[1:-1].strip()
        return tuple(_constant(piece) for piece in _split(inside)) if inside else ()
    if _WHOLE_NUMBER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    return _WORDS.get(text.lower(), text)
