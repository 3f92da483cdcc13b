from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from saccade.errors import DataError, HyperparameterError
from saccade.inference.abstention import Doubt
from saccade.inference.conformal import Conformal
from saccade.tasks.problem import Multiclass, Multilabel, Problem, Regression

ANIMALS = Multiclass(("cat", "dog", "horse"))
HELD_OUT = Conformal((*[0.9] * 17, 0.4, 0.3))
P = np.array([[0.95, 0.03, 0.02], [0.55, 0.42, 0.03], [0.35, 0.33, 0.32]])


@pytest.mark.parametrize(
    ("asked", "unsure"),
    [
        ({}, [False, True, False]),  # .4 has to be in a set; in the last image only the likeliest is, as ever
        ({"coverage": 0.95}, [False, True, True]),
        ({"coverage": 0.5}, [False, False, False]),
        ({"min_proba": 0.5}, [False, False, True]),
        ({"min_proba": 0.5, "coverage": 0.9}, [False, True, True]),
    ],
)
def test_an_image_is_unsure_by_its_set_or_its_probability(asked: dict[str, float], unsure: list[bool]) -> None:
    doubt = Doubt.of("?", asked.get("coverage"), asked.get("min_proba"), ANIMALS, HELD_OUT)
    assert doubt is not None
    assert doubt.is_unsure(P, HELD_OUT).tolist() == unsure
    marked = doubt.mark(ANIMALS.decode(P), P, HELD_OUT)
    assert marked.tolist() == ["?" if is_unsure else "cat" for is_unsure in unsure]


def test_any_value_may_stand_for_a_doubt() -> None:
    for value in (-1, ["cat", "dog"], float("nan")):
        marked = Doubt(value).mark(np.array([1, 2, 3]), P, HELD_OUT)
        assert marked.tolist()[1] is value
        assert marked.tolist()[0] == 1


@pytest.mark.parametrize(
    ("asked", "problem", "told"),
    [
        ((None, 0.9, None), ANIMALS, "coverage says when"),
        ((None, None, 0.9), ANIMALS, "min_proba says when"),
        (("?", None, 90), ANIMALS, "min_proba was given 90"),
        (("?", None, True), ANIMALS, "min_proba was given True"),
        (("?", 90, None), ANIMALS, "for 90 % give 0.9"),
        (("?", None, None), Multilabel(("a", "b")), "multilabel"),
        (("?", None, 0.5), Regression(), "regression"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: tuple[Any, Any, Any], problem: Problem, told: str) -> None:
    with pytest.raises(HyperparameterError, match=told):
        Doubt.of(*asked, problem, HELD_OUT)


def test_without_a_value_there_is_no_doubt() -> None:
    assert Doubt.of(None, None, None, ANIMALS, Conformal()) is None


def test_a_probability_needs_no_held_out_images() -> None:
    assert Doubt.of("?", None, 0.5, ANIMALS, Conformal()) is not None
    with pytest.raises(DataError, match="9 validation images"):
        Doubt.of("?", None, None, ANIMALS, Conformal())
