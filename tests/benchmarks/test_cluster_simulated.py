from __future__ import annotations

import importlib.util
import math
import re

import pytest
from benchmarks.cluster_simulated import METHODS, Problem, Search, print_times, print_utilization, search, workers
from benchmarks.curves import Curves

from benchmarks import cluster, cluster_simulated
from saccade.autosearch.portfolio import Portfolio

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.fixture
def problem(recorded_curves):
    curves = Curves.read(recorded_curves)
    return Problem(curves, curves.datasets[0], Portfolio.load(), seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_more_workers_reach_the_target_sooner(problem, method):
    if method.startswith("Ray") and not HAS_RAY:
        pytest.skip("Ray is not installed: pip install saccade[ray]")
    one, many = (search(problem, method, num, 100.0) for num in (1, 16))
    assert problem.least_s / 3 < many.reached_s < one.reached_s < 100 * 3600
    assert 0.5 < many.utilization < 1 + 1e-9
    assert many.reached_s == many.end_s


@pytest.mark.parametrize("method", ["auto", "random + asha", "Optuna random"])
def test_workers_that_join_and_leave_are_busy_to_the_end(problem, method):
    found = search(problem, method, 6, 0.1, to_end=True)
    assert found.utilization > 0.9
    assert found.end_s > 340


def test_speeds_differ_and_have_the_mean_one():
    made = workers(64, seed=3, churn_s=100.0)
    assert sum(each.speed for each in made) == pytest.approx(64)
    assert max(each.speed for each in made) > 1.3
    assert sum(each.joins_s > 0 for each in made) == 7
    assert sum(each.leaves_s < math.inf for each in made) == 7
    assert all(each.joins_s < each.leaves_s for each in made)


def test_the_tables_have_speed_ups_and_searches_that_missed_the_target(capsys):
    found = [
        Search(method, name, 0, num, reached_s, 300.0, 3600.0, 0.9, 100, 2.0)
        for method, factor in (("auto", 1), ("random + asha", 2))
        for num in (1, 64)
        for name, reached_s in (("A", factor * 14400 / num), ("B", factor * 7200 / num if num > 1 else math.inf))
    ]
    print_times(found, {"auto": 16.0, "random + asha": 16.0})
    print_utilization(found)
    text = capsys.readouterr().out
    (auto,) = re.findall(r"^auto +64 +(.*)$", text, re.MULTILINE)[:1]
    hours, _, gain, _, ratio, _, missed = map(float, auto.split())
    assert hours == pytest.approx(math.sqrt(4 * 2) / 64, abs=1e-3)
    assert gain == pytest.approx(math.sqrt(64 * 16 * 64 / 2), rel=0.01)  # 16 h for what was not reached
    assert (ratio, missed) == (1.0, 0)
    assert re.search(r"^random \+ asha +1 .* 1$", text, re.MULTILINE)
    assert re.search(r"^auto +64 +90\.0 +90\.0 +200 +2\.00 +36000\.0$", text, re.MULTILINE)


@pytest.mark.parametrize("arguments", [[], ["simulate"]])
def test_the_parts_are_listed(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cluster", *arguments])
    with pytest.raises(SystemExit):
        cluster.main()
    assert "simulated: recorded curves" in capsys.readouterr().out
    given: list[list[str]] = []
    monkeypatch.setattr(cluster_simulated, "main", given.append)
    monkeypatch.setattr("sys.argv", ["cluster", "simulated", "--seeds", "2"])
    cluster.main()
    assert given == [["--seeds", "2"]]
