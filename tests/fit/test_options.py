"""The options of a fit: types, ranges, combinations, and errors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from saccade.errors import HyperparameterError, UnknownArgumentError, UnknownNameError
from saccade.fit.options import AUTO_TIME_LIMIT_S, FitOptions, option_rows
from saccade.scheduler import FIFOScheduler
from saccade.searcher import RandomSearcher
from saccade.space import Real


def tuning(**given):
    return FitOptions.of({"hyperparameter_tune_kwargs": given})


def test_defaults():
    settings = FitOptions.of({})
    assert settings == FitOptions()
    assert (settings.holdout_frac, settings.random_state, settings.executor) == (None, 0, "auto")
    assert settings == FitOptions()
    assert settings.num_trials is None


def test_given_values():
    settings = FitOptions.of(
        {"holdout_frac": 0.25, "random_state": 7, "nthreads_per_trial": 2, "ngpus_per_trial": 0, "weights": Path("w")}
    )
    assert (settings.holdout_frac, settings.random_state) == (0.25, 7)
    assert (settings.nthreads_per_trial, settings.ngpus_per_trial, settings.weights) == (2, 0, Path("w"))
    kwargs = {"num_trials": 3, "searcher": "grid", "scheduler": "local", "max_reward": 1}
    assert tuning(**kwargs).given == {**kwargs, "max_reward": 1.0}


def test_numpy_numbers_become_python_numbers():
    settings = FitOptions.of({"holdout_frac": np.float32(0.25), "random_state": np.int64(7)})
    assert (type(settings.holdout_frac), type(settings.random_state)) == (float, int)
    tuned = tuning(num_trials=np.uint8(3), max_reward=np.float32(0.5))
    assert (type(tuned.num_trials), type(tuned.max_reward)) == (int, float)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"holdout_fraction": 0.1}, "Unknown argument of fit() 'holdout_fraction'. Did you mean 'holdout_frac'?"),
        ({"zzz": 1}, "Unknown argument of fit() 'zzz'. Known: address, callbacks, distill, ensemble,"),
        (
            {"hyperparameter_tune_kwargs": {"num_trial": 3}},
            "Unknown key of hyperparameter_tune_kwargs 'num_trial'. Did you mean 'num_trials'?",
        ),
        ({"hyperparameter_tune_kwargs": {3: 3}}, "Unknown key of hyperparameter_tune_kwargs 3. Known: max_reward,"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(arguments, message):
    with pytest.raises(UnknownArgumentError) as caught:
        FitOptions.of(arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"searcher": "randm"}, "Unknown searcher 'randm'. Did you mean 'random'?"),
        ({"searcher": None}, "Unknown searcher None. Known: auto, bayes, "),
        ({"searcher": ["random"]}, r"Unknown searcher \['random'\]"),
        ({"searcher": RandomSearcher}, "Unknown searcher <class"),
        ({"scheduler": "fifa"}, "Unknown scheduler 'fifa'. Did you mean 'fifo'?"),
        ({"scheduler": 5}, "Unknown scheduler 5"),
    ],
)
def test_unknown_searchers_and_schedulers_are_refused(kwargs, message):
    with pytest.raises(UnknownNameError, match=message):
        tuning(**kwargs)


@pytest.mark.parametrize("executor", ["proces", None, ["inline"]])
def test_unknown_executors_are_refused(executor):
    with pytest.raises(UnknownNameError, match="Unknown executor"):
        FitOptions.of({"executor": executor})


def test_case_does_not_matter_in_names():
    tuned = FitOptions.of({"searcher": "Random", "scheduler": "FIFO", "executor": "INLINE"})
    assert (tuned.searcher, tuned.scheduler, tuned.executor) == ("random", "fifo", "inline")


def test_instances_of_searchers_and_schedulers():
    searcher, scheduler = RandomSearcher({"x": 1}), FIFOScheduler()
    tuned = tuning(searcher=searcher, scheduler=scheduler)
    assert (tuned.searcher, tuned.scheduler) == (searcher, scheduler)


NOT_WHOLE_NUMBERS = [True, np.bool_(True), 2.0, "2", math.nan, [2], -1]


@pytest.mark.parametrize("value", [*NOT_WHOLE_NUMBERS, 0, None])
@pytest.mark.parametrize("name", ["num_trials", "nthreads_per_trial", "nprocs_per_trial"])
def test_counts(name, value):
    arguments = {"hyperparameter_tune_kwargs": {name: value}} if name == "num_trials" else {name: value}
    if value is None:
        FitOptions.of(arguments)
        return
    with pytest.raises(HyperparameterError, match=rf"{name} was given .*; expected a whole number, 1 or more"):
        FitOptions.of(arguments)


@pytest.mark.parametrize("value", NOT_WHOLE_NUMBERS)
def test_seeds(value):
    with pytest.raises(HyperparameterError, match=r"random_state was given .*; expected a whole number, 0 or more"):
        FitOptions.of({"random_state": value})


@pytest.mark.parametrize("value", [True, np.bool_(True), "2", math.nan, math.inf, [2], -1, -0.5, 1.5])
def test_invalid_numbers_of_gpus(value):
    with pytest.raises(HyperparameterError, match=r"ngpus_per_trial was given .*; expected"):
        FitOptions.of({"ngpus_per_trial": value})


@pytest.mark.parametrize("num_gpus", [0.5, 1, 3])
def test_each_process_of_a_trial_has_a_gpu_of_its_own(num_gpus):
    with pytest.raises(HyperparameterError, match=rf"nprocs_per_trial=4 exceeds ngpus_per_trial={num_gpus}"):
        FitOptions.of({"ngpus_per_trial": num_gpus, "nprocs_per_trial": 4})
    assert FitOptions.of({"ngpus_per_trial": 0, "nprocs_per_trial": 4}).nprocs_per_trial == 4


@pytest.mark.parametrize("value", [0, 0.5, 1, 2, 2.0, np.float32(0.5), np.int64(2)])
def test_numbers_of_gpus(value):
    num_gpus = FitOptions.of({"ngpus_per_trial": value}).ngpus_per_trial
    assert num_gpus == value
    assert type(num_gpus) is (float if value == 0.5 else int)


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, -0.1, math.nan, math.inf, True, "0.1", [0.1], 10**400])
def test_invalid_holdout_fractions(value):
    with pytest.raises(HyperparameterError, match=r"holdout_frac was given .*; expected a number between 0 and 1"):
        FitOptions.of({"holdout_frac": value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hyperparameter_tune_kwargs": "auto"}, "hyperparameter_tune_kwargs was given 'auto'; expected a dict"),
        ({"hyperparameter_tune_kwargs": []}, r"hyperparameter_tune_kwargs was given \[\]; expected a dict"),
        ({"hyperparameter_tune_kwargs": {"max_reward": "0.9"}}, "max_reward was given '0.9'; expected a number"),
        ({"hyperparameter_tune_kwargs": {"max_reward": math.nan}}, "max_reward was given nan"),
        ({"hyperparameter_tune_kwargs": {"max_reward": True}}, "max_reward was given True"),
        ({"hyperparameter_tune_kwargs": {"searcher_options": 3}}, "searcher_options was given 3; expected a dict"),
        ({"weights": 5}, "weights was given 5; expected a path, or None"),
    ],
)
def test_values_of_the_wrong_type_are_refused(arguments, message):
    with pytest.raises(HyperparameterError, match=message):
        FitOptions.of(arguments)


def test_the_callers_dictionaries_are_not_changed():
    options = {"first_is_default": False}
    kwargs = {"num_trials": np.int64(3), "searcher_options": options}
    settings = FitOptions.of({"hyperparameter_tune_kwargs": kwargs})
    settings.searcher_options["more"] = 1
    assert (kwargs, options) == (
        {"num_trials": 3, "searcher_options": options},
        {"first_is_default": False},
    )
    assert type(kwargs["num_trials"]) is np.int64
    assert FitOptions.of({"hyperparameter_tune_kwargs": None}) == FitOptions()


def test_without_a_seed_one_is_drawn():
    seeds = {FitOptions.of({"random_state": None}).random_state for _ in range(20)}
    assert len(seeds) > 10
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None),
        ("auto", AUTO_TIME_LIMIT_S),
        (600, 600.0),
        (0.5, 0.5),
        (np.float32(2), 2.0),
        (np.int64(2), 2.0),
        (math.inf, None),
    ],
)
def test_time_limits(given, seconds):
    assert FitOptions.of({"time_limit": given}).limit_s == seconds


@pytest.mark.parametrize("given", [0, -1, math.nan, -math.inf, True, "600", "Auto", [600], 10**400])
def test_invalid_time_limits(given):
    with pytest.raises(HyperparameterError, match=r"time_limit was given .*; expected a positive number of seconds"):
        FitOptions.of({"time_limit": given})


def test_options_of_the_search_may_be_nested_or_flat():
    settings = FitOptions.of({"num_trials": 3, "hyperparameter_tune_kwargs": {"searcher": "grid"}})
    assert (settings.num_trials, settings.searcher) == (3, "grid")
    with pytest.raises(HyperparameterError, match="num_trials given twice"):
        FitOptions.of({"num_trials": 3, "hyperparameter_tune_kwargs": {"num_trials": 3}})


def test_scheduler_options():
    assert FitOptions.of({"scheduler_options": {}}).scheduler_options == {}
    options = {"grace_epochs": 2, "reduction_factor": 4}
    assert tuning(scheduler="asha", scheduler_options=options).scheduler_options == options
    with pytest.raises(HyperparameterError, match=r"'asha' has no option 'grace_epoch'. Did you mean 'grace_epochs'"):
        tuning(scheduler="asha", scheduler_options={"grace_epoch": 2})
    with pytest.raises(HyperparameterError, match="The scheduler 'fifo' has no option 'max_t'"):
        tuning(scheduler="fifo", scheduler_options={"max_t": 3})
    with pytest.raises(HyperparameterError, match="reduction_factor was given 1"):
        tuning(scheduler="hyperband", scheduler_options={"reduction_factor": 1})


@pytest.mark.parametrize("name", ["bayesopt", "bayes", "skopt", "gp", "auto", "qmc"])
def test_names_of_searchers(name):
    assert tuning(searcher=name).searcher == name


def test_starting_configurations():
    starts = ({"lr": 0.1}, {"epochs": 2})
    assert tuning(starting_configs=starts).starting_configs == list(starts)
    assert tuning(starting_configs=None).starting_configs == []
    for wrong in ({"lr": 0.1}, [0.1], "lr"):
        with pytest.raises(HyperparameterError, match=r"starting_configs was given .*; expected a list of dicts"):
            tuning(starting_configs=wrong)
    with pytest.raises(HyperparameterError, match="starting_configs given twice"):
        tuning(starting_configs=starts, searcher_options={"starting_configs": starts})


def test_trial_time_limits():
    assert tuning(trial_time_limit=np.float32(0.5)).trial_time_limit == 0.5
    assert tuning(trial_time_limit=math.inf).trial_time_limit is None
    for wrong in (0, "10m", True, math.nan):
        with pytest.raises(HyperparameterError, match=r"trial_time_limit was given .* positive number of seconds"):
            tuning(trial_time_limit=wrong)


@pytest.mark.parametrize(("given", "members"), [("auto", 5), (True, 5), (False, 1), (1, 1), (3, 3), (np.int64(7), 7)])
def test_ensemble_sizes(given, members):
    settings = FitOptions.of({"ensemble": given})
    assert settings.max_members == members
    assert type(settings.ensemble) in (bool, int, str)


@pytest.mark.parametrize("value", [0, -1, 2.0, "yes", None, [2]])
def test_invalid_ensemble_sizes_are_refused(value):
    with pytest.raises(HyperparameterError, match=r"ensemble was given .*; expected"):
        FitOptions.of({"ensemble": value})


@pytest.mark.parametrize("others", [{"refit_full": True}, {"objectives": ["accuracy", "latency"]}])
def test_a_single_network_is_not_averaged(others):
    assert FitOptions.of(others).max_members == 1
    assert FitOptions.of({**others, "ensemble": False}).max_members == 1
    with pytest.raises(HyperparameterError, match="ensemble"):
        FitOptions.of({**others, "ensemble": 3})


@pytest.mark.parametrize("value", [1, 0, -2, 2.5, True, "5"])
def test_invalid_numbers_of_folds(value):
    with pytest.raises(HyperparameterError, match=r"num_folds was given .* expected"):
        FitOptions.of({"num_folds": value})


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"refit_full": True}, "already trains on all images"),
        ({"warm_start": True}, "was trained on images"),
        ({"objectives": ["accuracy", "params"]}, "select among single networks"),
        ({"ensemble": False}, "ensemble=False keeps one"),
        ({"ensemble": 3}, "num_folds=3, or remove"),
    ],
)
def test_options_that_folds_do_not_support(others, message):
    with pytest.raises(HyperparameterError, match=message):
        FitOptions.of({"num_folds": 5, **others})


@pytest.mark.parametrize(
    ("hyperparameters", "others", "trains_once"),
    [
        ({}, {}, False),
        ({"epochs": 2}, {}, True),
        ({"lr": Real(0.1, 1)}, {}, False),
        ({"epochs": 2}, {"time_limit": 600}, False),
        ({"epochs": 2}, {"searcher": "random"}, False),
    ],
)
def test_one_network_is_trained_if_there_is_nothing_to_search(hyperparameters, others, trains_once):
    assert FitOptions(hyperparameters=hyperparameters, **others).trains_once is trains_once


@pytest.mark.parametrize(
    ("options", "max_members"),
    [
        ({}, 5),
        ({"ensemble": False}, 1),
        ({"ensemble": 3}, 3),
        ({"refit_full": True}, 1),
        ({"objectives": ["score", "latency"]}, 1),
    ],
)
def test_max_members_is_1_without_an_ensemble(options, max_members):
    assert FitOptions(**options).max_members == max_members


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("time_limit", "a positive number of seconds, 'auto', or None"),
        ("holdout_frac", "a number between 0 and 1, or None"),
        ("searcher", "text, or Searcher"),
    ],
)
def test_expected_values_are_described(name, expected):
    assert FitOptions.expected(name) == expected


@pytest.mark.parametrize(("text", "value"), [("10m", 600.0), ("none", None), ("auto", "auto"), ("soon", "soon")])
def test_text_of_the_command_line_is_parsed(text, value):
    assert FitOptions.parse("time_limit", text) == value


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("trial_time_limit", ("float or None", "None", "Maximum training time of one trial.")),
        (
            "starting_configs",
            ("list of dict", "[]", "Configurations to try first, in this order. Missing hyperparameters"),
        ),
        ("ensemble", ('int, bool or "auto"', "'auto'", "Maximum number of networks")),
    ],
)
def test_options_are_described_for_the_documentation(name, row):
    (found,) = [others for each, *others in option_rows() if each == name]
    assert found[:2] == list(row[:2])
    assert found[2].startswith(row[2])
