from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import saccade as ag
from saccade import TuneResult, tune
from saccade.errors import HyperparameterError, JournalError, SearchFailedError, SpaceError, UnknownNameError
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher, RandomSearcher
from saccade.study.function import MissingScoreError
from saccade.tuning import TuningInterrupted

SPACE = {"x": ag.Real(0, 1)}


def quiet(function, space=SPACE, **options):
    return tune(function, space, **{"num_trials": 8, "verbosity": 0, **options})


def epochs(config, report):
    for epoch in range(1, 10):
        report(epoch=epoch, score=config["x"] * epoch)


def saving(config, report):
    """Add up, and count how often each epoch is trained."""
    total = json.loads((report.checkpoint / "sum").read_text()) if report.checkpoint else 0.0
    for epoch in range(report.last_epoch + 1, 10):
        total += config["x"]
        with (report.folder / "trained").open("a") as file:
            file.write(f"{epoch}\n")
        report(epoch=epoch, score=total, checkpoint=lambda folder, total=total: (folder / "sum").write_text(str(total)))


def trained(trial):
    return [int(line) for line in (trial.folder / "trained").read_text().split()]


class TestSearch:
    @pytest.mark.parametrize("scheduler", ["auto", "asha", "hyperband", "median", "fifo"])
    @pytest.mark.parametrize("searcher", ["auto", "random", "qmc"])
    def test_the_best_configuration_is_found(self, searcher, scheduler):
        result = quiet(epochs, searcher=searcher, scheduler=scheduler, num_trials=20)
        best = max(result.trials, key=lambda trial: trial.score)
        assert len(result.trials) == 20
        assert result.best_config == best.config
        assert result.best_score == best.score == max(trial.config["x"] * trial.num_epochs for trial in result.trials)
        assert result.best_config["x"] > 0.6

    def test_mode_min(self):
        result = quiet(lambda config: {"loss": config["x"] + 2, "other": 1}, metric="loss", mode="min", num_trials=20)
        assert result.best_score == min(trial.score for trial in result.trials) == result.best_config["x"] + 2
        assert result.trials[3].reports[0].keys() == {"epoch", "loss", "other", "seconds"}
        assert result.trials[3].reports[0]["loss"] == result.trials[3].score > 0
        assert result.leaderboard()["loss"].is_monotonic_increasing

    @pytest.mark.parametrize(
        ("mode", "target", "is_reached"), [("max", 0.8, lambda x: x >= 0.8), ("min", 0.2, lambda x: x <= 0.2)]
    )
    def test_the_target_score_ends_the_search(self, mode, target, is_reached):
        result = quiet(lambda config: config["x"], mode=mode, target_score=target, searcher="random", num_trials=500)
        assert [is_reached(trial.score) for trial in result.trials] == [False] * (len(result.trials) - 1) + [True]

    def test_a_finite_space_ends_the_search(self):
        result = quiet(lambda config: config["x"], {"x": ag.Categorical(3, 1, 2)}, num_trials=None)
        assert sorted(trial.score for trial in result.trials) == [1, 2, 3]
        assert {trial.status for trial in result.trials} == {"completed"}

    def test_starting_configs_come_first(self):
        starts = [{"x": 0.25}, {"x": 0.75}]
        result = quiet(epochs, {"x": ag.Real(0, 1), "n": 4}, starting_configs=starts, scheduler="fifo")
        assert [trial.config for trial in result.trials[:2]] == [{"x": 0.25, "n": 4}, {"x": 0.75, "n": 4}]

    def test_instances_of_searchers_and_schedulers(self):
        result = quiet(epochs, searcher=GridSearcher(SPACE, num_points=3), scheduler=FIFOScheduler(), num_trials=None)
        assert [trial.config["x"] for trial in result.trials] == [0, 0.5, 1]

    def test_options_reach_searcher_and_scheduler(self):
        result = quiet(
            epochs,
            searcher="grid",
            searcher_options={"num_points": 6},
            scheduler="asha",
            scheduler_options={"type": "stopping", "grace_epochs": 4},
        )
        assert {trial.num_epochs for trial in result.trials} <= {4, 9}
        assert len(result.trials) == 6

    @pytest.mark.parametrize("scheduler", ["auto", "asha", "hyperband", "median", "fifo"])
    def test_no_trial_goes_beyond_the_last_epoch(self, scheduler):
        def endless(config, report):
            while True:
                report(score=config["x"])

        result = quiet(endless, scheduler=scheduler, max_epochs=5, num_trials=12)
        assert max(trial.num_epochs for trial in result.trials) == 5
        assert {trial.status for trial in result.trials if trial.num_epochs == 5} == {"completed"}

    def test_the_same_seed_gives_the_same_search(self):
        first, again, other = (quiet(epochs, seed=seed) for seed in (1, 1, 2))
        assert [trial.config for trial in first.trials] == [trial.config for trial in again.trials]
        assert [trial.config for trial in first.trials] != [trial.config for trial in other.trials]


