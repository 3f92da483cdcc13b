from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.space_strategies import DICTS
from saccade.errors import JournalError
from saccade.events import (
    DataReady,
    Decision,
    EpochDone,
    JobDone,
    JobFailed,
    JobStarted,
    Progressed,
    RunFinished,
    RunStarted,
    TrialCreated,
    TrialRestarted,
    Warned,
)
from saccade.scheduler import FIFOScheduler
from saccade.searcher import GridSearcher
from saccade.space import Categorical, Dict, Real
from saccade.study.event_log import EventLog
from saccade.study.life import StudyRecord
from saccade.study.study import Study
from saccade.study.trial import Status
from saccade.testing.simulated_executor import SimulatedExecutor

HISTORY = [
    RunStarted("r", 2, None),
    DataReady(10, 2, 3, 1, 0.5),
    TrialCreated(0, {"lr": 0.01, "epochs": 5}),
    JobStarted(0, 1),
    EpochDone(0, 0, 0.25, 0.5, {"loss": math.inf, "top5": 0.5}, decision=Decision.CONTINUE),
    EpochDone(0, 1, 0.5, 1.5, {}, "last-0001", decision=Decision.PAUSE),
    JobDone(0, "paused", "as decided"),
    TrialCreated(1, {"lr": 0.02, "epochs": 5}),
    JobStarted(1),
    EpochDone(1, 1, 0.1, 1.0, decision=Decision.CONTINUE),
    Warned("line\nbreak \u2028 ä"),
    TrialRestarted(1, -1, num_retries=1),
    JobStarted(1),
    EpochDone(1, 1, 0.2, 1.0, decision=Decision.CONTINUE),
    JobFailed(1, "killed\u2028", "Traceback\nä", is_worker_lost=True),
    JobStarted(0, 3),
    EpochDone(0, 2, 0.625, 1.0, {}, "last-0002", is_last=True, decision=Decision.STOP),
    JobDone(0),
    RunFinished(0, 0.625, 9.0),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "events.jsonl"


def write(path, events=HISTORY, space=None):
    with EventLog(path, space) as log:
        for event in events:
            log(event)


def decisions(events):
    return [event.decision for event in events if isinstance(event, EpochDone)]


class TestReading:
    def test_every_event_is_read_as_it_was_written(self, path):
        write(path)
        events = list(EventLog(path))
        assert events == HISTORY
        assert decisions(events) == decisions(HISTORY)
        assert EventLog(path).seconds_used() >= 0

    def test_there_is_nothing_before_the_first_event(self, path):
        assert list(EventLog(path)) == []
        assert EventLog(path).seconds_used() == 0
        assert not path.parent.exists()

    def test_every_event_is_in_the_file_at_once_and_can_be_read_while_the_log_is_open(self, path):
        with EventLog(path) as log:
            for num, event in enumerate(HISTORY, start=1):
                log(event)
                assert list(EventLog(path)) == HISTORY[:num]

    def test_a_line_is_json_with_a_time_and_the_first_one_has_the_version(self, path):
        write(path)
        records = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert records[0]["kind"] == "event_log"
        assert [record["kind"] for record in records[1:]] == [event.kind for event in HISTORY]
        assert all(isinstance(record[clock], float) for record in records for clock in ("time", "session_s"))

    def test_progress_is_not_logged(self, path):
        write(path, [Progressed("decoding", 1, 100)])
        assert not path.exists()

    @given(space=DICTS, seed=st.integers(0, 2**32 - 1))
    @settings(max_examples=50, deadline=None)
    def test_configurations_of_any_space(self, tmp_path_factory, space, seed):
        path = tmp_path_factory.mktemp("log") / "events.jsonl"
        config = space.sample(seed)
        write(path, [TrialCreated(0, config)], space)
        assert repr(list(EventLog(path))) == repr([TrialCreated(0, config)])

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
        write(path, [TrialCreated(0, config)])
        (event,) = EventLog(path)
        assert event.config == config
        assert [type(value) for value in event.config.values()] == [type(value) for value in config.values()]

    def test_numpys_numbers_are_read_as_pythons(self, path):
        report = EpochDone(0, np.int64(1), np.float32(0.5), np.float64(2.0), {"loss": np.float32("nan")})
        write(path, [TrialCreated(0, {"x": np.int64(3)}), report])
        created, read = EventLog(path)
        assert repr(created.config) == "{'x': 3}"
        assert repr((read.epoch, read.score, read.seconds)) == "(1, 0.5, 2.0)"
        assert math.isnan(read.metrics["loss"])

    def test_the_time_of_sessions_is_summed_whatever_the_clock_is_set_to(self, path, monkeypatch):
        times_of_day = iter([0, 10, 15, 9000, 8000, 20, 5000])  # set forward and back within sessions and between them
        now_s = [0.0]
        monkeypatch.setattr(time, "time", lambda: float(next(times_of_day)))
        monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
        start = RunStarted("r", None, None)
        for session in ([(100.0, start), (103.0, Warned("a")), (105.0, Warned("b"))],
                        [(7.0, start), (8.0, Warned("c")), (9.0, Warned("d"))]):  # fmt: skip
            with EventLog(path) as log:
                for now_s[0], event in session:
                    log(event)
        assert EventLog(path).seconds_used() == 5 + 2


class Odd:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"<odd {self.name}>"


class TestObjectsWithoutJSONForm:
    def test_they_are_restored_from_the_space(self, path):
        nets = [Odd("a"), Odd("b")]
        space = Dict(net=Categorical(*nets), constant=nets[1], lr=Real(0, 1))
        write(path, [TrialCreated(0, {"net": nets[1], "constant": nets[1], "lr": 0.5})], space)
        (event,) = EventLog(path, space)
        assert event.config == {"net": nets[1], "constant": nets[1], "lr": 0.5}

    @pytest.mark.parametrize("space", [None, Dict(other=Real(0, 1)), Dict(net=Categorical(1, 2))])
    def test_without_the_space_reading_fails_and_writing_does_not(self, path, space):
        write(path, [TrialCreated(0, {"net": Odd("a")}), JobStarted(0)], space)
        with pytest.raises(JournalError, match=r"trial 0 in .* has the value <odd a>.*Pass the space"):
            list(EventLog(path, space))
        assert EventLog(path).seconds_used() >= 0


class TestKills:
    def test_a_line_cut_anywhere_loses_its_event_only(self, path):
        sizes = [0]
        for event in HISTORY:
            write(path, [event])
            sizes.append(path.stat().st_size)
        whole = path.read_bytes()
        for num, (start, end) in enumerate(pairwise(sizes)):
            for cut in {start, start + 1, (start + end) // 2, end - 1}:
                path.write_bytes(whole[:cut])
                assert list(EventLog(path)) == HISTORY[:num]
                write(path, HISTORY[num:])
                assert list(EventLog(path)) == HISTORY, (num, cut)

    @pytest.mark.parametrize("damage", [b"\0" * 5000, b"\0\0\n", b'{"kind": "warn\0\0\0', b"\n"])
    def test_a_damaged_end_is_not_read_and_is_replaced_by_the_next_event(self, path, damage):
        write(path, HISTORY[:5])
        path.write_bytes(path.read_bytes() + damage)
        assert list(EventLog(path)) == HISTORY[:5]
        write(path, HISTORY[5:])
        assert list(EventLog(path)) == HISTORY
        assert b"\0" not in path.read_bytes()

    @pytest.mark.parametrize("content", [b"", b"\0" * 5000])
    def test_a_log_without_content_is_a_new_one(self, path, content):
        path.parent.mkdir()
        path.write_bytes(content)
        assert (list(EventLog(path)), EventLog(path).seconds_used()) == ([], 0)
        write(path)
        assert list(EventLog(path)) == HISTORY

    @pytest.mark.parametrize(
        "damage",
        [
            b"{}}", b"\0" * 40, b"[]", b"{}", b"a line of text", b"[" * 100_000, b'{"kind":"odd","time":1}',
            b'{"time":NaN,"session_s":0,"kind":"warned","text":""}', b'{"time":1e999,"kind":"warned","text":""}',
            b'{"time":1,"session_s":"1","kind":"warned","text":""}', b'{"time":1,"kind":"warned","text":3}',
            b'{"time":1,"kind":"job_started"}', b'{"time":1,"kind":"job_started","trial":7}',
            b'{"time":1,"kind":"job_started","trial":-1}', b'{"time":1,"kind":"trial_created","trial":5,"config":{}}',
            b'{"time":1,"kind":"trial_created","trial":1,"config":3}', b'{"time":1,"kind":["warned"],"text":""}',
            b'{"time":1,"kind":"epoch_done","trial":0,"epoch":"1","score":1.0}',
            b'{"time":1,"kind":"epoch_done","trial":0,"epoch":1,"score":{"!float":"nan"}}',
            b'{"time":1,"kind":"epoch_done","trial":0,"epoch":1,"score":1.0,"decision":"leave"}',
            b'{"time":1,"kind":"job_done","trial":0,"status":"odd"}',
        ],
    )  # fmt: skip
    def test_what_follows_an_invalid_line_is_moved_away_with_a_warning(self, path, damage):
        write(path)
        lines = path.read_bytes().splitlines(keepends=True)
        if b"session_s" not in damage:
            damage = damage.replace(b'"time":1,', b'"time":1,"session_s":1,')
        rest = b"".join([damage, b"\n", *lines[5:]])
        path.write_bytes(b"".join(lines[:5]) + rest)
        assert list(EventLog(path)) == HISTORY[:4]
        assert EventLog(path).seconds_used() >= 0
        num = len(lines) - 5 + bool(damage.strip(b"\0"))
        with pytest.warns(UserWarning, match=rf"damaged.*without its last {num} lines, which are in .*jsonl\.damaged"):
            write(path, HISTORY[4:])
        assert list(EventLog(path)) == HISTORY
        assert path.with_name("events.jsonl.damaged").read_bytes() == rest

    def test_a_killed_process_loses_nothing_and_holds_no_lock(self, path):
        code = f"""
import os, signal
from pathlib import Path
from saccade.events import TrialCreated
from saccade.study.event_log import EventLog
log = EventLog(Path({str(path)!r}))
log(TrialCreated(0, {{"x": 1}}))
os.kill(os.getpid(), signal.SIGKILL)
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
        write(path, [JobStarted(0, 7)])
        assert list(EventLog(path)) == [TrialCreated(0, {"x": 1}), JobStarted(0, 7)]

    def test_a_write_that_fails_half_way_leaves_no_half_line(self, path, monkeypatch):
        import os

        write_bytes = os.write

        def full(descriptor, data):
            if len(data) < 50:
                raise OSError("no space left on the device")
            return write_bytes(descriptor, data[:30])

        with EventLog(path) as log:
            log(HISTORY[0])
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", full)
                with pytest.raises(OSError, match="no space left"):
                    log(HISTORY[1])
            assert list(log) == HISTORY[:1]
            log(HISTORY[1])
        assert list(EventLog(path)) == HISTORY[:2]


class TestErrors:
    def test_two_do_not_write_at_once(self, path):
        with EventLog(path) as first:
            first(HISTORY[0])
            with pytest.raises(JournalError, match=r"events\.jsonl is being written by another run"):
                write(path)
            first(HISTORY[1])
        write(path, HISTORY[2:])
        assert list(EventLog(path)) == HISTORY

    @pytest.mark.parametrize("line", ['{"op_code": 0}', '{"time": 1, "kind": "event_log", "version": 1}'])
    def test_a_log_of_the_time_before_the_first_release_is_refused(self, path, line):
        path.parent.mkdir()
        path.write_text(line + "\n")
        for read in (list, EventLog.seconds_used):
            with pytest.raises(JournalError, match="before the first release"):
                read(EventLog(path))

    def test_a_newer_version_is_refused(self, path):
        write(path)
        path.write_bytes(path.read_bytes().replace(b'"version":3', b'"version":4'))
        with pytest.raises(JournalError, match="written by a newer version"):
            list(EventLog(path))


def test_the_log_of_a_study_restores_its_trials_and_their_order(path):
    space = Dict(x=Categorical({"a": (1, 2)}, [3], None, True, 1.5))
    heard = []
    with EventLog(path, space) as log:
        executor = SimulatedExecutor(lambda config: [0.5, 0.25])
        study = Study(executor, GridSearcher(space), FIFOScheduler(), log=log, listeners=[heard.append])
        study.run()
    assert list(log) == heard
    assert set(decisions(heard)) == {Decision.CONTINUE}
    restored = StudyRecord.load(log).trials
    assert restored == study.trials
    assert [trial.seconds for trial in restored] == [trial.seconds for trial in study.trials]


def test_a_record_follows_the_events():
    record = StudyRecord.load(HISTORY)
    assert [trial.status for trial in record.trials] == [Status.COMPLETED, Status.FAILED]
    assert [report.epoch for report in record.trials[0].reports] == [0, 1, 2]
    assert (record.trials[1].num_retries, record.trials[1].seconds) == (1, 2.0)
    assert record.trials[1].failure == replace(HISTORY[14])
    assert record.jobs == {}
