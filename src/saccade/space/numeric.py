"""Domains of one number: Real, Int and Bool."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeGuard

from saccade.errors import SpaceError
from saccade.space.base import Space, as_generator, explains_arguments
from saccade.space.constants import plain

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

# Optuna keeps every parameter as a float, which holds all whole numbers up to here and no further.
_MAX_INT = 2**53


class Real(Space):
    """A real number between two bounds, both included.

    Parameters
    ----------
    lower, upper
        The bounds: finite numbers, ``lower < upper``.
    default
        The value to try first; `lower` if left out.
    log
        Draw the logarithm evenly instead of the number, so that every order of magnitude is as likely as
        any other. It needs ``lower > 0``.

    Raises
    ------
    SpaceError
        If the bounds or the default cannot be.

    Examples
    --------
    >>> lr = Real(1e-4, 1e-1, log=True)
    >>> lr
    Real(0.0001, 0.1, log=True)
    >>> lr.sample(0) in lr
    True
    """

    usage = "Real(1e-4, 1e-1, log=True)"
    lower: float
    upper: float
    log: bool
    _default: float

    @explains_arguments
    def __init__(self, lower: float, upper: float, default: float | None = None, log: bool = False) -> None:
        low = _number(self, "lower", lower)
        high = _number(self, "upper", upper)
        first = low if default is None else _number(self, "default", default)
        self._set(lower=low, upper=high, log=plain(log), _default=first)
        _check_range(self)

    @property
    def default(self) -> float:
        """The value to try first."""
        return self._default

    @property
    def num_configurations(self) -> float:
        """Infinitely many."""
        return math.inf

    def sample(self, rng: np.random.Generator | int | None = None) -> float:
        """Draw a number, evenly or log-evenly."""
        return self._at(as_generator(rng).random())

    def grid(self, num_points: float) -> list[float]:
        """Return that many evenly (if `log`, log-evenly) spaced numbers with both bounds among them.

        A grid of one point is the default.
        """
        if num_points == 1:
            return [self.default]
        points = (self._at(step / (num_points - 1)) for step in range(int(num_points)))
        return list(dict.fromkeys(points))

    def to_optuna(self) -> FloatDistribution:
        """Return the Optuna distribution."""
        from optuna.distributions import FloatDistribution  # lazily: importing Optuna is slow

        return FloatDistribution(self.lower, self.upper, log=self.log)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return _range_to_json(self)

    def _at(self, fraction: float) -> float:
        """Return the number that lies this fraction of the way from lower to upper."""
        if fraction in (0.0, 1.0):
            return self.upper if fraction else self.lower
        if self.log:
            # To base 10, so that a grid from 0.01 to 1 has 0.1 in it, not 0.10000000000000002.
            exponent = _between(math.log10(self.lower), math.log10(self.upper), fraction)
            try:
                value = math.pow(10.0, exponent)
            except OverflowError:  # rounded up past the largest float, where that is the upper bound
                value = self.upper
        else:
            value = _between(self.lower, self.upper, fraction)
        return min(max(value, self.lower), self.upper)

    def __contains__(self, value: object) -> bool:
        value = plain(value)
        return _is_number(value) and self.lower <= value <= self.upper

    def _arguments(self) -> tuple[Any, ...]:
        return self.lower, self.upper, self._default, self.log

    def __repr__(self) -> str:
        return _range_repr(self)


class Int(Space):
    """A whole number between two bounds, both included.

    Parameters
    ----------
    lower, upper
        The bounds: whole numbers (3.0 is one), ``lower < upper``, at most 2**53 in size.
    default
        The value to try first; `lower` if left out.
    log
        Draw evenly on the logarithmic scale; needs ``lower > 0``.

    Raises
    ------
    SpaceError
        If the bounds or the default cannot be.

    Examples
    --------
    >>> Int(8, 64, default=16, log=True)
    Int(8, 64, default=16, log=True)
    >>> Int(1, 6).num_configurations
    6
    """

    usage = "Int(1, 10)"
    lower: int
    upper: int
    log: bool
    _default: int

    @explains_arguments
    def __init__(self, lower: int, upper: int, default: int | None = None, log: bool = False) -> None:
        low = _whole_number(self, "lower", lower)
        high = _whole_number(self, "upper", upper)
        first = low if default is None else _whole_number(self, "default", default)
        self._set(lower=low, upper=high, log=plain(log), _default=first)
        _check_range(self)

    @property
    def default(self) -> int:
        """The value to try first."""
        return self._default

    @property
    def num_configurations(self) -> int:
        """How many whole numbers there are."""
        return self.upper - self.lower + 1

    def sample(self, rng: np.random.Generator | int | None = None) -> int:
        """Draw a whole number, evenly or log-evenly."""
        generator = as_generator(rng)
        if not self.log:
            return int(generator.integers(self.lower, self.upper, endpoint=True))
        # Each number n owns the stretch from n - 0.5 to n + 0.5, as in Optuna.
        low, high = math.log(self.lower - 0.5), math.log(self.upper + 0.5)
        drawn = round(math.exp(_between(low, high, generator.random())))
        return min(max(drawn, self.lower), self.upper)

    def grid(self, num_points: float) -> Iterable[int]:
        """Return all numbers if they are at most that many, else evenly spaced ones, rounded and distinct.

        Both bounds are among them; a grid of one point is the default.
        """
        if num_points >= self.num_configurations:
            return range(self.lower, self.upper + 1)
        if num_points == 1:
            return [self.default]
        points = Real(self.lower, self.upper, log=self.log).grid(num_points)
        return list(dict.fromkeys(round(point) for point in points))

    def to_optuna(self) -> IntDistribution:
        """Return the Optuna distribution."""
        from optuna.distributions import IntDistribution  # lazily: importing Optuna is slow

        return IntDistribution(self.lower, self.upper, log=self.log)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return _range_to_json(self)

    def __contains__(self, value: object) -> bool:
        value = plain(value)
        return _is_number(value) and self.lower <= value <= self.upper and value == int(value)

    def _arguments(self) -> tuple[Any, ...]:
        return self.lower, self.upper, self._default, self.log

    def __repr__(self) -> str:
        return _range_repr(self)


class Bool(Space):
    """True or False.

    Parameters
    ----------
    default
        The value to try first.

    Raises
    ------
    SpaceError
        If the default is neither True nor False.

    Examples
    --------
    >>> Bool().default
    False
    >>> Bool().grid(2)
    (False, True)
    """

    usage = "Bool(default=True)"
    _default: bool

    @explains_arguments
    def __init__(self, default: bool = False) -> None:
        default = plain(default)
        if not isinstance(default, bool):
            raise SpaceError(f"Bool: default is {default!r}; it must be True or False.")
        self._set(_default=default)

    @property
    def default(self) -> bool:
        """The value to try first."""
        return self._default

    @property
    def num_configurations(self) -> int:
        """Two."""
        return 2

    def sample(self, rng: np.random.Generator | int | None = None) -> bool:
        """Toss a fair coin."""
        return bool(as_generator(rng).integers(2))

    def grid(self, num_points: float = 2) -> tuple[bool, bool]:  # noqa: ARG002
        """Return False and True, however many points are asked for."""
        return False, True

    def to_optuna(self) -> CategoricalDistribution:
        """Return the Optuna distribution."""
        from optuna.distributions import CategoricalDistribution  # lazily: importing Optuna is slow

        return CategoricalDistribution((False, True))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": "Bool", "default": self._default}

    def __contains__(self, value: object) -> bool:
        return isinstance(plain(value), bool)

    def _arguments(self) -> tuple[Any, ...]:
        return (self._default,)

    def __repr__(self) -> str:
        return "Bool(default=True)" if self._default else "Bool()"


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _between(low: float, high: float, fraction: float) -> float:
    """Return the point between two numbers, where high - low may be more than a float can hold."""
    return low * (1 - fraction) + high * fraction


def _number(space: Space, name: str, value: Any) -> float:
    value, kind = plain(value), type(space).__name__
    advice = f"It must be a finite number, as in {space.usage}."
    if not _is_number(value):
        raise SpaceError(f"{kind}: {name} is {value!r} ({type(value).__name__}). {advice}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SpaceError(f"{kind}: {name} is {number}. {advice}")
    return number


def _whole_number(space: Space, name: str, value: Any) -> int:
    number = _number(space, name, value)
    if not number.is_integer():
        raise SpaceError(f"Int: {name} is {value!r}, which is no whole number. Round it, or use Real.")
    whole = int(plain(value))  # from the value itself, because a float has only 53 bits
    if abs(whole) > _MAX_INT:
        raise SpaceError(f"Int: {name} is {value!r}. It must lie between -2**53 and 2**53.")
    return whole


def _check_range(space: Real | Int) -> None:
    kind, lower, upper = type(space).__name__, space.lower, space.upper
    if not isinstance(space.log, bool):
        raise SpaceError(f"{kind}: log is {space.log!r}; it must be True or False.")
    if lower == upper:
        raise SpaceError(f"{kind}: lower and upper are both {lower!r}. For one value, write the value itself.")
    if lower > upper:
        raise SpaceError(f"{kind}: lower ({lower!r}) is above upper ({upper!r}). Write {kind}({upper!r}, {lower!r}).")
    if space.log and lower <= 0:
        raise SpaceError(
            f"{kind}: lower is {lower!r}, but a logarithmic scale (log=True) needs lower > 0. "
            "Raise the bound, or leave log out."
        )
    if not lower <= space.default <= upper:
        raise SpaceError(f"{kind}: default ({space.default!r}) is not between {lower!r} and {upper!r}.")


def _range_to_json(space: Real | Int) -> dict[str, Any]:
    return {
        "type": type(space).__name__,
        "lower": space.lower,
        "upper": space.upper,
        "default": space.default,
        "log": space.log,
    }


def _range_repr(space: Real | Int) -> str:
    default = "" if space.default == space.lower else f", default={space.default!r}"
    log = ", log=True" if space.log else ""
    return f"{type(space).__name__}({space.lower!r}, {space.upper!r}{default}{log})"