class TestCheckpoints:
    @pytest.mark.parametrize("scheduler", ["auto", "asha", "hyperband"])
    def test_trials_are_paused_and_nothing_is_trained_twice(self, scheduler):
        result = quiet(saving, scheduler=scheduler, num_trials=20, searcher="random")
        for trial in result.trials:
            assert trained(trial) == list(range(1, trial.num_epochs + 1))
            assert trial.score == pytest.approx(trial.config["x"] * trial.num_epochs)
        assert json.loads((result.best_checkpoint / "sum").read_text()) == result.best_score

    @pytest.mark.parametrize("scheduler", ["auto", "asha", "hyperband", "median"])
    def test_without_checkpoints_no_trial_is_restarted(self, scheduler):
        calls = []

        def counted(config, report):
            calls.append(config["x"])
            assert report.checkpoint is None
            epochs(config, report)

        result = quiet(counted, scheduler=scheduler, num_trials=20, searcher="random")
        assert sorted(calls) == sorted(trial.config["x"] for trial in result.trials)
        assert "paused" not in {trial.status for trial in result.trials}
        assert result.best_checkpoint is None

    @pytest.mark.parametrize("scheduler", ["auto", "asha", "hyperband"])
    def test_checkpoints_of_some_epochs(self, scheduler):
        def now_and_then(config, report):
            assert report.checkpoint is None or (report.checkpoint / str(report.last_epoch)).exists()
            for epoch in range(report.last_epoch + 1, 31):
                save = (lambda folder, epoch=epoch: (folder / str(epoch)).touch()) if epoch % 5 == 0 else None
                report(epoch=epoch, score=config["x"] * epoch, checkpoint=save)

        result = quiet(now_and_then, scheduler=scheduler, num_trials=12, searcher="random")
        assert all(trial.num_epochs == 30 for trial in result.trials if trial.status == "completed")
        assert result.trials[result.best_trial.number].num_epochs == 30

    @pytest.mark.parametrize("scheduler", ["auto", "asha", "hyperband"])
    def test_paused_trials_are_resumed_with_a_time_limit_only(self, scheduler):
        result = quiet(saving, scheduler=scheduler, num_trials=20, searcher="random")
        statuses = [trial.status for trial in result.trials]
        assert 1 <= statuses.count("completed") <= 12
        assert statuses.count("completed") + statuses.count("paused") == 20
        result = quiet(saving, scheduler=scheduler, num_trials=20, searcher="random", time_limit=600)
        assert {trial.num_epochs for trial in result.trials} == {9}

    def test_without_a_path_checkpoints_are_removed_with_the_result(self):
        result = quiet(saving)
        checkpoint = result.best_checkpoint
        assert checkpoint.is_dir()
        del result
        assert not checkpoint.parents[2].exists()


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"num_trials": None}, HyperparameterError, "the search would never end"),
            ({"num_trials": 0}, HyperparameterError, "num_trials was given 0; expected a whole number, 1 or more"),
            ({"time_limit": -1}, HyperparameterError, "time_limit was given -1; expected a number of seconds above 0"),
            ({"trial_time_limit": "1h"}, HyperparameterError, "trial_time_limit was given '1h'"),
            ({"max_epochs": 1.5}, HyperparameterError, "max_epochs was given 1.5"),
            ({"target_score": math.nan}, HyperparameterError, "target_score was given nan"),
            ({"num_workers": 0}, HyperparameterError, "num_workers was given 0"),
            (
                {"num_workers": 2, "executor": "inline"},
                HyperparameterError,
                "num_workers is 2, but .* which is one worker",
            ),
            ({"executor": "proces"}, UnknownNameError, "Did you mean 'process'"),
            ({"mode": "maximise"}, UnknownNameError, "Unknown mode 'maximise'"),
            ({"metric": "epoch"}, HyperparameterError, "metric was given 'epoch'"),
            ({"metric": ""}, HyperparameterError, "metric was given ''"),
            ({"searcher": "tpee"}, UnknownNameError, "Did you mean 'tpe'"),
            ({"scheduler": "ash"}, UnknownNameError, "Did you mean 'asha'"),
            ({"searcher_options": {"nmu": 3}}, HyperparameterError, "has no option 'nmu'"),
            ({"scheduler_options": {"max_epoch": 3}}, HyperparameterError, "Did you mean 'max_epochs'"),
            (
                {"searcher": RandomSearcher({"y": ag.Real(0, 1)})},
                HyperparameterError,
                "y is Real.* missing in space",
            ),
            ({"starting_configs": [{"y": 1}]}, UnknownNameError, "Unknown hyperparameter 'y'"),
            ({"resume": True}, HyperparameterError, "Pass path"),
            ({"space": [1]}, SpaceError, "is not a mapping"),
        ],
    )
    def test_invalid_arguments_are_errors_before_work_begins(self, options, error, message):
        calls = []
        with pytest.raises(error, match=message):
            quiet(lambda config: calls.append(config), **options)
        assert not calls

    def test_a_missing_metric_ends_the_search_at_once(self):
        calls = []

        def train(config, report):
            calls.append(config)
            report(acuracy=1.0)

        with pytest.raises(MissingScoreError, match=r"without the score 'accuracy'; did you mean 'acuracy'"):
            quiet(train, metric="accuracy")
        assert len(calls) == 1

    def test_a_metric_that_is_missing_once_costs_that_trial_only(self):
        def train(config, report):
            report(**{"accuracy" if config["x"] != 2 else "loss": 1.0})

        result = quiet(train, {"x": ag.Categorical(1, 2, 3)}, metric="accuracy", searcher="grid")
        assert [trial.status for trial in result.trials].count("failed") == 1


