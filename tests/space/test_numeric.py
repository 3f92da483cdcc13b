from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.space_strategies import ints, reals
from saccade.errors import SpaceError
from saccade.space import Bool, Int, Real


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Real("a", 1), "lower is 'a' (str)"),
        (lambda: Real(True, 2), "lower is True (bool)"),
        (lambda: Real(None, 2), "lower is None"),
        (lambda: Real(0, math.nan), "upper is nan"),
        (lambda: Real(-math.inf, 0), "lower is -inf"),
        (lambda: Real(0, 10**400), "upper is inf"),
        (lambda: Real(1, 1), "write the value itself"),
        (lambda: Real(2, 1), "Write Real(1.0, 2.0)"),
        (lambda: Real(0, 1, log=True), "needs lower > 0"),
        (lambda: Real(0, 1, log=1), "log is 1"),
        (lambda: Real(0, 1, default=2), "default (2.0) is not between 0.0 and 1.0"),
        (lambda: Real(0, 1, default=math.nan), "default is nan"),
        (lambda: Real(0, 1, True), "default is True (bool)"),
        (lambda: Real(0.1), "missing a required argument: 'upper'. Write for instance Real("),
        (lambda: Real(0.1, 1, 1, True, 5), "Write for instance Real("),
        (lambda: Real(0.1, 1, scale="log"), "Write for instance Real("),
        (lambda: Int(1, 2.5), "not a whole number"),
        (lambda: Int("1", 2), "lower is '1' (str)"),
        (lambda: Int(1, 2**53 + 1), "between -2**53 and 2**53"),
        (lambda: Int(3, 3), "write the value itself"),
        (lambda: Int(0, 8, log=True), "needs lower > 0"),
        (lambda: Int(1, 8, default=9), "default (9) is not between 1 and 8"),
        (lambda: Int(), "Write for instance Int("),
        (lambda: Bool(default=1), "must be True or False"),
        (lambda: Bool(True, False), "Write for instance Bool("),
    ],
)
def test_invalid_arguments_are_refused_with_the_reason(make, message):
    with pytest.raises(SpaceError) as caught:
        make()
    assert message in str(caught.value)
    assert isinstance(caught.value, AssertionError)  # as in the API that Saccade revives


def test_attributes_of_the_old_api():
    real = Real(1e-4, 1e-1, default=1e-3, log=True)
    assert (real.lower, real.upper, real.default, real.log) == (1e-4, 1e-1, 1e-3, True)
    assert (Real(2, 3).default, Int(2, 3).default, Bool().default) == (2.0, 2, False)


def test_bounds_become_plain_numbers():
    real, whole = Real(np.float32(0.5), np.int64(2)), Int(3.0, np.int64(9), np.float64(4.0))
    assert (type(real.lower), type(real.upper)) == (float, float)
    assert [type(number) for number in (whole.lower, whole.upper, whole.default)] == [int] * 3
    assert repr(whole) == "Int(3, 9, default=4)"


def test_large_whole_bounds_are_kept_exactly():
    assert Int(-(2**53), 2**53).upper == 2**53
    assert Int(2**53 - 3, 2**53 - 1).grid(3) == range(2**53 - 3, 2**53)


@given(reals() | ints(), st.integers(0, 2**32))
def test_a_sample_is_within_the_bounds_and_of_their_type(space, seed):
    value = space.sample(seed)
    assert type(value) is (float if isinstance(space, Real) else int)
    assert space.lower <= value <= space.upper
    assert value in space


def test_the_widest_and_the_narrowest_reals():
    widest = sys.float_info.max
    for space in (Real(-widest, widest), Real(5e-324, widest, log=True), Real(1.0, math.nextafter(1.0, 2.0))):
        generator = np.random.default_rng(0)
        assert all(space.sample(generator) in space for _ in range(1000))
        assert space.grid(5)[0] == space.lower
        assert space.grid(5)[-1] == space.upper


