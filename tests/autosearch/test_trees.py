from __future__ import annotations

import json

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from saccade.autosearch.trees import Trees


def test_trees_of_scikit_learn_give_the_same_numbers_after_json():
    from benchmarks.learn_portfolio import exported

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 5))
    target = rows[:, 0] * rows[:, 1] + np.sin(3 * rows[:, 2])
    model = HistGradientBoostingRegressor(max_iter=40, max_leaf_nodes=8).fit(rows, target)
    trees = Trees.from_json(json.loads(json.dumps(exported(model).to_json())))
    others = rng.normal(size=(300, 5))
    difference = np.abs(trees.predict(others) - model.predict(others))
    # Thresholds and values are rounded in JSON, so that a row next to a threshold may fall on its other side.
    assert np.median(difference) < 1e-3
    assert np.mean(difference > 0.05) < 0.02


def test_without_trees_there_is_the_baseline():
    assert Trees(2.5, [], [], [], []).predict(np.zeros((3, 2))).tolist() == [2.5] * 3


def test_a_value_on_the_threshold_goes_left():
    stump = Trees(0.0, [0], [0, -1, -1], [0.5, 1.0, 2.0], [2, 0, 0])
    assert stump.predict(np.array([[0.5], [0.5000001]])).tolist() == [1.0, 2.0]
