from __future__ import annotations

import json
import warnings
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from saccade.events import EpochDone, JobDone, JobFailed, JobStarted, TrialCreated
from saccade.scheduler import FIFOScheduler
from saccade.searcher import RandomSearcher
from saccade.space import Categorical, Dict, Int, Real
from saccade.study import optuna_tracker
from saccade.study.life import StudyRecord
from saccade.study.optuna_tracker import OptunaTracker
from saccade.study.study import Study
from saccade.testing.simulated_executor import SimulatedExecutor

SPACE = Dict(
    model=Categorical("a", Dict(name="b", depth=Int(1, 9)), None),
    lr=Real(1e-4, 1e-1, log=True),
    epochs=5,
)
CONFIGS = [
    {"model": "a", "lr": 0.01, "epochs": 5},
    {"model": {"name": "b", "depth": 3}, "lr": 0.02, "epochs": 5},
    {"model": None, "lr": 0.03, "epochs": 5},
    {"lr": 9.0, "epochs": 5},  # not in the space
]
HISTORY = [
    *(TrialCreated(0, CONFIGS[0]), JobStarted(0, 1), EpochDone(0, 0, 0.25), EpochDone(0, 1, 0.5), JobDone(0, "paused")),
    *(TrialCreated(1, CONFIGS[1]), JobStarted(1), EpochDone(1, 1, 0.75), EpochDone(1, 2, 0.5), JobDone(1)),
    *(TrialCreated(2, CONFIGS[2]), JobStarted(2), EpochDone(2, 1, 0.1), JobFailed(2, "killed\u2028")),
    *(JobStarted(0, 3), EpochDone(0, 2, 0.625)),
    *(TrialCreated(3, CONFIGS[3]), JobStarted(3), EpochDone(3, 1, -1.0), JobDone(3, "stopped", "trial time limit")),
]


@pytest.fixture(autouse=True)
def _quiet():
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(verbosity)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study" / "journal.log"


def follow(path, events=HISTORY, record=None):
    """Let a tracker follow a study; return the study's record."""
    record = StudyRecord() if record is None else record
    with OptunaTracker(path, record.trials, SPACE) as tracker:
        for event in events:
            record.apply(event)
            tracker(event)
    return record


def storage(path):
    return JournalStorage(JournalFileBackend(str(path)))


def load(path):
    return optuna.load_study(study_name="saccade", storage=storage(path))


def rows(path):
    return [
        (trial.number, trial.state.name, trial.value, trial.intermediate_values, trial.user_attrs["status"])
        for trial in load(path).trials
    ]


def test_optuna_reads_trials_states_values_and_parameters(path):
    follow(path)
    study = load(path)
    assert study.direction is StudyDirection.MAXIMIZE
    assert rows(path) == [
        (0, "RUNNING", None, {0: 0.25, 1: 0.5, 2: 0.625}, "running"),
        (1, "COMPLETE", 0.75, {1: 0.75, 2: 0.5}, "completed"),
        (2, "FAIL", None, {1: 0.1}, "failed: killed\u2028"),
        (3, "COMPLETE", -1.0, {1: -1.0}, "stopped: trial time limit"),
    ]
    trials = study.trials
    assert trials[1].params == {"model": 1, "model/1/depth": 3, "lr": 0.02}
    assert trials[1].distributions["lr"] == FloatDistribution(1e-4, 1e-1, log=True)
    assert trials[1].distributions["model"] == CategoricalDistribution((0, 1, 2))
    assert trials[1].user_attrs["config"] == CONFIGS[1]
    assert trials[3].params == {}
    assert study.best_trial.number == 1
    for trial in trials:
        assert trial.datetime_start is not None
        assert (trial.datetime_complete is not None) == trial.state.is_finished()


