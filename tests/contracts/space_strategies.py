"""Hypothesis strategies for search spaces of any shape."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from saccade.space import Bool, Categorical, Dict, Int, List, Real, Space, canonical_key

_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_POSITIVE = st.floats(min_value=5e-324, allow_infinity=False)
_WHOLE = st.integers(-(2**53), 2**53)
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), _FLOATS, st.text(max_size=4))
JSON_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.one_of(st.text("ab./~0 ", max_size=4), st.integers(-3, 9), st.sampled_from(["class", "model.name", "x1"]))


@st.composite
def reals(draw: st.DrawFn) -> Real:
    log = draw(st.booleans())
    lower, upper = sorted(
        draw(st.lists(_POSITIVE if log else _FLOATS, min_size=2, max_size=2, unique_by=lambda x: x + 0.0))
    )
    default = draw(st.none() | st.floats(lower, upper))
    return Real(lower, upper, default=default, log=log)


@st.composite
def ints(draw: st.DrawFn, span: int = 2**53) -> Int:
    log = draw(st.booleans())
    lower = draw(st.integers(1, 2**52) if log else st.integers(-(2**53), 2**52))
    upper = draw(st.integers(lower + 1, min(lower + span, 2**53)))
    return Int(lower, upper, default=draw(st.none() | st.integers(lower, upper)), log=log)


BOOLS = st.builds(Bool, st.booleans())


def _composites(inner: st.SearchStrategy[object]) -> st.SearchStrategy[Space]:
    def single_list(values: list[object]) -> bool:
        return len(values) == 1 and isinstance(values[0], list)

    choices = st.lists(inner, min_size=1, max_size=3, unique_by=canonical_key)
    categoricals = choices.filter(lambda values: not single_list(values)).map(lambda v: Categorical(*v))
    lists = st.lists(inner, max_size=3).map(lambda values: List(*values))
    return st.one_of(categoricals, lists, _dicts(inner))


def _spaces(leaves: st.SearchStrategy[Space]) -> st.SearchStrategy[Space]:
    members: st.SearchStrategy[Any] = st.recursive(leaves | JSON_VALUES, _composites, max_leaves=6)
    return members.filter(lambda member: isinstance(member, Space))


def _dicts(members: st.SearchStrategy[object]) -> st.SearchStrategy[Dict]:
    # Keys such as 1 and "1" would give two parameters the same name, which is an error.
    return st.lists(st.tuples(KEYS, members), max_size=3, unique_by=lambda item: str(item[0])).map(
        lambda items: Dict(dict(items))
    )


SPACES = _spaces(st.one_of(reals(), ints(), BOOLS))
DICTS = _dicts(SPACES | JSON_VALUES)
FINITE_DICTS = _dicts(_spaces(st.one_of(ints(span=3), BOOLS)) | JSON_VALUES)
