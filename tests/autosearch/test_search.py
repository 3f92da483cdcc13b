from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.autosearch.features import DatasetDescription, Description, NetworkDescription
from saccade.autosearch.search import AutoSearch
from saccade.events import EpochDone
from saccade.searcher import TPESearcher, make_searcher
from saccade.space import Categorical, Int, Real, canonical_key
from saccade.study.trial import Decision, Trial
from saccade.testing.searcher_contract import SearcherContract

DATA = DatasetDescription(num_images=1000, num_classes=10)
NETWORKS = {
    "small": NetworkDescription(1e6, top1=0.65),
    "good": NetworkDescription(20e6, top1=0.85, kind="transformer"),
    "huge": NetworkDescription(300e6, 512, top1=0.87, kind="transformer"),
}


def make(space=None, **options):
    space = space or {"model": Categorical(*NETWORKS), "lr": Real(1e-6, 1.0, log=True)}

    def describe(config):
        network = NETWORKS.get(config.get("model"), NETWORKS["small"]) if isinstance(config, dict) else None
        return Description(network, {"lr": config["lr"]} if isinstance(config.get("lr"), float) else {}, num_epochs=9)

    return AutoSearch(space, describe=describe, data=DATA, **options)


class TestAutoSearch(SearcherContract):
    def make(self, space, seed):
        describe = lambda config: Description(NETWORKS["small"], {}, num_epochs=9)  # noqa: E731
        return AutoSearch(space, seed=seed, describe=describe, data=DATA)


def train(searcher, config, epochs, score, epoch_s=1.0):
    for epoch in range(1, epochs + 1):
        searcher.observe(config, epoch, score * (1 - 0.5**epoch), epoch * epoch_s)


def test_the_first_proposals_have_sensible_learning_rates():
    searcher = make()
    rates = [searcher.suggest()["lr"] for _ in range(5)]
    assert all(1e-5 < rate < 0.1 for rate in rates)


def test_short_time_limits_propose_cheaper_networks():
    searcher, hasty = make(log_speed=3.0), make(log_speed=3.0)
    hasty.seconds_left = 100.0
    size = {name: network.num_params for name, network in NETWORKS.items()}
    leisurely_sizes = [size[searcher.suggest()["model"]] for _ in range(5)]
    assert np.mean([size[hasty.suggest()["model"]] for _ in range(5)]) < np.mean(leisurely_sizes)


def test_costs_follow_from_forward_passes_where_these_were_measured():
    searcher = make(log_speed=1.0, forward_s={NETWORKS["small"]: 0.3, NETWORKS["good"]: 0.01})
    searcher.suggest()
    items = list(searcher._pool.values())
    epoch_s = {name: [] for name in NETWORKS}
    for item, seconds in zip(items, searcher.costs.epoch_s([item.number for item in items]), strict=True):
        epoch_s[item.config["model"]].append(seconds)
    assert np.median(epoch_s["small"]) == pytest.approx(3.5 * 0.3 * DATA.num_images, rel=0.2)
    assert np.median(epoch_s["good"]) == pytest.approx(3.5 * 0.01 * DATA.num_images, rel=0.2)
    plain = make(log_speed=1.0)
    plain.suggest()
    of_huge = [item.number for item in plain._pool.values() if item.config["model"] == "huge"]
    assert np.median(epoch_s["huge"]) == pytest.approx(np.median(plain.costs.epoch_s(of_huge)), rel=0.2)


def test_networks_beyond_the_limits_are_not_tried_unless_all_are():
    def models(**options):
        searcher = make({"model": Categorical(*NETWORKS), "lr": Real(1e-5, 0.1, log=True)}, **options)
        return {searcher.suggest()["model"] for _ in range(12)}

    forward_s = {NETWORKS["small"]: 0.003, NETWORKS["good"]: 0.03, NETWORKS["huge"]: 0.3}
    assert "huge" in models(forward_s=forward_s)
    assert models(forward_s=forward_s, limits={"image_ms": 20.0}) <= {"small", "good"}
    assert models(forward_s=forward_s, limits={"image_ms": 20.0, "latency_ms": 5.0}) == {"small"}
    assert models(forward_s=forward_s, limits={"image_ms": 1e-3}) == {"small"}  # the nearest


def test_a_network_that_proves_too_slow_is_not_continued():
    searcher = make(limits={"image_ms": 20.0})
    state = SimpleNamespace(trials=[], seconds_left=1000.0, num_workers=1, reference_speed=None)
    searcher.on_start(state)
    config = searcher.suggest()
    state.trials.append(Trial(0, config))
    searcher.observe(config, 1, 0.9, 1.0)
    report = EpochDone(0, 1, 0.9, 1.0, {"image_ms": 21.0}, checkpoint="last-0001")
    assert searcher.on_report(report) is Decision.PAUSE
    assert config["model"] not in {searcher.suggest()["model"] for _ in range(12)}


def test_networks_with_cached_features_are_probed_first_and_their_time_shows_nothing_about_an_epoch():
    network = NetworkDescription(5e6, top1=0.7)
    twins = {name: replace(network, top1=0.7 + 1e-6 * number) for number, name in enumerate("abcd")}

    def begun(cached):
        searcher = AutoSearch(
            {"model": Categorical(*twins), "lr": Real(1e-6, 1.0, log=True)},
            describe=lambda config: Description(
                twins[config["model"]], {"lr": config["lr"]}, num_epochs=9, starts_with_probe=True
            ),
            data=DATA,
            log_speed=0.0,
            cached=[twins[name] for name in cached],
        )
        searcher.seconds_left = 60.0
        return searcher, searcher.suggest()

    for name in twins:
        searcher, config = begun(name)
        assert config["model"] == name
        number = searcher._item_of(config).number
        before = searcher.costs.epoch_s([number])
        searcher.observe(config, 0, 0.5, 0.01)
        assert searcher.costs.epoch_s([number]) == before