class TestFailures:
    def test_one_failure_does_not_end_the_search(self):
        def train(config):
            if config["x"] == 2:
                raise ZeroDivisionError("no two")
            return config["x"]

        result = quiet(train, {"x": ag.Categorical(1, 2, 3)}, searcher="grid")
        failed = result.trials[1]
        assert (failed.status, failed.reason, failed.score) == ("failed", "ZeroDivisionError: no two", None)
        assert 'raise ZeroDivisionError("no two")' in failed.traceback
        assert result.best_config == {"x": 3}
        assert result.leaderboard()["reason"].iloc[-1] == "ZeroDivisionError: no two"

    def test_a_search_whose_trials_all_fail_ends(self):
        with pytest.raises(SearchFailedError, match="All 8 trials failed: KeyError: 'y'"):
            quiet(lambda config: config["y"])

    def test_a_function_that_reports_nothing_fails(self):
        with pytest.raises(SearchFailedError, match="the job ended without a report"):
            quiet(lambda config, report: None)

    def test_a_nan_score_is_a_failure(self):
        result = quiet(lambda c: math.nan if c["x"] < 0.5 else c["x"], searcher="random", seed=3, num_trials=20)
        assert all((trial.status == "failed") == (trial.config["x"] < 0.5) for trial in result.trials)
        assert {trial.status for trial in result.trials} == {"failed", "completed"}


class TestWorkers:
    def test_one_worker_is_this_process(self):
        seen = []
        quiet(lambda config: seen.append(os.getpid()) or 1.0, num_trials=3)
        assert seen == [os.getpid()] * 3

    def test_several_workers_are_other_processes(self):
        def train(config, report):
            import os
            import time

            for _ in range(3):
                time.sleep(0.05)
                report(score=config["x"], pid=os.getpid())

        result = quiet(train, num_workers=2, num_trials=8, scheduler="fifo")
        pids = {report["pid"] for trial in result.trials for report in trial.reports}
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert len(result.trials) == 8

    def test_a_trial_whose_worker_crashed_is_retried(self, tmp_path):
        def train(config, report):
            import os

            last = int((report.checkpoint / "epoch").read_text()) if report.checkpoint else 0
            for epoch in range(last + 1, 5):
                if config["x"] == 2 and epoch == 3 and not (report.folder / "crashed").exists():
                    (report.folder / "crashed").touch()
                    os._exit(1)
                report(
                    score=config["x"], checkpoint=lambda folder, epoch=epoch: (folder / "epoch").write_text(str(epoch))
                )

        space = {"x": ag.Categorical(1, 2, 3)}
        result = quiet(train, space, executor="process", searcher="grid", scheduler="fifo", path=tmp_path / "run")
        assert [(trial.status, trial.num_epochs) for trial in result.trials] == [("completed", 4)] * 3


