from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom, binom

from saccade.errors import DataError, HyperparameterError
from saccade.inference import postprocessing as module
from saccade.inference.postprocessing import AbstentionRule, Conformal
from saccade.tasks.problem import Multiclass, Multilabel, Problem, Regression

CLASSES = Multiclass(tuple("abcdef"))
NUM_REPEATS = 400


def draw(num: int, seed: int, sharpness: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of an overconfident network, and the right classes."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(num, 6))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (p.cumsum(1) > rng.random((num, 1))).argmax(1)
    sure = np.exp(3 * logits)
    return (sure / sure.sum(1, keepdims=True)).astype(np.float32), targets


def label_sets(conformal: Conformal, p: np.ndarray, coverage: float) -> np.ndarray:
    """Sets as arrays, where the most probable label is given."""
    given = torch.nn.functional.one_hot(torch.from_numpy(p.argmax(1)), p.shape[1]).bool()
    return conformal.label_sets(torch.from_numpy(p), given, coverage).numpy()


@pytest.mark.parametrize(("num", "coverage"), [(19, 0.9), (30, 0.8), (100, 0.9), (99, 0.99)])
def test_sets_have_the_requested_coverage(num: int, coverage: float) -> None:
    """Given n held-out images, the number of m covered new images is beta-binomial."""
    num_others = 50
    rank = math.ceil((num + 1) * coverage - 1e-9)
    law = betabinom(num_others, rank, num + 1 - rank)
    covered = []
    for seed in range(NUM_REPEATS):
        p, y = draw(num + num_others, seed)
        sets = label_sets(Conformal.fit(p[:num], y[:num], CLASSES), p[num:], coverage)
        covered.append(sets[np.arange(num_others), y[num:]].sum())
    # The given label, which is always in a set, can only raise the coverage; here it hardly ever does.
    standard_error = law.std() / math.sqrt(NUM_REPEATS)
    assert np.mean(covered) > law.mean() - 4 * standard_error
    assert np.mean(covered) < law.mean() + 4 * standard_error + 0.02 * num_others
    unlucky = law.ppf(0.05)  # no more frequent than the law allows
    assert (np.array(covered) < unlucky).sum() <= binom(NUM_REPEATS, law.cdf(unlucky - 1)).ppf(0.9999)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_intervals_have_the_requested_coverage(coverage: float) -> None:
    problem = Regression(mean=20.0, std=5.0)
    num_held_out, num_others, covered = 60, 50, []
    for seed in range(NUM_REPEATS):
        rng = np.random.default_rng(seed)
        truth = rng.gamma(2, 10, num_held_out + num_others)
        numbers = (truth + rng.standard_t(2, len(truth)) * 3 + 1)[:, None]
        targets = ((truth - problem.mean) / problem.std).astype(np.float32)
        conformal = Conformal.fit(numbers[:num_held_out], targets[:num_held_out], problem)
        others = numbers[num_held_out:]
        ends = np.array(problem.prediction_sets(others, others == others, conformal.threshold(coverage)))
        covered.append(((ends[:, 0] <= truth[num_held_out:]) & (truth[num_held_out:] <= ends[:, 1])).sum())
    rank = math.ceil((num_held_out + 1) * coverage - 1e-9)
    law = betabinom(num_others, rank, num_held_out + 1 - rank)
    assert abs(np.mean(covered) - law.mean()) < 4 * law.std() / math.sqrt(NUM_REPEATS)


@given(st.integers(1, 60), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_threshold_is_the_quantile_of_the_coverage(num: int, coverage: float, seed: int) -> None:
    scores = np.sort(np.random.default_rng(seed).random(num).astype(np.float32))[::-1]
    conformal = Conformal(tuple(scores.tolist()))
    if num < coverage / (1 - coverage) - 1e-6:
        with pytest.raises(DataError, match=r"at least .* validation images"):
            conformal.threshold(coverage)
    elif num > coverage / (1 - coverage) + 1e-6:
        num_within = (scores >= conformal.threshold(coverage)).sum()
        assert num_within / (num + 1) >= coverage - 1e-8
        assert (num_within - 1) / (num + 1) < coverage + 1e-8


@pytest.mark.parametrize(
    ("num", "coverage", "message"), [(8, 0.9, "at least 9"), (0, 0.5, "at least 1 "), (98, 0.99, "at least 99")]
)
def test_error_for_too_few_images_has_the_required_number(num: int, coverage: float, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Conformal((0.5,) * num).threshold(coverage)
    assert ("up to" in str(caught.value)) == bool(num)
    assert Conformal((0.5,) * (num + 1)).threshold(coverage) == 0.5


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, True, "0.9", None])
def test_invalid_coverage_is_an_error(coverage: object) -> None:
    with pytest.raises(HyperparameterError, match="coverage was given"):
        Conformal((0.5,) * 99).threshold(coverage)


def test_error_for_a_percentage_has_the_right_value() -> None:
    with pytest.raises(HyperparameterError, match=r"for 95 % give 0\.95"):
        Conformal((0.5,) * 99).threshold(95)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.9]))
