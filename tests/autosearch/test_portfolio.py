from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor

from saccade.autosearch.features import FEATURES, DatasetDescription, Description, NetworkDescription, features
from saccade.autosearch.portfolio import EPOCHS, SHIPPED, Portfolio, Trees

DATA = DatasetDescription(5000, 20)
GOOD = Description(NetworkDescription(28e6, 224, 0.82, 0, "conv", "convnext"), {"lr": 3e-4, "opt": "adamw"})

networks = st.builds(
    NetworkDescription,
    num_params=st.floats(1e4, 1e9),
    input_size=st.integers(16, 1024),
    top1=st.none() | st.floats(0.3, 0.95),
    pretraining=st.integers(0, 2),
    kind=st.sampled_from(["conv", "hybrid", "transformer"]),
    family=st.sampled_from(["xcit", "never heard of", ""]),
)
recipes = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.floats(1e-6, 10),
        "batch_size": st.integers(1, 4096),
        "opt": st.sampled_from(["sgd", "momentum", "adamw", "lion", "of my own"]),
        "momentum": st.floats(0, 1),
        "weight_decay": st.floats(0, 1),
        "clip_grad": st.none() | st.floats(0.01, 100),
        "mixup": st.floats(0, 8),
        "augmentation": st.none() | st.sampled_from(["randaugment", "x"]),
    },
)
datasets = st.builds(DatasetDescription, st.integers(1, 10**7), st.integers(1, 10**5))


@given(networks, recipes, datasets)
@settings(max_examples=50, deadline=None)
def test_every_description_has_a_prediction(network, recipe, data):
    portfolio = Portfolio.load()
    described = Description(network, recipe)
    row = features(described, data, portfolio.top1(network))
    assert row.shape == (len(FEATURES),)
    assert np.isfinite(row).all()
    scores = portfolio.predict_scores([described], data)
    assert scores.shape == (1, len(EPOCHS))
    assert (np.diff(scores) >= 0).all()
    assert np.isfinite(portfolio.predict_log_epoch_s([described], data)).all()


def test_the_file_is_small_and_has_its_provenance():
    assert SHIPPED.stat().st_size <= 1_000_000
    provenance = Portfolio.load().provenance
    assert provenance["num_runs"] > 3000
    assert len(provenance["datasets"]) == 18
    assert provenance["script"] == "benchmarks/learn_portfolio.py"


def test_portfolio_json_round_trip():
    from benchmarks.learn_portfolio import portfolio_to_json

    portfolio = Portfolio.load()
    again = Portfolio.from_json(json.loads(json.dumps(portfolio_to_json(portfolio))))
    assert np.allclose(again.predict_scores([GOOD], DATA), portfolio.predict_scores([GOOD], DATA))
    assert np.allclose(again.embed([GOOD], DATA), portfolio.embed([GOOD], DATA))


def test_a_portfolio_for_other_features_is_refused():
    record = {**json.loads(SHIPPED.read_text()), "features": ["lr"]}
    with pytest.raises(ValueError, match="Learn it again"):
        Portfolio.from_json(record)


def test_larger_networks_and_more_images_cost_more():
    portfolio = Portfolio.load()
    small, large = (
        replace(GOOD, network=NetworkDescription(params, size, 0.8, 0, "transformer", "volo"))
        for params, size in ((26.8e6, 384), (296e6, 512))
    )
    one, other = portfolio.predict_log_epoch_s([small, large], DATA)
    assert other > one + 1
    (more,) = portfolio.predict_log_epoch_s([small], DatasetDescription(50_000, 20))
    assert more > one + 1.5


def test_excessive_learning_rates_have_low_expected_scores():
    wild = replace(GOOD, hyperparameters={"lr": 10.0, "opt": "adamw"})
    good, bad = Portfolio.load().predict_scores([GOOD, wild], DATA)[:, -1]
    assert good > bad + 0.2


def test_an_unknown_accuracy_is_predicted_from_the_size():
    portfolio = Portfolio.load()
    tiny, big = (portfolio.top1(NetworkDescription(params)) for params in (1e6, 100e6))
    assert 0.55 < tiny < big < 0.9
    assert portfolio.top1(NetworkDescription(1e6, top1=0.123)) == 0.123


def test_trees_of_scikit_learn_give_the_same_numbers_after_json():
    from benchmarks.learn_portfolio import exported, trees_to_json

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 5))
    target = rows[:, 0] * rows[:, 1] + np.sin(3 * rows[:, 2])
    model = HistGradientBoostingRegressor(max_iter=40, max_leaf_nodes=8).fit(rows, target)
    trees = Trees(**json.loads(json.dumps(trees_to_json(exported(model)))))
    others = rng.normal(size=(300, 5))
    difference = np.abs(trees.predict(others) - model.predict(others))
    # Thresholds and values are rounded in JSON, so that a row next to a threshold may fall on its other side.
    assert np.median(difference) < 1e-3
    assert np.mean(difference > 0.05) < 0.02


def test_trees_without_nodes_predict_the_baseline():
    assert Trees(2.5, [], [], [], []).predict(np.zeros((3, 2))).tolist() == [2.5] * 3


def test_trees_send_a_value_equal_to_the_threshold_left():
    stump = Trees(0.0, [0], [0, -1, -1], [0.5, 1.0, 2.0], [2, 0, 0])
    assert stump.predict(np.array([[0.5], [0.5000001]])).tolist() == [1.0, 2.0]