def test_the_better_paused_configuration_continues():
    searcher = make()
    well, badly = searcher.suggest(), searcher.suggest()
    for config, score in ((well, 0.95), (badly, 0.05)):
        train(searcher, config, 3, score)
        searcher.on_end(config, has_failed=False)
    keys = [canonical_key(well), canonical_key(badly)]
    advice = searcher.advise(keys, can_begin=False)
    assert advice is not None
    assert advice.key == keys[0]
    assert 3 < advice.until_epoch <= 9


def test_no_step_is_advised_that_would_be_late():
    searcher = make()
    config = searcher.suggest()
    train(searcher, config, 1, 0.5, epoch_s=60.0)
    searcher.on_end(config, has_failed=False)
    assert searcher.advise([canonical_key(config)], seconds_left=59.0, can_begin=False) is None
    advice = searcher.advise([canonical_key(config)], seconds_left=61.0, can_begin=False)
    assert advice is not None
    assert advice.until_epoch == 2


def test_the_advised_configuration_is_suggested_next():
    searcher = make()
    advice = searcher.advise([])
    assert advice is not None
    assert advice.key is None
    chosen = searcher._chosen.config
    assert searcher.suggest() == chosen


def test_starting_configurations_come_first_and_are_not_lost_by_asking_twice():
    start = {"model": "huge", "lr": 0.5}
    searcher = make(starting_configs=[start])
    for _ in range(3):
        assert searcher.advise([]).key is None
    assert searcher.suggest() == start
    assert searcher.suggest() != start


def test_proposals_differ_from_running_trials():
    searcher = make()
    points = searcher.portfolio.embed([searcher.describe(searcher.suggest()) for _ in range(6)], DATA)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert distances[np.triu_indices(6, 1)].min() > 0
    assert len(searcher.running) == 6


def test_later_proposals_are_variations_of_the_best():
    """The search finds the neighbourhood of a best rate that the portfolio does not expect."""
    searcher = make({"lr": Real(1e-6, 1.0, log=True)}, seed=3)
    rates = []
    for _ in range(40):
        config = searcher.suggest()
        rates.append(config["lr"])
        score = math.exp(-((math.log10(config["lr"]) + 1.0) ** 2))
        for epoch in (1, 3, 9):
            searcher.observe(config, epoch, score, float(epoch))
        searcher.on_end(config, has_failed=False, is_complete=True)
    near = [abs(math.log10(rate) + 1) < 0.7 for rate in rates]
    assert np.mean(near[20:]) > np.mean(near[:8])


def test_simultaneous_proposals_differ_and_pending_ones_survive_a_resumed_search():
    searcher, resumed = make({"lr": Real(1e-6, 1.0, log=True)}), make({"lr": Real(1e-6, 1.0, log=True)})
    for each in (searcher, resumed):
        for exponent in range(-6, 1):
            config = {"lr": 10.0**exponent}
            each.on_begin(config)
            train(each, config, 9, math.exp(-((exponent + 2) ** 2)))
            each.on_end(config, has_failed=False, is_complete=True)
    rates = []
    for _ in range(16):
        config = searcher.suggest()
        resumed.on_begin(config)
        rates.append(math.log10(config["lr"]))
    assert np.ptp(rates) > 0.5
    assert np.sum(np.diff(np.sort(rates)) < 0.01) <= 4
    assert list(resumed.running) == list(searcher.running)
    assert len(searcher.running) == 16


@given(seed=st.integers(0, 2**32 - 1), low=st.floats(-10, 0), width=st.floats(0.1, 10))
@settings(max_examples=5)
def test_scores_are_normalised_by_their_range(seed, low, width):
    one, other = make(seed=seed), make(seed=seed, score_range=(low, low + width))
    for index in range(4):
        config = one.suggest()
        assert other.suggest() == config
        one.observe(config, 1, index / 5, 1.0)
        other.observe(config, 1, low + width * index / 5, 1.0)


def test_a_network_without_recordings_is_proposed_by_its_description():
    NETWORKS["never seen"] = NetworkDescription(25e6, top1=0.86, kind="transformer", family="brandnew")
    try:
        searcher = make({"model": Categorical("small", "never seen"), "lr": 1e-4})
        assert searcher.suggest()["model"] == "never seen"
    finally:
        del NETWORKS["never seen"]


def test_without_a_portfolio_auto_is_tpe():
    assert isinstance(make_searcher("auto", {"x": Int(0, 9)}), TPESearcher)


def test_a_failed_configuration_has_a_low_score():
    searcher = make()
    config = searcher.suggest()
    item = searcher._known[canonical_key(config)]
    before = searcher.forecaster.forecast([item.number]).mean[0, -1]
    searcher.on_end(config, has_failed=True)
    assert not searcher.running
    assert searcher.forecaster.forecast([item.number]).mean[0, -1] < before


def test_observations_and_pool_are_bounded():
    searcher = make()
    searcher.forecaster.max_observations = 20
    for index in range(40):
        config = searcher.suggest()
        searcher.observe(config, 1, (index % 10) / 10, 1.0)
        searcher.on_end(config, has_failed=False)
    assert len(searcher.forecaster._used()) <= searcher.forecaster.max_observations
    assert len(searcher._pool) <= 256 + 8