@pytest.mark.parametrize("interval_s", [0.0, 1e9])
def test_updates_may_be_many_or_few(path, monkeypatch, interval_s):
    whole = path.with_name("whole.log")
    follow(whole)
    monkeypatch.setattr(optuna_tracker, "INTERVAL_S", interval_s)
    monkeypatch.setattr(optuna_tracker, "OVERHEAD", 1e9)
    follow(path)
    assert rows(path) == rows(whole)
    num_lines = len(path.read_text().splitlines())
    assert num_lines > 12 if interval_s == 0 else num_lines < 12


@pytest.mark.parametrize("num", range(0, len(HISTORY), 3))
def test_a_resumed_study_continues_the_file_without_duplicates(path, num):
    whole = path.with_name("whole.log")
    follow(whole)
    record = follow(path, HISTORY[:num])
    load(path).set_user_attr("note", "from elsewhere") if num else None
    for event in HISTORY[num : num + 2]:  # what the process did not write before it was killed
        record.apply(event)
    follow(path, HISTORY[num + 2 :], record)
    assert rows(path) == rows(whole)
    assert load(path).user_attrs == ({"note": "from elsewhere"} if num else {})


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"\0\0\n" + content,
        lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
        lambda content: content[:-20],
        lambda content: content + b'{"op_code": 4,\n',
        lambda content: content + b'{"op_code": 6, "trial_id": 2\n',
        lambda content: content + content.splitlines(keepends=True)[-1].replace(b"}", b', "trial_id": 99}'),
        lambda content: content + content.splitlines(keepends=True)[1],  # one more trial than the study has
        lambda content: content.replace(b"0.02", b"0.03"),
        lambda content: content.replace(b"saccade", b"another"),
        lambda _: b"not what it was\n",
        lambda _: b"[1]\n",
        lambda _: b"3\n",
        lambda _: b'{"op_code": "x"}\n',
        lambda _: b'{"op_code": 99}\n',
        lambda _: b"[" * 100_000 + b"\n",
        lambda _: b"\n\n",
        lambda _: b"",
        None,
    ],
)
def test_a_damaged_file_is_renamed_and_written_again(path, damage):
    record = follow(path, HISTORY[:-4])
    whole = path.with_name("whole.log")
    follow(whole)
    content = b"" if damage is None else damage(path.read_bytes())
    path.unlink() if damage is None else path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        follow(path, HISTORY[-4:], record)
        follow(path, [], record)  # it is sound again
    assert rows(path) == rows(whole)
    assert [str(warning.message).count("is damaged") for warning in caught] in ([], [1])
    kept = path.with_name("journal.log.damaged")
    assert kept.read_bytes() == content if caught else not kept.exists()


def test_damaged_files_do_not_replace_each_other(path):
    record = follow(path)
    for content in (b"1\n", b"2\n"):
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="is damaged"):
            follow(path, [], record)
    assert sorted(each.read_bytes() for each in path.parent.glob("*.damaged*")) == [b"1\n", b"2\n"]


def test_the_best_trial_in_optuna_is_that_of_the_study(path):
    executor = SimulatedExecutor(lambda config: [config["x"], config["x"] / 2])
    study = Study(executor, RandomSearcher({"x": Real(0, 1)}), FIFOScheduler(), num_trials=20)
    with OptunaTracker(path, study.trials, Dict(x=Real(0, 1))) as tracker:
        study.listeners.append(tracker)
        study.run()
    assert load(path).best_trial.number == study.best_trial.number
    assert load(path).best_value == study.best_trial.best_report.score
    assert len(load(path).trials) == 20


def test_an_error_is_a_warning_and_ends_only_the_tracker(path):
    path.parent.write_text("in the way")
    with pytest.warns(UserWarning, match=r"journal\.log, the copy .* is no longer updated: .*Error"):
        record = follow(path)
    assert len(record.trials) == 4


def test_the_dashboard_opens_it(path):
    dashboard = pytest.importorskip("optuna_dashboard")
    follow(path)
    app = dashboard.wsgi(storage(path))

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