def test_sets_contain_the_given_label_and_grow_with_the_coverage(seed: int, coverage: float) -> None:
    p, y = draw(40, seed)
    conformal = Conformal.fit(p[:20], y[:20], CLASSES)
    small, large = label_sets(conformal, p[20:], coverage), label_sets(conformal, p[20:], 0.95)
    assert small[np.arange(20), p[20:].argmax(1)].all()
    assert (small <= large).all()
    for row, is_in in zip(p[20:], large, strict=True):
        assert is_in.all() or row[is_in].min() > row[~is_in].max()


def test_the_given_label_is_in_its_set_even_if_it_is_improbable() -> None:
    p, given = torch.tensor([[0.9, 0.1]]), torch.tensor([[False, True]])
    assert Conformal((0.8,) * 19).label_sets(p, given, 0.9).tolist() == [[True, True]]
    assert Conformal((0.95,) * 19).label_sets(p, given, 0.9).tolist() == [[False, True]]


def test_scores_are_written_without_loss_on_one_line() -> None:
    p, y = draw(300, 0)
    conformal = Conformal.fit(p, y, CLASSES)
    text = json.dumps(conformal.to_json())
    assert "\\n" not in text
    assert Conformal.from_json(json.loads(text)) == conformal
    assert Conformal.from_json("") == Conformal()


def test_a_sample_of_many_scores_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SCORES", 50)
    p, y = draw(300, 0)
    scores = Conformal.fit(p, y, CLASSES).scores
    assert len(scores) == 50
    assert set(scores) <= set(p[np.arange(300), y].tolist())


def test_multilabel_problems_have_no_sets() -> None:
    problem = Multilabel(("a", "b"))
    assert Conformal.fit(np.ones((20, 2)), np.ones((20, 2)), problem) == Conformal()
    with pytest.raises(HyperparameterError, match="multilabel"):
        Conformal().check(problem, 0.9)


ANIMALS = Multiclass(("cat", "dog", "horse"))
HELD_OUT = Conformal((*[0.9] * 17, 0.4, 0.3))
P = np.array([[0.95, 0.03, 0.02], [0.55, 0.42, 0.03], [0.35, 0.33, 0.32]])


@pytest.mark.parametrize(
    ("asked", "unsure"),
    [
        ({}, [False, True, False]),  # the threshold is .4; the set of the last image has the given label only
        ({"coverage": 0.95}, [False, True, True]),
        ({"coverage": 0.5}, [False, False, False]),
        ({"min_proba": 0.5}, [False, False, True]),
        ({"min_proba": 0.5, "coverage": 0.9}, [False, True, True]),
    ],
)
def test_rule_abstains_by_set_or_probability(asked: dict[str, float], unsure: list[bool]) -> None:
    rule = AbstentionRule.of("?", asked.get("coverage"), asked.get("min_proba"), ANIMALS, HELD_OUT)
    assert rule is not None
    given = torch.tensor([[True, False, False]] * 3)
    assert rule.applies(torch.from_numpy(P), given, HELD_OUT).tolist() == unsure


def test_a_given_label_that_is_not_the_most_probable_is_uncertain() -> None:
    given = torch.tensor([[False, True, False]] * 3)
    assert AbstentionRule("?", 0.95).applies(torch.from_numpy(P), given, HELD_OUT).all()
    assert AbstentionRule("?", None, 0.5).applies(torch.from_numpy(P), given, HELD_OUT).all()


@pytest.mark.parametrize(
    ("asked", "problem", "message"),
    [
        ((None, 0.9, None), ANIMALS, "coverage defines when"),
        ((None, None, 0.9), ANIMALS, "min_proba defines when"),
        (("?", None, 90), ANIMALS, "min_proba was given 90"),
        (("?", None, True), ANIMALS, "min_proba was given True"),
        (("?", 90, None), ANIMALS, "for 90 % give 0.9"),
        (("?", None, None), Multilabel(("a", "b")), "multilabel"),
        (("?", None, 0.5), Regression(), "regression"),
    ],
)
def test_invalid_rules_are_errors(asked: tuple[Any, Any, Any], problem: Problem, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        AbstentionRule.of(*asked, problem, HELD_OUT)


def test_without_a_value_there_is_no_rule() -> None:
    assert AbstentionRule.of(None, None, None, ANIMALS, Conformal()) is None


def test_min_proba_requires_no_held_out_images() -> None:
    assert AbstentionRule.of("?", None, 0.5, ANIMALS, Conformal()) is not None
    with pytest.raises(DataError, match="at least 9 validation images"):
        AbstentionRule.of("?", None, None, ANIMALS, Conformal())
