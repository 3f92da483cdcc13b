"""Functions that save what they can continue from."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest

from saccade.errors import HyperparameterError
from saccade.study.function import FunctionTrainable, MissingScoreError
from saccade.study.trial import Decision, Job
from saccade.study.trial_files import LocalTrialFiles
from saccade.testing.trial_contracts import Reports, TrainableContract


def saved_state(config, report, how):
    """Add up, an epoch at a time, and save the sum."""
    total = json.loads((report.checkpoint / "sum.json").read_text()) if report.checkpoint else 0.0
    for epoch in range(report.last_epoch + 1, config["num_epochs"] + 1):
        total += config["x"] / epoch
        report(epoch=epoch, score=total, checkpoint=how(report, total))


def by_function(report, total):
    return lambda folder: (folder / "sum.json").write_text(json.dumps(total))


def by_file(report, total):
    path = report.folder / "sum.json"
    path.write_text(json.dumps(total))
    return path


def by_folder(report, total):
    folder = report.folder / "state"
    folder.mkdir(exist_ok=True)
    (folder / "sum.json").write_text(json.dumps(total))
    return str(folder)


def by_the_trials_own_folder(report, total):
    by_file(report, total)
    return report.folder


class SavingContract(TrainableContract):
    config: ClassVar = {"x": 2.0, "num_epochs": 4}
    num_epochs = 4
    broken_config: ClassVar = {"num_epochs": 4}
    how = staticmethod(by_function)

    def make(self, tmp_path):
        how = self.how
        return FunctionTrainable(lambda config, report: saved_state(config, report, how))


class TestByFunction(SavingContract):
    pass


class TestByFile(SavingContract):
    how = staticmethod(by_file)


class TestByFolder(SavingContract):
    how = staticmethod(by_folder)


class TestByTheTrialsOwnFolder(SavingContract):
    how = staticmethod(by_the_trials_own_folder)


def job(folder, **changes):
    return Job(**{"trial": 0, "config": {"x": 1.0, "num_epochs": 9}, "files": LocalTrialFiles(folder), **changes})


def train(function, a_job, reports=None, **options):
    reports = reports or Reports()
    return FunctionTrainable(function, **options).train(a_job, reports), reports.reports


@pytest.mark.parametrize("how", [by_file, by_folder, by_the_trials_own_folder])
def test_what_was_saved_is_safe_from_what_the_function_writes_next(tmp_path, how):
    _, reports = train(lambda config, report: saved_state(config, report, how), job(tmp_path, until_epoch=3))
    sums = [json.loads((tmp_path / "0000" / report.checkpoint / "sum.json").read_text()) for report in reports]
    assert sums == [report.score for report in reports]
    assert len(set(sums)) == 3
    assert not list((tmp_path / "0000" / reports[-1].checkpoint).rglob("checkpoint-*"))


def test_a_partial_checkpoint_is_not_used_and_is_overwritten(tmp_path):
    def failing(config, report):
        def save(folder):
            (folder / "half").write_text("")
            raise OSError("disk full")

        report(score=1.0, checkpoint=save)

    with pytest.raises(OSError, match="disk full"):
        train(failing, job(tmp_path))
    assert not list(LocalTrialFiles(tmp_path).list(0))
    _, reports = train(lambda config, report: saved_state(config, report, by_function), job(tmp_path, until_epoch=1))
    assert [path.name for path in (tmp_path / "0000" / reports[0].checkpoint).iterdir()] == ["sum.json"]


def test_an_epoch_that_is_trained_again_replaces_its_checkpoint(tmp_path):
    for name in ("one", "two"):
        _, reports = train(
            lambda config, report, name=name: report(score=1.0, checkpoint=lambda folder: (folder / name).touch()),
            job(tmp_path),
        )
    assert [path.name for path in (tmp_path / "0000" / reports[0].checkpoint).iterdir()] == ["two"]


def test_counted_epochs_continue(tmp_path):
    def counted(config, report):
        assert report.checkpoint or report.last_epoch == 0
        while True:
            report(score=1.0, checkpoint=lambda folder: (folder / "x").touch())

    _, first = train(counted, job(tmp_path), Reports(Decision.PAUSE, at_epoch=3))
    _, rest = train(counted, job(tmp_path, checkpoint=first[-1].checkpoint), Reports(Decision.STOP, at_epoch=5))
    assert [report.epoch for report in first + rest] == [1, 2, 3, 4, 5]


class TestWrongUses:
    def continued(self, tmp_path, function):
        _, reports = train(
            lambda config, report: saved_state(config, report, by_function), job(tmp_path, until_epoch=2)
        )
        return train(function, job(tmp_path, checkpoint=reports[-1].checkpoint))

    def test_a_function_that_ignores_its_checkpoint_gets_an_error(self, tmp_path):
        with pytest.raises(HyperparameterError, match=r"continue after epoch 2, .* has not read report\.checkpoint"):
            self.continued(tmp_path, lambda config, report: report(score=1.0))

    def test_a_function_that_starts_from_epoch_1_gets_an_error(self, tmp_path):
        def anew(config, report):
            assert report.checkpoint
            report(epoch=1, score=1.0)

        with pytest.raises(ValueError, match=r"epoch=1 after epoch 2, .* continues after report\.last_epoch"):
            self.continued(tmp_path, anew)

    @pytest.mark.parametrize(
        ("checkpoint", "error", "message"),
        [
            (lambda folder: None, HyperparameterError, "wrote nothing into the folder"),
            ("no such file", FileNotFoundError, "checkpoint='no such file', but there is no such file"),
            (3, TypeError, "int"),
        ],
    )
    def test_a_checkpoint_that_is_none(self, tmp_path, checkpoint, error, message):
        with pytest.raises(error, match=message):
            train(lambda config, report: report(score=1.0, checkpoint=checkpoint), job(tmp_path))

    def test_a_study_without_files(self):
        with pytest.raises(HyperparameterError, match="checkpoints cannot be saved"):
            train(lambda config, report: report(score=1.0, checkpoint=lambda folder: None), job("", files=None))
        with pytest.raises(HyperparameterError, match="trials have no folders"):
            train(lambda config, report: report.folder, job("", files=None))

    def test_a_missing_checkpoint(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="checkpoint checkpoint-0003 of trial 0 is missing"):
            train(lambda config, report: None, job(tmp_path, checkpoint="checkpoint-0003"))

    def test_a_misspelt_score(self):
        with pytest.raises(MissingScoreError, match="without the score 'accuracy'; did you mean 'acuracy'"):
            train(lambda config, report: report(acuracy=1.0), job(""), score_name="accuracy")


def test_minimised_score_is_negated_and_its_value_is_a_metric():
    _, (report,) = train(lambda config, report: report(loss=0.5), job(""), score_name="loss", is_minimized=True)
    assert (report.score, report.metrics) == (-0.5, {"loss": 0.5})


def test_the_last_epoch_of_all_configurations_ends_them():
    def endless(config, report):
        while True:
            report(score=1.0)

    reason, reports = train(endless, job(""), max_epochs=3)
    assert reason == ""
    assert [report.is_last for report in reports] == [False, False, True]


def test_function_that_catches_the_stop_gets_it_again():
    def stubborn(config, report):
        for _ in range(5):
            try:
                report(score=1.0)
            except BaseException:
                continue

    reason, reports = train(stubborn, job(""), Reports(Decision.STOP, at_epoch=2))
    assert reason == "stopped by the scheduler"
    assert len(reports) == 2


def test_a_job_ends_where_it_should_though_nothing_is_saved_there(tmp_path):
    def now_and_then(config, report):
        for epoch in range(1, 8):
            report(score=1.0, checkpoint=(lambda folder: (folder / "x").touch()) if epoch % 3 == 0 else None)

    _, reports = train(now_and_then, job(tmp_path, until_epoch=2))
    assert len(reports) == 2
