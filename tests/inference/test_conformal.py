from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom, binom

from saccade.errors import DataError, HyperparameterError
from saccade.inference import conformal as module
from saccade.inference.conformal import Conformal
from saccade.tasks.problem import Multiclass, Multilabel, Regression

CLASSES = Multiclass(tuple("abcdef"))
NUM_REPEATS = 400


def draw(num: int, seed: int, sharpness: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a network that is far too sure of itself, and the right classes."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(num, 6))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (p.cumsum(1) > rng.random((num, 1))).argmax(1)
    sure = np.exp(3 * logits)
    return (sure / sure.sum(1, keepdims=True)).astype(np.float32), targets


@pytest.mark.parametrize(("num", "coverage"), [(19, 0.9), (30, 0.8), (100, 0.9), (99, 0.99)])
def test_sets_hold_the_right_label_as_often_as_asked(num: int, coverage: float) -> None:
    """Of one draw of n held-out images, m others are covered by a beta-binomial law, and on average as asked."""
    num_others = 50
    rank = math.ceil((num + 1) * coverage - 1e-9)
    law = betabinom(num_others, rank, num + 1 - rank)
    covered = []
    for seed in range(NUM_REPEATS):
        p, y = draw(num + num_others, seed)
        sets = Conformal.of(p[:num], y[:num], CLASSES).label_sets(p[num:], coverage)
        covered.append(sum(int(label) in each for label, each in zip(y[num:], sets, strict=True)))
    # The likeliest label, which is always in a set, can only add to the law's coverage; here it hardly ever does.
    standard_error = law.std() / math.sqrt(NUM_REPEATS)
    assert np.mean(covered) > law.mean() - 4 * standard_error
    assert np.mean(covered) < law.mean() + 4 * standard_error + 0.02 * num_others
    unlucky = law.ppf(0.05)  # rarer than the law says it must not be
    assert (np.array(covered) < unlucky).sum() <= binom(NUM_REPEATS, law.cdf(unlucky - 1)).ppf(0.9999)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_intervals_hold_the_right_number_as_often_as_asked(coverage: float) -> None:
    problem = Regression(mean=20.0, std=5.0)
    num_held_out, num_others, covered = 60, 50, []
    for seed in range(NUM_REPEATS):
        rng = np.random.default_rng(seed)
        truth = rng.gamma(2, 10, num_held_out + num_others)
        numbers = (truth + rng.standard_t(2, len(truth)) * 3 + 1)[:, None]
        targets = ((truth - problem.mean) / problem.std).astype(np.float32)
        conformal = Conformal.of(numbers[:num_held_out], targets[:num_held_out], problem)
        ends = np.array(conformal.intervals(numbers[num_held_out:], coverage))
        covered.append(((ends[:, 0] <= truth[num_held_out:]) & (truth[num_held_out:] <= ends[:, 1])).sum())
    rank = math.ceil((num_held_out + 1) * coverage - 1e-9)
    law = betabinom(num_others, rank, num_held_out + 1 - rank)
    assert abs(np.mean(covered) - law.mean()) < 4 * law.std() / math.sqrt(NUM_REPEATS)


@given(st.integers(1, 60), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_the_threshold_leaves_as_many_out_as_may_be_missed(num: int, coverage: float, seed: int) -> None:
    scores = np.sort(np.random.default_rng(seed).random(num).astype(np.float32))[::-1]
    conformal = Conformal(tuple(scores.tolist()))
    if num < coverage / (1 - coverage) - 1e-6:
        with pytest.raises(DataError, match="validation images at least"):
            conformal.threshold(coverage)
    elif num > coverage / (1 - coverage) + 1e-6:
        num_within = (scores >= conformal.threshold(coverage)).sum()
        assert num_within / (num + 1) >= coverage - 1e-8
        assert (num_within - 1) / (num + 1) < coverage + 1e-8


@pytest.mark.parametrize(
    ("num", "coverage", "told"), [(8, 0.9, "9 validation"), (0, 0.5, "1 validation"), (98, 0.99, "99")]
)
def test_too_few_images_are_told_with_how_many_it_takes(num: int, coverage: float, told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        Conformal((0.5,) * num).threshold(coverage)
    assert ("up to" in str(caught.value)) == bool(num)
    assert Conformal((0.5,) * (num + 1)).threshold(coverage) == 0.5


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, True, "0.9", None])
def test_a_coverage_is_a_share(coverage: object) -> None:
    with pytest.raises(HyperparameterError, match="coverage was given"):
        Conformal((0.5,) * 99).threshold(coverage)


def test_percent_are_turned_into_a_share_by_the_message() -> None:
    with pytest.raises(HyperparameterError, match=r"for 95 % give 0\.95"):
        Conformal((0.5,) * 99).threshold(95)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.9]))
def test_sets_are_never_empty_sorted_and_grow_with_the_coverage(seed: int, coverage: float) -> None:
    p, y = draw(40, seed)
    conformal = Conformal.of(p[:20], y[:20], CLASSES)
    small, large = conformal.label_sets(p[20:], coverage), conformal.label_sets(p[20:], 0.95)
    for row, few, many in zip(p[20:], small, large, strict=True):
        assert few[0] == row.argmax()
        assert many[: len(few)] == few
        assert sorted(row[many], reverse=True) == row[many].tolist()


def test_scores_are_written_exactly_and_in_one_line() -> None:
    p, y = draw(300, 0)
    conformal = Conformal.of(p, y, CLASSES)
    text = json.dumps(conformal.to_json())
    assert "\\n" not in text
    assert Conformal.from_json(json.loads(text)) == conformal
    assert Conformal.from_json("") == Conformal()


def test_of_many_images_a_sample_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SCORES", 50)
    p, y = draw(300, 0)
    scores = Conformal.of(p, y, CLASSES).scores
    assert len(scores) == 50
    assert set(scores) <= set(p[np.arange(300), y].tolist())


def test_many_labels_have_no_sets() -> None:
    problem = Multilabel(("a", "b"))
    assert Conformal.of(np.ones((20, 2)), np.ones((20, 2)), problem) == Conformal()
    with pytest.raises(HyperparameterError, match="multilabel"):
        Conformal().check(problem, 0.9)