class TestTime:
    def test_the_time_limit_is_kept_and_used(self):
        def train(config, report):
            for _ in range(30):
                time.sleep(0.05)
                report(score=config["x"], checkpoint=lambda folder: (folder / "x").touch())
                assert report.checkpoint is None or report.last_epoch

        start_s = time.monotonic()
        result = quiet(train, time_limit=2, num_trials=None)
        elapsed_s = time.monotonic() - start_s
        assert sum(trial.seconds for trial in result.trials) > 0.3 * elapsed_s  # the rest is overhead

    def test_trial_time_limit(self):
        def endless(config, report):
            while True:
                time.sleep(0.02)
                report(score=config["x"])

        result = quiet(endless, scheduler="fifo", trial_time_limit=0.1, num_trials=3)
        assert [trial.reason for trial in result.trials] == ["trial time limit"] * 3

    def test_the_time_of_earlier_sessions_counts(self, tmp_path):
        def slow(config):
            time.sleep(0.3)
            return config["x"]

        path = tmp_path / "run"
        first = quiet(slow, path=path, num_trials=3)
        again = quiet(slow, path=path, resume=True, num_trials=None, time_limit=0.5)
        assert len(first.trials) == len(again.trials) == 3
        longer = quiet(slow, path=path, resume=True, num_trials=4, time_limit=60)
        assert len(longer.trials) == 4


class TestResume:
    def interrupted(self, path, **options):
        """Press Ctrl-C in the fifth epoch of the third trial."""
        calls = []

        def train(config, report):
            calls.append(config)
            for epoch in range(1, 10):
                if len(calls) == 3 and epoch == 5:
                    raise KeyboardInterrupt
                report(score=config["x"] * epoch)

        with pytest.raises(KeyboardInterrupt) as info:
            quiet(train, path=path, scheduler="fifo", searcher="random", **options)
        return info.value

    def test_an_interrupted_search_names_the_way_to_resume_it(self, tmp_path):
        path = tmp_path / "run"
        interrupted = self.interrupted(path)
        assert isinstance(interrupted, TuningInterrupted)
        assert f"path={str(path)!r}, resume=True" in str(interrupted)
        assert [trial.num_epochs for trial in interrupted.result.trials] == [9, 9, 4]
        assert [trial.num_epochs for trial in TuneResult.load(path).trials] == [9, 9, 4]
        result = quiet(epochs, path=path, scheduler="fifo", searcher="random", resume=True)
        whole = quiet(epochs, scheduler="fifo", searcher="random")
        assert [(trial.config, trial.score) for trial in result.trials] == [
            (trial.config, trial.score) for trial in whole.trials
        ]

    def test_without_a_path_the_result_is_in_the_exception(self):
        interrupted = self.interrupted(None)
        assert "`result`" in str(interrupted)
        assert interrupted.result.best_score == max(trial.score for trial in interrupted.result.trials)

    def test_resume_without_a_search_starts_one_with_a_warning(self, tmp_path, capsys):
        result = quiet(epochs, path=tmp_path / "run", resume=True, verbosity=1)
        assert len(result.trials) == 8
        assert "contains no search to resume" in capsys.readouterr().err

    def test_a_finished_search_may_have_more_trials(self, tmp_path):
        path, calls = tmp_path / "run", []

        def counted(config):
            calls.append(config)
            return config["x"]

        quiet(counted, path=path)
        again = quiet(counted, path=path, resume=True)
        assert len(again.trials) == len(calls) == 8
        more = quiet(counted, path=path, resume=True, num_trials=12)
        assert len(more.trials) == len(calls) == 12
        assert len({trial.config["x"] for trial in more.trials}) == 12

    @pytest.mark.parametrize("scheduler", ["auto", "asha", "fifo"])
    def test_more_time_continues_trials_that_the_limit_ended(self, tmp_path, scheduler):
        def slow(config, report):
            for epoch in range(report.last_epoch + 1, 41):
                assert report.checkpoint is None or report.last_epoch > 0
                time.sleep(0.02)
                with (report.folder / "trained").open("a") as file:
                    file.write(f"{epoch}\n")
                report(epoch=epoch, score=epoch, checkpoint=lambda folder: (folder / "x").touch())

        how = {"path": tmp_path / "run", "scheduler": scheduler, "num_trials": 1}
        (cut,) = quiet(slow, time_limit=0.5, **how).trials
        assert cut.status == "paused"
        assert cut.reason == "time limit" or scheduler != "fifo"  # others may just have paused it themselves
        (whole,) = quiet(slow, time_limit=600, resume=True, **how).trials
        assert whole.status == "completed"
        assert trained(whole) == list(range(1, 41))
        assert whole.num_epochs == 40 > cut.num_epochs

    def test_a_search_in_use_is_not_resumed(self, tmp_path):
        def train(config):
            with pytest.raises(JournalError, match="Another run is using the folder"):
                quiet(lambda config: 1.0, path=tmp_path / "run", resume=True)
            return 1.0

        assert {trial.status for trial in quiet(train, path=tmp_path / "run", num_trials=2).trials} == {"completed"}

    def test_a_folder_that_was_moved(self, tmp_path):
        quiet(saving, path=tmp_path / "old", scheduler="asha")
        new = (tmp_path / "old").rename(tmp_path / "new")
        result = TuneResult.load(new)
        assert result.best_checkpoint.is_relative_to(new)
        assert len(quiet(saving, path=new, scheduler="asha", resume=True, num_trials=10).trials) == 10

    def test_a_folder_that_is_a_mount_point(self, tmp_path, monkeypatch):
        folder = tmp_path / "mounted"
        (folder / "lost+found").mkdir(parents=True)

        def within(move):
            def moved(source, target, **options):
                if not (Path(source).is_relative_to(folder) and Path(target).is_relative_to(folder)):
                    raise OSError(errno.EXDEV, "Invalid cross-device link")
                return move(source, target, **options)

            return moved

        for name in ("rename", "replace", "link"):
            monkeypatch.setattr(os, name, within(getattr(os, name)))
        tmp_path.chmod(0o555)
        try:
            quiet(saving, path=folder, scheduler="asha", num_trials=4)
            result = quiet(saving, path=folder, scheduler="asha", num_trials=8, resume=True)
        finally:
            tmp_path.chmod(0o755)
        assert [trial.number for trial in result.trials] == list(range(8))
        assert [path.name for path in tmp_path.iterdir()] == ["mounted"]
        assert (folder / "lost+found").is_dir()


