"""Domains of one number: Real, Int and Bool."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar

from saccade.errors import SpaceError
from saccade.space.base import Space, as_generator, explain_arguments, plain

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

# Optuna stores every parameter as a float, which represents all whole numbers up to this one exactly.
_MAX_INT = 2**53

_Number = TypeVar("_Number", int, float)


class _Range(Space, Generic[_Number]):
    """The numbers between two bounds, both included."""

    lower: _Number
    upper: _Number
    log: bool
    _default: _Number

    @explain_arguments
    def __init__(self, lower: _Number, upper: _Number, default: _Number | None = None, log: bool = False) -> None:
        kind, low, high = type(self).__name__, self._checked("lower", lower), self._checked("upper", upper)
        first = low if default is None else self._checked("default", default)
        is_log = plain(log)
        if not isinstance(is_log, bool):
            raise SpaceError(f"{kind}: log is {is_log!r}; it must be True or False.")
        if low == high:
            raise SpaceError(f"{kind}: lower and upper are both {low!r}. For one value, write the value itself.")
        if low > high:
            raise SpaceError(f"{kind}: lower ({low!r}) is above upper ({high!r}). Write {kind}({high!r}, {low!r}).")
        if is_log and low <= 0:
            raise SpaceError(
                f"{kind}: lower is {low!r}, but a logarithmic scale (log=True) needs lower > 0. "
                "Raise the bound, or omit log."
            )
        if not low <= first <= high:
            raise SpaceError(f"{kind}: default ({first!r}) is not between {low!r} and {high!r}.")
        self._set(lower=low, upper=high, log=is_log, _default=first)

    def _checked(self, name: str, value: Any) -> Any:
        """Return an argument as a finite float."""
        value, kind = plain(value), type(self).__name__
        advice = f"It must be a finite number, as in {self.usage}."
        if not _is_number(value):
            raise SpaceError(f"{kind}: {name} is {value!r} ({type(value).__name__}). {advice}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise SpaceError(f"{kind}: {name} is {number}. {advice}")
        return number

    @property
    def default(self) -> _Number:
        """The value to try first."""
        return self._default

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        bounds = {"lower": self.lower, "upper": self.upper}
        return {"type": type(self).__name__, **bounds, "default": self._default, "log": self.log}

    def __contains__(self, value: object) -> bool:
        value = plain(value)
        return _is_number(value) and self.lower <= value <= self.upper

    def _arguments(self) -> tuple[Any, ...]:
        return self.lower, self.upper, self._default, self.log

    def __repr__(self) -> str:
        default = "" if self._default == self.lower else f", default={self._default!r}"
        log = ", log=True" if self.log else ""
        return f"{type(self).__name__}({self.lower!r}, {self.upper!r}{default}{log})"


class Real(_Range[float]):
    """A real number between two bounds, both included.

    Invalid bounds or an invalid default raise a SpaceError.

    Parameters
    ----------
    lower, upper
        The bounds: finite numbers, ``lower < upper``.
    default
        The value to try first; `lower` if omitted.
    log
        Sample uniformly on a logarithmic scale, so that all orders of magnitude are equally likely. Requires
        ``lower > 0``.

    Examples
    --------
    >>> lr = Real(1e-4, 1e-1, log=True)
    >>> lr
    Real(0.0001, 0.1, log=True)
    >>> lr.sample(0) in lr
    True
    """

    usage = "Real(1e-4, 1e-1, log=True)"

    @property
    def num_configurations(self) -> float:
        """Infinity."""
        return math.inf

    def sample(self, rng: np.random.Generator | int | None = None) -> float:
        """Draw a number."""
        return self._at(as_generator(rng).random())

    def grid(self, num_points: float) -> list[float]:
        """Return that many evenly (if `log`, log-evenly) spaced numbers, both bounds included.

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

    def _at(self, fraction: float) -> float:
        """Return the number at this fraction of the range."""
        if fraction in (0.0, 1.0):
            return self.upper if fraction else self.lower
        if self.log:
            # To base 10, so that a grid from 0.01 to 1 contains 0.1, not 0.10000000000000002.
            exponent = _between(math.log10(self.lower), math.log10(self.upper), fraction)
            try:
                value = math.pow(10.0, exponent)
            except OverflowError:  # rounded up past the largest float, where that is the upper bound
                value = self.upper
        else:
            value = _between(self.lower, self.upper, fraction)
        return min(max(value, self.lower), self.upper)


class Int(_Range[int]):
    """A whole number between two bounds, both included.

    Invalid bounds or an invalid default raise a SpaceError.

    Parameters
    ----------
    lower, upper
        The bounds: whole numbers (3.0 is one) between -2**53 and 2**53, ``lower < upper``.
    default
        The value to try first; `lower` if omitted.
    log
        Sample uniformly on a logarithmic scale. Requires ``lower > 0``.

    Examples
    --------
    >>> Int(8, 64, default=16, log=True)
    Int(8, 64, default=16, log=True)
    >>> Int(1, 6).num_configurations
    6
    """

    usage = "Int(1, 10)"

    def _checked(self, name: str, value: Any) -> int:
        if not super()._checked(name, value).is_integer():
            raise SpaceError(f"Int: {name} is {value!r}, which is not a whole number. Round it, or use Real.")
        whole = int(plain(value))  # from the value itself, because a float has only 53 bits
        if abs(whole) > _MAX_INT:
            raise SpaceError(f"Int: {name} is {value!r}. It must lie between -2**53 and 2**53.")
        return whole

    @property
    def num_configurations(self) -> int:
        """The number of whole numbers in the range."""
        return self.upper - self.lower + 1

    def sample(self, rng: np.random.Generator | int | None = None) -> int:
        """Draw a whole number."""
        generator = as_generator(rng)
        if not self.log:
            return int(generator.integers(self.lower, self.upper, endpoint=True))
        # Each number n stands for the interval from n - 0.5 to n + 0.5, as in Optuna.
        low, high = math.log(self.lower - 0.5), math.log(self.upper + 0.5)
        drawn = round(math.exp(_between(low, high, generator.random())))
        return min(max(drawn, self.lower), self.upper)

    def grid(self, num_points: float) -> Iterable[int]:
        """Return all numbers if they are at most that many, else evenly spaced ones, rounded and distinct.

        Both bounds are included; a grid of one point is the default.
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

    def __contains__(self, value: object) -> bool:
        return super().__contains__(value) and float(plain(value)).is_integer()


class Bool(Space):
    """True or False; another default raises a SpaceError.

    Parameters
    ----------
    default
        The value to try first.

    Examples
    --------
    >>> Bool().default
    False
    >>> Bool().grid(2)
    (False, True)
    """

    usage = "Bool(default=True)"
    _default: bool

    @explain_arguments
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
        """Draw True or False with equal probability."""
        return bool(as_generator(rng).integers(2))

    def grid(self, num_points: float = 2) -> tuple[bool, bool]:  # noqa: ARG002
        """Return False and True for any number of points."""
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
    """Interpolate between two numbers whose difference may overflow a float."""
    return low * (1 - fraction) + high * fraction
