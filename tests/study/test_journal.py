from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from wsgiref.util import setup_testing_defaults

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.study import StudyDirection
from optuna.trial import TrialState

from saccade.errors import JournalError
from saccade.events import EpochDone, JobFailed
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher, RandomSearcher
from saccade.space import Categorical, Dict, Int, Real
from saccade.study import journal
from saccade.study.entries import Begun, BegunAgain, Ended, Reported, Started, restore
from saccade.study.journal import Journal
from saccade.study.study import Study
from saccade.study.trial import Decision, Status
from saccade.testing.simulated_executor import SimulatedExecutor
from saccade.testing.space_strategies import DICTS

SPACE = Dict(
    model=Categorical("a", Dict(name="b", depth=Int(1, 9)), None),
    lr=Real(1e-4, 1e-1, log=True),
    epochs=5,
)
CONFIGS = [
    {"model": "a", "lr": 0.01, "epochs": 5},
    {"model": {"name": "b", "depth": 3}, "lr": 0.02, "epochs": 5},
    {"model": None, "lr": 0.03, "epochs": 5},
    {"model": "a", "lr": 0.04, "epochs": 5},
]
HISTORY = [
    Begun(0, CONFIGS[0], "trials/0000"),
    Started(0, 1),
    Reported(EpochDone(0, 0, 0.25, 0.5, {"loss": math.inf, "top5": 0.5}), Decision.CONTINUE),
    Reported(EpochDone(0, 1, 0.5, 1.5, {}, "trials/0000/1.ckpt"), Decision.PAUSE),
    Ended(0, Status.PAUSED, "as decided", best_score=0.5),
    Begun(1, CONFIGS[1], "trials/0001"),
    Started(1),
    Reported(EpochDone(1, 1, 0.75, 1.0, {}, "trials/0001/1.ckpt")),
    Reported(EpochDone(1, 2, 0.5, 1.0, {}, "trials/0001/2.ckpt", is_last=True)),
    Ended(1, Status.COMPLETED, best_score=0.75),
    Begun(2, CONFIGS[2]),
    Started(2),
    Reported(EpochDone(2, 1, 0.1, 1.0)),
    BegunAgain(2, -1, num_retries=1),
    Started(2),
    Reported(EpochDone(2, 1, 0.2, 1.0)),
    Ended(2, Status.FAILED, failure=JobFailed(2, "killed\u2028", "Traceback\nä", is_worker_lost=True)),
    Started(0, 3),
    Reported(EpochDone(0, 2, 0.625, 1.0, {}, "trials/0000/2.ckpt")),
    Begun(3, CONFIGS[3]),
    Started(3),
    Reported(EpochDone(3, 1, -1.0, 1.0), Decision.STOP),
    Ended(3, Status.STOPPED, "trial time limit", best_score=-1.0),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study" / "journal.log"


def write(path, entries=HISTORY, space=SPACE, **hooks):
    with Journal(path, space, **hooks) as journal:
        for entry in entries:
            journal.append(entry)


def restored(entries):
    trials = []
    for entry in entries:
        restore(entry, trials)
    return trials


def same(ours, theirs):
    """Compare trials, seconds included, and NaN with NaN."""
    return [(repr(trial), trial.seconds) for trial in ours] == [(repr(trial), trial.seconds) for trial in theirs]


class TestRestoring:
    def test_every_entry_comes_back(self, path):
        write(path)
        assert list(Journal(path, SPACE).entries()) == HISTORY
        assert same(Journal.load(path), restored(HISTORY))

    def test_there_is_nothing_before_the_first_entry(self, path):
        assert list(Journal(path, SPACE).entries()) == []
        assert Journal.load(path) == []
        assert not path.parent.exists()

    def test_it_goes_on_where_it_was_closed(self, path):
        for num, entry in enumerate(HISTORY):
            write(path, [entry])
            assert same(Journal.load(path), restored(HISTORY[: num + 1]))

    def test_an_entry_is_in_the_file_at_once(self, path):
        with Journal(path, SPACE) as journal:
            for num, entry in enumerate(HISTORY, start=1):
                journal.append(entry)
                assert len(list(Journal(path).entries())) == num

    @given(space=DICTS, seed=st.integers(0, 2**32 - 1))
    @settings(max_examples=50, deadline=None)
    def test_configurations_of_any_space(self, tmp_path_factory, space, seed):
        path = tmp_path_factory.mktemp("journal") / "journal.log"
        config = space.sample(seed)
        write(path, [Begun(0, config)], space)
        [trial] = Journal.load(path)
        assert repr(trial.config) == repr(config)

    def test_values_that_json_lacks(self, path):
        config = {
            "tuple": (0.9, (1, [2])),
            "set": {1},
            "frozen": frozenset(),
            "inf": -math.inf,
            3: {"!tuple": 1},
            (1, 2): {"!lost": [], "b": 1},
            "text": "\ud800 \u2028\n!",
            "large": 2**70,
        }
        write(path, [Begun(0, config)])
        [trial] = Journal.load(path)
        assert trial.config == config
        assert [type(value) for value in trial.config.values()] == [type(value) for value in config.values()]

    def test_numpys_numbers_come_back_as_pythons(self, path):
        report = EpochDone(0, np.int64(1), np.float32(0.5), np.float64(2.0), {"loss": np.float32("nan")})
        write(path, [Begun(0, {"x": np.int64(3)}), Reported(report)])
        [trial] = Journal.load(path)
        assert repr(trial.config) == "{'x': 3}"
        assert trial.best_report.score == 0.5
        assert math.isnan(trial.best_report.metrics["loss"])


class Odd:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"<odd {self.name}>"


class TestObjectsThatJSONLacks:
    def test_hooks_keep_them(self, path):
        def encode_object(value):
            if not isinstance(value, Odd):
                raise TypeError
            return {"odd": value.name}

        odd = [Begun(0, {"net": [Odd("a")], "x": 1})]
        write(path, odd, encode_object=encode_object)
        [trial] = Journal.load(path, decode_object=lambda form: Odd(form["odd"]))
        assert trial.config["net"][0].name == "a"
        with pytest.raises(JournalError, match=r"trial 0 in .* has the value .*, which JSON cannot keep"):
            Journal.load(path)

    def test_without_hooks_the_space_has_them(self, path):
        nets = [Odd("a"), Odd("b")]
        space = Dict(net=Categorical(*nets), constant=nets[1], lr=Real(0, 1))
        write(path, [Begun(0, {"net": nets[1], "constant": nets[1], "lr": 0.5})], space)
        [trial] = Journal.load(path, space)
        assert trial.config == {"net": nets[1], "constant": nets[1], "lr": 0.5}

    @pytest.mark.parametrize("space", [None, Dict(other=Real(0, 1)), Dict(net=Categorical(1, 2))])
    def test_if_it_cannot_be_restored_reading_says_so_and_writing_does_not(self, path, space):
        write(path, [Begun(0, {"net": Odd("a")}), Started(0)], space)
        with pytest.raises(JournalError, match=r"trial 0 in .* has the value <odd a>.*encode_object"):
            Journal.load(path, space)


class TestOptuna:
    @pytest.fixture(autouse=True)
    def _quiet(self):
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        yield
        optuna.logging.set_verbosity(verbosity)

    def storage(self, path):
        return JournalStorage(JournalFileBackend(str(path)))

    def load(self, path):
        return optuna.load_study(study_name="saccade", storage=self.storage(path))

    def test_the_numbers_of_operations_are_optunas(self):
        for name in ["CREATE_STUDY", "CREATE_TRIAL", "SET_TRIAL_USER_ATTR"]:
            assert getattr(journal, f"_{name}") == getattr(JournalOperation, name)
        assert journal._SET_STATE_VALUES == JournalOperation.SET_TRIAL_STATE_VALUES
        assert journal._SET_INTERMEDIATE_VALUE == JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE
        states = (journal._RUNNING, journal._COMPLETE, journal._FAIL)
        assert states == (TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL)
        assert journal._MAXIMIZE == StudyDirection.MAXIMIZE

    def test_it_loads_the_study(self, path):
        write(path)
        study = self.load(path)
        assert study.direction is StudyDirection.MAXIMIZE
        assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
        assert [trial.state.name for trial in study.trials] == ["RUNNING", "COMPLETE", "FAIL", "COMPLETE"]
        assert [trial.value for trial in study.trials] == [None, 0.75, None, -1.0]
        assert study.trials[0].intermediate_values == {0: 0.25, 1: 0.5, 2: 0.625}
        assert study.trials[1].params == {"model": 1, "model/1/depth": 3, "lr": 0.02}
        assert study.trials[1].distributions["lr"] == FloatDistribution(1e-4, 1e-1, log=True)
        assert study.trials[1].distributions["model"] == CategoricalDistribution((0, 1, 2))
        assert study.trials[1].user_attrs == {
            "config": CONFIGS[1],
            "folder": "trials/0001",
            "status": "completed",
        }
        assert study.trials[2].user_attrs["status"] == "failed: killed\u2028"
        assert study.trials[3].user_attrs["status"] == "stopped: trial time limit"
        assert study.best_trial.number == 1
        for trial in study.trials:
            assert trial.datetime_start is not None
            assert (trial.datetime_complete is not None) == trial.state.is_finished()

    def test_a_configuration_outside_the_space_has_no_parameters(self, path):
        write(path, [Begun(0, {"lr": 9.0, "epochs": 5})])
        assert self.load(path).trials[0].params == {}
        assert Journal.load(path)[0].config == {"lr": 9.0, "epochs": 5}

    def test_what_others_write_is_passed_over(self, path):
        write(path)
        self.load(path).set_user_attr("note", "from elsewhere")
        self.storage(path).set_trial_system_attr(0, "dashboard:note", "good")
        assert same(Journal.load(path), restored(HISTORY))
        write(path, [Ended(0, Status.PAUSED)])
        assert same(Journal.load(path), restored([*HISTORY, Ended(0, Status.PAUSED)]))

    def test_optunas_best_trial_is_the_studys(self, path):
        with Journal(path, Dict(x=Real(0, 1))) as ours:
            executor = SimulatedExecutor(lambda config: [config["x"], config["x"] / 2])
            study = Study(executor, RandomSearcher({"x": Real(0, 1)}), FIFOScheduler(), num_trials=20, journal=ours)
            study.run()
        assert self.load(path).best_trial.number == study.best_trial.number
        assert self.load(path).best_value == study.best_trial.best_report.score

    def test_the_dashboard_opens_it(self, path):
        dashboard = pytest.importorskip("optuna_dashboard")
        write(path)
        app = dashboard.wsgi(self.storage(path))

        def get(address):
            status = []
            environ = {"PATH_INFO": address}
            setup_testing_defaults(environ)
            body = b"".join(app(environ, lambda line, *others: status.append(line)))
            assert status[0].startswith("200"), body
            return json.loads(body)

        (summary,) = get("/api/studies")["study_summaries"]
        assert summary["study_name"] == "saccade"
        details = get(f"/api/studies/{summary['study_id']}")
        assert [trial["state"] for trial in details["trials"]] == ["Running", "Complete", "Fail", "Complete"]
        assert details["best_trials"][0]["number"] == 1


class TestKills:
    def test_a_line_cut_anywhere_loses_its_entry_only(self, path):
        sizes = [0]
        for entry in HISTORY:
            write(path, [entry])
            sizes.append(path.stat().st_size)
        whole = path.read_bytes()
        for num, (start, end) in enumerate(pairwise(sizes)):
            for cut in {start, start + 1, (start + end) // 2, end - 1}:
                path.write_bytes(whole[:cut])
                assert same(Journal.load(path), restored(HISTORY[:num]))
                write(path, HISTORY[num:])
                assert same(Journal.load(path), restored(HISTORY)), (num, cut)

    def test_a_killed_process_loses_nothing_and_holds_no_lock(self, path):
        code = f"""
import os, signal
from pathlib import Path
from saccade.study.journal import Begun, Journal
journal = Journal(Path({str(path)!r}))
journal.append(Begun(0, {{"x": 1}}))
os.kill(os.getpid(), signal.SIGKILL)
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
        write(path, [Started(0, 7)])
        assert list(Journal(path).entries()) == [Begun(0, {"x": 1}), Started(0, 7)]


class TestErrors:
    def test_two_do_not_write_at_once(self, path):
        with Journal(path, SPACE) as first:
            first.append(HISTORY[0])
            with pytest.raises(JournalError, match=r"journal\.log is being written already.*in another process or"):
                write(path)
            first.append(HISTORY[1])
        write(path, HISTORY[2:])
        assert list(Journal(path).entries()) == HISTORY

    def test_damage_in_the_middle_is_named(self, path):
        write(path)
        lines = path.read_bytes().splitlines(keepends=True)
        for damage in [b"{}}\n", b"\x00\x00\n", b"[]\n", b'{"saccade": {"kind": "odd"}}\n', b'{"saccade": {}}\n']:
            path.write_bytes(b"".join([*lines[:4], damage, *lines[5:]]))
            with pytest.raises(JournalError, match=r"journal\.log, line 5, cannot be read \(.*damaged"):
                Journal.load(path)

    def test_a_file_of_another_kind_is_refused(self, path):
        path.parent.mkdir()
        path.write_text('{"op_code":0,"worker_id":"x","study_name":"s","directions":[1]}\n')
        with pytest.raises(JournalError, match="not the journal of a study of Saccade"):
            Journal.load(path)
        path.write_text("hello\n")
        with pytest.raises(JournalError, match="line 1, cannot be read"):
            Journal.load(path)

    def test_a_newer_version_is_refused(self, path):
        write(path)
        path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
        with pytest.raises(JournalError, match="written by a newer version"):
            Journal.load(path)


def test_a_study_of_odd_values_can_be_followed(path):
    space = Dict(x=Categorical({"a": (1, 2)}, [3], None, True, 1.5))
    with Journal(path, space) as journal:
        executor = SimulatedExecutor(lambda config: [0.5])
        study = Study(executor, GridSearcher(space), FIFOScheduler(), journal=journal)
        study.run()
    assert same(Journal.load(path), study.trials)
