from __future__ import annotations

import math

import numpy as np
import pytest

from saccade.autosearch.costs import EpochCosts


def test_a_faster_engine_for_probes_does_not_make_epochs_seem_shorter() -> None:
    """Two networks with an epoch of 20 s; their probes take 10 s with torch, and 4 s with the engine."""
    found = []
    for seconds, gain in ((10.0, 1.0), (4.0, 2.5)):
        costs = EpochCosts(log_speed=0.0)
        costs.add([math.log(20.0)] * 2, ["a", "b"], [True, True])
        costs.observe(0, 0, seconds)
        costs.observe_gain(0, gain)
        found.append(costs)
    for costs in found:
        assert costs.epoch_s([0, 1]) == pytest.approx([20.0, 20.0])
    of_probe = [float(costs.seconds([1], np.array([[0.0]]))[0, 0]) for costs in found]
    assert of_probe == pytest.approx([10.0, 4.0])
    found[1].observe(0, 1, 34.0)  # an epoch of 30 s is known better than any probe
    found[1].observe_gain(0, 5.0)
    assert found[1].epoch_s([0])[0] == pytest.approx(30.0)


def test_the_speed_that_a_worker_measured_counts_as_one_configuration():
    costs = EpochCosts()
    costs.add([0.0, 0.0], ["a", "b"])
    costs.set_log_speed(math.log(8.0))
    costs.set_log_speed(math.log(100.0))
    assert costs.epoch_s([0]) == pytest.approx(8.0)
    costs.observe(1, 1, 2.0)
    assert 2.0 < costs.epoch_s([0]) < 8.0
    given = EpochCosts(log_speed=0.0)
    given.add([0.0], ["a"])
    given.set_log_speed(3.0)
    assert given.epoch_s([0]) == pytest.approx(1.0)