def test_a_logarithmic_scale_samples_decades_equally():
    generator, space = np.random.default_rng(0), Real(1e-4, 1e-1, log=True)
    logs = [math.log10(space.sample(generator)) for _ in range(3000)]
    fractions = np.histogram(logs, bins=[-4, -3, -2, -1])[0] / 3000
    assert fractions == pytest.approx([1 / 3] * 3, abs=0.04)


def test_a_logarithmic_int_samples_logarithmically():
    generator, space = np.random.default_rng(0), Int(1, 8, log=True)
    counts = np.bincount([space.sample(generator) for _ in range(4000)], minlength=9)
    expected = [math.log((n + 0.5) / (n - 0.5)) / math.log(8.5 / 0.5) for n in range(1, 9)]
    assert counts[1:] / 4000 == pytest.approx(expected, abs=0.025)


def test_rounding_stays_in_a_narrow_logarithmic_range():
    for lower in (0.0007, 0.3, 7.0, 1e5):
        space = Real(lower, math.nextafter(lower, math.inf), log=True)
        assert set(space.grid(9)) <= {space.lower, space.upper}
        assert all(space.sample(seed) in space for seed in range(20))


def test_an_int_and_a_bool_are_drawn_evenly():
    generator = np.random.default_rng(0)
    counts = np.bincount([Int(0, 3).sample(generator) for _ in range(4000)])
    assert counts / 4000 == pytest.approx([0.25] * 4, abs=0.03)
    assert np.mean([Bool().sample(generator) for _ in range(4000)]) == pytest.approx(0.5, abs=0.03)
    assert type(Bool().sample(0)) is bool


def test_sampling_is_repeatable_by_seed_and_advances_a_generator():
    space, generator = Real(0, 1), np.random.default_rng(3)
    assert space.sample(3) == space.sample(3) == space.sample(generator) != space.sample(generator)
    assert space.sample() != space.sample()


def test_contains():
    assert 1 in Real(0, 1)
    assert np.float32(0.5) in Real(0, 1)
    assert 3.0 in Int(1, 5)
    assert True in Bool()
    assert np.bool_(False) in Bool()
    for value in (True, "0.5", None, math.nan, 1.0001, 10**400, [0.5]):
        assert value not in Real(0, 1)
    for value in (True, 2.5, "2", math.nan, math.inf, 6, None):
        assert value not in Int(1, 5)
    for value in (0, 1, None, "True"):
        assert value not in Bool()


def test_number_of_configurations():
    assert Real(0, 1).num_configurations == math.inf
    assert Int(-2, 2).num_configurations == 5
    assert Bool().num_configurations == 2


@pytest.mark.parametrize(
    ("space", "num_points", "points"),
    [
        (Real(0, 1), 5, [0, 0.25, 0.5, 0.75, 1]),
        (Real(0.001, 1, log=True), 4, [0.001, 0.01, 0.1, 1]),
        (Real(0, 1, default=0.3), 1, [0.3]),
        (Int(1, 4), 4, [1, 2, 3, 4]),
        (Int(0, 10), 3, [0, 5, 10]),
        (Int(0, 3), 3, [0, 2, 3]),
        (Int(1, 1000, log=True), 4, [1, 10, 100, 1000]),
        (Int(1, 5, log=True), 4, [1, 2, 3, 5]),
        (Int(1, 9, default=7), 1, [7]),
        (Bool(default=True), 1, [False, True]),
    ],
)
def test_grid_points(space, num_points, points):
    assert list(space.grid(num_points)) == pytest.approx(points)


@given(st.one_of(reals(), ints()), st.integers(2, 9))
def test_grid_points_ascend_from_bound_to_bound(space, num_points):
    points = list(space.grid(num_points))
    assert points == sorted(set(points))
    assert len(points) <= num_points
    assert (points[0], points[-1]) == (space.lower, space.upper)


def test_optuna_distributions():
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    assert Real(1, 2, log=True).to_optuna() == FloatDistribution(1, 2, log=True)
    assert Int(1, 9).to_optuna() == IntDistribution(1, 9)
    assert Bool().to_optuna() == CategoricalDistribution((False, True))