SCRIPT = """
import json, sys, time
from pathlib import Path

import saccade as ag


def train(config, report):
    score = json.loads((report.checkpoint / "score").read_text()) if report.checkpoint else 0.0
    for epoch in range(report.last_epoch + 1, config["epochs"] + 1):
        score += config["x"] * 0.7**epoch
        time.sleep(0.005)
        with open(sys.argv[1] + ".trained", "a") as file:
            file.write(f"{report.trial} {epoch}\\n")
        report(epoch=epoch, score=-score, checkpoint=lambda folder: (folder / "score").write_text(json.dumps(score)))


print("begun", flush=True)
result = ag.tune(
    train, {"x": ag.Real(0, 1), "epochs": ag.Int(3, 12)}, mode="min", num_trials=25, path=sys.argv[1], resume=True,
    searcher="random", scheduler="asha", verbosity=0,
)
print(json.dumps([result.best_score, [(t.config, t.score, t.num_epochs, t.status) for t in result.trials]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_kills_at_random_instants(tmp_path):
    def begin(name):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / name)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "begun\n"
        return process

    whole = begin("whole").communicate()[0]
    rng, num_kills = random.Random(0), 0
    while True:
        process = begin("parts")
        if num_kills < 4:
            time.sleep(rng.uniform(0.1, 0.5))  # some of it goes into imports
            process.send_signal(signal.SIGKILL)
        output = process.communicate()[0]
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        num_kills += 1
    assert json.loads(output) == json.loads(whole)
    assert num_kills >= 1
    lines = Path(f"{tmp_path / 'parts'}.trained").read_text().split("\n")
    assert len(lines) - len(set(lines)) <= num_kills  # what was under way
    assert sum(1 for _ in (tmp_path / "parts" / "trials").glob("*/*.part")) == 0
