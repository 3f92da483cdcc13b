from __future__ import annotations

import functools

import numpy as np
import pytest

from saccade.errors import HyperparameterError
from saccade.study.function import FunctionTrainable
from saccade.study.trial import Job
from saccade.study.trial_files import LocalTrialFiles
from saccade.testing.trial_contracts import Reports


def scores(function, x=2.0):
    reports = Reports()
    FunctionTrainable(function).train(Job(0, {"x": x}), reports)
    return reports.reports


class Model:
    def fit(self, config, report):
        report(score=config["x"])

    def __call__(self, config):
        return config["x"]


def keyword_only(config, *, report):
    report(score=config["x"])


def with_a_default(config, reporter=None):
    reporter(score=config["x"])


def with_an_option(config, verbose=True):
    assert verbose is True
    return config["x"]


def wrapped(*args):
    config, report = args
    report(score=config["x"])


def named_otherwise(params, callback):
    callback(score=params["x"])


def three(config, report, factor):
    report(score=config["x"] * factor / 2)


@pytest.mark.parametrize(
    "function",
    [
        lambda config, report: report(score=config["x"]),
        lambda config: config["x"],
        lambda config: np.float32(config["x"]),
        lambda config: {"score": config["x"], "loss": 0.5},
        lambda config, report: config["x"],
        Model().fit,
        Model(),
        keyword_only,
        with_a_default,
        with_an_option,
        wrapped,
        named_otherwise,
        functools.partial(three, factor=2),
    ],
)
def test_many_kinds_of_functions_can_be_tuned(function):
    (report,) = scores(function)
    assert (report.epoch, report.score) == (1, 2.0)


def test_a_returned_score_is_the_only_report():
    (report,) = scores(lambda config: {"score": 1, "loss": 0.5})
    assert (report.score, report.metrics, report.is_last) == (1.0, {"loss": 0.5}, True)

    def reporting(config, report):
        report(score=1.0)
        return 5.0

    assert [report.score for report in scores(reporting)] == [1.0]


def test_the_value_returned_by_a_continued_job_is_ignored(tmp_path):
    def train(config, report):
        if report.checkpoint is None:
            report(score=1.0, checkpoint=lambda folder: (folder / "x").touch())
        return 5.0

    trainable, first, rest = FunctionTrainable(train), Reports(), Reports()
    files = LocalTrialFiles(tmp_path)
    trainable.train(Job(0, {}, files=files), first)
    trainable.train(Job(0, {}, files=files, checkpoint=first.reports[-1].checkpoint), rest)
    assert (first.scores, rest.scores) == ([1.0], [])


@pytest.mark.parametrize("returned", ["good", [1.0], (1.0, 2.0), object()])
def test_other_values_are_errors(returned):
    with pytest.raises(HyperparameterError, match="expected its score as a number, or a dict of metrics"):
        scores(lambda config: returned)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (3, r"train_fn was given 3 \(int\)"),
        (lambda: 1, r"cannot be called with a configuration and a reporter"),
        (three, r"three\(.*factor.*\) cannot be called"),
    ],
)
def test_functions_with_other_parameters_are_errors(function, message):
    with pytest.raises(HyperparameterError, match=message):
        FunctionTrainable(function)
