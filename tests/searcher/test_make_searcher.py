from __future__ import annotations

import pytest

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.searcher import (
    SEARCHERS,
    CmaEsSearcher,
    GPSearcher,
    GridSearcher,
    QMCSearcher,
    RandomSearcher,
    TPESearcher,
    make_searcher,
)
from saccade.space import Real

SPACE = {"lr": Real(0.1, 1), "epochs": 5}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("random", RandomSearcher),
        ("grid", GridSearcher),
        ("qmc", QMCSearcher),
        ("tpe", TPESearcher),
        ("gp", GPSearcher),
        ("cmaes", CmaEsSearcher),
        ("bayesopt", GPSearcher),
        ("bayes", GPSearcher),
        ("skopt", TPESearcher),
    ],
)
def test_names(name, kind):
    assert name in SEARCHERS
    assert type(make_searcher(name, SPACE)) is kind


def test_seed_and_options_are_passed_on():
    searcher = make_searcher("random", SPACE, seed=5, first_is_default=False)
    assert searcher.seed == 5
    assert searcher.suggest() == RandomSearcher(SPACE, seed=5, first_is_default=False).suggest()


def test_a_searcher_passes_through():
    searcher = GridSearcher(SPACE)
    assert make_searcher(searcher, SPACE) is searcher
    with pytest.raises(
        HyperparameterError, match=r"\['num_points'\] were given together with an instance of GridSearcher"
    ):
        make_searcher(searcher, SPACE, num_points=3)


@pytest.mark.parametrize(
    ("name", "message"),
    [("rando", "Did you mean 'random'"), ("cmaess", "Did you mean 'cmaes'"), (None, "Known: .*grid, .*random")],
)
def test_unknown_names(name, message):
    with pytest.raises(UnknownNameError, match=f"Unknown searcher {name!r}. {message}"):
        make_searcher(name, SPACE)


def test_unknown_options_are_refused_and_the_known_ones_named():
    with pytest.raises(HyperparameterError, match=r"no option 'num_point'. Did you mean 'num_points'\?"):
        make_searcher("grid", SPACE, num_point=3)
    with pytest.raises(HyperparameterError, match=r"Its options: starting_configs, first_is_default\."):
        make_searcher("random", SPACE, num_points=3)
    with pytest.raises(HyperparameterError, match=r"'num_startup_trial'. Did you mean 'num_startup_trials'\?"):
        make_searcher("bayes", SPACE, num_startup_trial=3)
    with pytest.raises(HyperparameterError, match="no option 'num_startup_trials'"):
        make_searcher("qmc", SPACE, num_startup_trials=3)
