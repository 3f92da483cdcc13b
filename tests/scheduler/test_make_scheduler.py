from __future__ import annotations

import pytest

from saccade.errors import HyperparameterError, UnknownNameError
from saccade.scheduler import (
    SCHEDULERS,
    ASHAScheduler,
    FIFOScheduler,
    HyperbandScheduler,
    MedianScheduler,
    make_scheduler,
)
from saccade.scheduler.base import Scheduler

KNOWN = f"Known: {', '.join(sorted(SCHEDULERS))}."


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("fifo", FIFOScheduler),
        ("local", FIFOScheduler),
        ("asha", ASHAScheduler),
        ("hyperband", HyperbandScheduler),
        ("median", MedianScheduler),
    ],
)
def test_names(name, scheduler):
    assert type(make_scheduler(name)) is scheduler


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_each_call_makes_a_new_one(name):
    assert make_scheduler(name) is not make_scheduler(name)


def test_a_scheduler_passes_through():
    scheduler = FIFOScheduler()
    assert make_scheduler(scheduler) is scheduler


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("fifa", "Did you mean 'fifo'?"),
        ("ash", "Did you mean 'asha'?"),
        ("hyper_band", "Did you mean 'hyperband'?"),
        ("population_based_training", KNOWN),
        (None, KNOWN),
        (["fifo"], "Did you mean 'fifo'?"),
        (FIFOScheduler, KNOWN),
    ],
)
def test_other_values_raise_an_error(name, advice):
    with pytest.raises(UnknownNameError) as caught:
        make_scheduler(name)
    assert str(caught.value).startswith(f"Unknown scheduler {name!r}. {advice}")


def test_options_are_passed_on():
    scheduler = make_scheduler("hyperband", max_epochs=8, reduction_factor=2, num_brackets=2, type="stopping")
    assert [bracket.epochs for bracket in scheduler.brackets] == [[1, 2, 4, 8], [2, 4, 8]]
    assert scheduler.type == "stopping"
    assert make_scheduler("median", min_trials=7).min_trials == 7


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        (
            "asha",
            "reduction_facter",
            "The scheduler 'asha' has no option 'reduction_facter'. Did you mean 'reduction_factor'? Its options: "
            "max_epochs, grace_epochs, reduction_factor, type.",
        ),
        (
            "median",
            "quantile",
            "The scheduler 'median' has no option 'quantile'. Its options: grace_epochs, min_trials.",
        ),
        ("fifo", "max_epochs", "The scheduler 'fifo' has no option 'max_epochs'. It has no options."),
    ],
)
def test_unknown_option(name, option, message):
    with pytest.raises(HyperparameterError) as caught:
        make_scheduler(name, **{option: 3})
    assert str(caught.value) == message


def test_invalid_option():
    with pytest.raises(HyperparameterError, match="reduction_factor was given 1"):
        make_scheduler("asha", reduction_factor=1)


def test_options_of_a_scheduler_that_is_made_already():
    with pytest.raises(
        HyperparameterError, match=r"\['max_epochs'\] were given together with an instance of FIFOScheduler"
    ):
        make_scheduler(FIFOScheduler(), max_epochs=3)


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="next_job"):
        Scheduler()
