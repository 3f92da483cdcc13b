from __future__ import annotations

from typing import Any

import numpy as np

from saccade.autosearch.features import DatasetDescription, Description, NetworkDescription
from saccade.autosearch.probes import Probes
from saccade.autosearch.search import AutoSearch
from saccade.space import Categorical, Real, canonical_key

NETWORKS = {f"net{index}": NetworkDescription((2 + index) * 1e6, top1=0.66 + 0.02 * index) for index in range(5)}
SCORES = {"net0": 0.85, "net1": 0.80, "net2": 0.82, "net3": 0.79, "net4": 0.81}
EPOCH_S = 10.0


def searcher_of_probes(**options: Any) -> AutoSearch:
    return AutoSearch(
        {"model": Categorical(*NETWORKS), "lr": Real(1e-4, 1e-2, log=True)},
        describe=lambda config: Description(NETWORKS[config["model"]], {"lr": config["lr"]}, 5, starts_with_probe=True),
        data=DatasetDescription(num_images=1000, num_classes=10),
        **options,
    )


def gain(tuned: float, epoch: int) -> float:
    """Return a score's difference to the probe's: negative at first, unless training only hurts."""
    return tuned if tuned < 0 and epoch else tuned * (1.5 * epoch / 5 - 0.5) if epoch else 0.0


def search(searcher: AutoSearch, seconds_left: float, tuned: float, slow: float = 1.0) -> list[tuple[str, int]]:
    """Return the steps as network and epoch; after 5 epochs the score of a trial exceeds its probe's by `tuned`.

    The network with the best probe takes `slow` times as long as others.
    """
    steps: list[tuple[str, int]] = []
    paused: dict[object, tuple[dict[str, object], int]] = {}
    cost: dict[object, float] = {}
    while (advice := searcher.advise(paused.keys(), seconds_left)) is not None:
        if advice.key is None:
            config, epoch = searcher.suggest(), -1
        else:
            config, epoch = paused.pop(advice.key)
            searcher.on_begin(searcher._known[advice.key].config)
        key, model = canonical_key(config), str(config["model"])
        while epoch < max(advice.until_epoch, epoch + (epoch < 0)):
            epoch += 1
            spent_s = (EPOCH_S if epoch else 0.4 * EPOCH_S) * (slow if model == "net0" else 1.0)
            seconds_left -= spent_s
            cost[key] = cost.get(key, 0.0) + spent_s
            searcher.observe(config, epoch, SCORES[model] + gain(tuned, epoch), cost[key])
        steps.append((model, epoch))
        is_complete = epoch >= 5
        searcher.on_end(config, has_failed=False, is_complete=is_complete)
        if not is_complete:
            paused[key] = (config, epoch)
    return steps


def test_with_little_time_every_network_is_probed_once_before_one_is_trained() -> None:
    steps = search(searcher_of_probes(), 40.0, tuned=-0.05)
    probed = [model for model, epoch in steps if epoch == 0]
    assert sorted(probed) == sorted(NETWORKS)
    assert [epoch for _, epoch in steps[:3]] == [0, 0, 0]


def test_after_the_probes_the_best_network_is_trained_most() -> None:
    trained = [(epoch, model) for model, epoch in search(searcher_of_probes(), 60.0, tuned=0.03) if epoch > 0]
    assert max(trained)[1] == "net0"


def test_training_that_lowers_the_score_is_paused() -> None:
    searcher = searcher_of_probes()
    steps = search(searcher, 300.0, tuned=-0.3)
    longest = {model: max(epoch for each, epoch in steps if each == model) for model, _ in steps}
    assert len([model for model, epoch in steps if epoch > 0]) > 1  # it tries others
    assert set(longest) == set(NETWORKS)


def test_without_a_probe_nothing_is_stopped_before_the_first_epoch() -> None:
    searcher = AutoSearch(
        {"model": Categorical(*NETWORKS), "lr": Real(1e-4, 1e-2, log=True)},
        describe=lambda config: Description(NETWORKS[config["model"]], {"lr": config["lr"]}, 5),
        data=DatasetDescription(num_images=1000, num_classes=10),
    )
    for _ in range(10):
        advice = searcher.advise([], 1000.0)
        assert advice is not None
        assert advice.until_epoch >= 1
        searcher.suggest()


def test_poor_hyperparameters_do_not_change_the_expected_probe() -> None:
    curves = np.array([[0.2, 0.5, 0.8], [0.1, 0.1, 0.1], [0.3, 0.6, 0.7]])
    probes = Probes([1, 5, 50])
    expected = probes.expected_curves(["a", "a", "b"], curves, [50, 50, 50])
    assert expected[0, 0] == expected[1, 0] > 0.1
    assert expected[2, 0] == 0.7
    assert expected[1, 1:].tolist() == [0.1] * 3
    assert probes.expected_curves(["a"], curves[1:2], [50])[0, 0] == expected[0, 0]


def test_a_better_probe_than_expected_raises_all_curves_of_its_network() -> None:
    curves = np.array([[0.2, 0.5, 0.8], [0.1, 0.1, 0.1]])
    probes = Probes([1, 5, 50])
    before = probes.expected_curves(["a", "b"], curves, [50, 50])
    more = probes.observe("a", before[0, 0] + 0.1)
    assert more[0] == 0
    assert 0.1 > more[1] > more[2] > more[3] > 0
    after = probes.expected_curves(["a", "b"], curves, [50, 50])
    assert np.allclose(after - before, [more, np.zeros(4)])
    assert np.allclose(probes.observe("a", before[0, 0] + 0.1), 0)  # nothing new


def test_the_effect_of_a_probe_fades_with_training() -> None:
    factors = Probes([1, 5, 50]).sd_factors
    assert (np.diff(factors) > 0).all()
    assert 0 < factors[0] < 0.5
    assert factors[-1] > 0.6


def test_a_first_training_of_a_network_comes_before_another_one_of_a_trained_network() -> None:
    steps = search(searcher_of_probes(), 400.0, tuned=0.03)
    whole = [model for model, epoch in steps if epoch == 5]
    assert len(set(whole[:3])) == 3


def test_a_training_that_has_started_continues_to_its_end() -> None:
    trained = [(model, epoch) for model, epoch in search(searcher_of_probes(), 150.0, tuned=0.03) if epoch > 0]
    assert (trained[0][0], 5) in trained[:2]


def test_for_an_ensemble_fast_networks_are_trained_before_a_slow_better_one() -> None:
    speed = {network: 0.01 * (4.0 if name == "net0" else 1.0) for name, network in NETWORKS.items()}

    def whole(**options: Any) -> list[str]:
        steps = search(searcher_of_probes(forward_s=speed, **options), 300.0, tuned=0.03, slow=4.0)
        return [model for model, epoch in steps if epoch == 5]

    assert whole(is_for_mean=True)[:3].count("net0") == 0
    assert len(whole(is_for_mean=True)) > len(whole())
