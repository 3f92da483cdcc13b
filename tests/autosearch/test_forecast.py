from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.autosearch.forecast import Forecaster

EPOCHS = (1, 3, 9, 27)
EXPECTED = [0.3, 0.5, 0.6, 0.65]
SCORES = st.floats(0, 1)


def two(distance):
    forecaster = Forecaster(EPOCHS)
    return forecaster, forecaster.add([[0.0], [distance]], [EXPECTED, EXPECTED])


def test_without_observations_the_forecast_is_the_expectation():
    forecaster, numbers = two(1.0)
    forecast = forecaster.forecast(numbers)
    assert np.allclose(forecast.mean, [EXPECTED, EXPECTED])
    assert (forecast.sd > 0.1).all()


@given(score=SCORES)
def test_an_observed_score_is_forecast_at_its_epoch(score):
    forecaster, numbers = two(1.0)
    forecaster.observe(numbers[0], 3, score)
    forecast = forecaster.forecast(numbers)
    assert abs(forecast.mean[0, 1] - score) < 0.02
    assert forecast.sd[0, 1] < 0.03


@given(score=st.floats(0.6, 1))
def test_a_rough_score_counts_for_less(score):
    means = []
    for is_rough in (False, True):
        forecaster, numbers = two(1.0)
        forecaster.observe(numbers[0], 1, score, is_rough=is_rough)
        means.append(forecaster.forecast(numbers).mean[0])
    assert (means[0] > means[1]).all()
    assert (means[1] > EXPECTED).all()


@given(score=st.floats(0.6, 1))
def test_deviations_extend_to_later_epochs_and_similar_configurations_and_fade(score):
    forecaster, numbers = two(1.0)
    far = forecaster.add([[50.0]], [EXPECTED])
    forecaster.observe(numbers[0], 3, score)
    own, like, other = (forecaster.forecast([*numbers, *far]).mean - EXPECTED)[:, 1:]
    assert own[0] > own[1] > own[2] > 0
    assert (own > like).all()
    assert (like > other).all()
    assert (other > 0).all()


@given(scores=st.lists(SCORES, min_size=1, max_size=12), distance=st.floats(0, 5))
@settings(deadline=None)
def test_observations_never_increase_uncertainty(scores, distance):
    forecaster, numbers = two(distance)
    before = forecaster.forecast(numbers).sd
    for epoch, score in enumerate(scores, start=1):
        forecaster.observe(numbers[0], epoch, score)
    after = forecaster.forecast(numbers).sd
    assert np.isfinite(after).all()
    assert (after <= before + 1e-9).all()


def test_a_linear_probe_counts_as_an_early_epoch():
    forecaster, numbers = two(9.0)
    forecaster.observe(numbers[0], 0, 0.9)
    scores = forecaster.forecast(numbers).mean
    assert scores[0, 0] > scores[1, 0] + 0.2


def test_assumed_scores_are_not_kept():
    forecaster, numbers = two(1.0)
    plain = forecaster.forecast(numbers).mean
    imagined = forecaster.forecast(numbers, {numbers[0]: (9, 0.95)}).mean
    assert imagined[0, 3] > plain[0, 3]
    assert np.allclose(forecaster.forecast(numbers).mean, plain)


def test_of_many_observations_the_best_and_the_latest_are_used():
    forecaster = Forecaster(EPOCHS, max_observations=10)
    numbers = forecaster.add(np.arange(100.0)[:, None], np.tile(EXPECTED, (100, 1)))
    for number in numbers:
        forecaster.observe(number, 1, 0.99 if number == 7 else 0.3)
    used = list(forecaster._used())
    assert len(used) == 10
    assert 7 in used
    assert 99 in used
