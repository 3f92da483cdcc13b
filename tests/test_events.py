from __future__ import annotations

import json
import math
import os
import time
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import DivergedError, UnknownNameError
from saccade.events import (
    DataReady,
    EpochDone,
    Event,
    EventLog,
    JobDone,
    JobFailed,
    LineFile,
    Progressed,
    RunFinished,
    RunStarted,
    TrialStarted,
    Warned,
    from_json,
    to_json,
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_COUNTS = st.integers(0, 10**9)
EVENTS = st.one_of(
    st.builds(RunStarted, st.text(), st.none() | _COUNTS, st.none() | _FLOATS),
    st.builds(DataReady, _COUNTS, _COUNTS, _COUNTS, _COUNTS, _FLOATS),
    st.builds(Warned, st.text()),
    st.builds(Progressed, st.text(), _COUNTS, _COUNTS),
    st.builds(TrialStarted, _COUNTS, st.dictionaries(st.text(), _JSON, max_size=3)),
    st.builds(
        EpochDone,
        _COUNTS,
        _COUNTS,
        _FLOATS,
        _FLOATS,
        st.dictionaries(st.text(), _FLOATS),
        st.none() | st.text(),
        st.booleans(),
    ),
    st.builds(JobDone, _COUNTS, st.sampled_from(["completed", "paused"]), st.text()),
    st.builds(JobFailed, _COUNTS, st.text(), st.text(), st.booleans()),
    st.builds(RunFinished, st.none() | _COUNTS, st.none() | _FLOATS, _FLOATS),
)


@given(EVENTS)
def test_every_event_comes_back_from_json(event):
    assert from_json(json.loads(json.dumps(to_json(event), allow_nan=False))) == event


def test_every_kind_has_its_own_name():
    kinds = [cls.kind for cls in Event.__subclasses__()]
    assert sorted(kinds) == sorted(set(kinds))
    assert len(kinds) == 9


def test_what_json_lacks():
    config = {
        "inf": math.inf,
        "tuple": (1, 2),
        3: Path,
        "numbers": [np.float32(0.5), np.int64(7), np.float64("nan")],
        "bools": [True, np.bool_(True)],
        "array": {"nested": {1}},
    }
    assert to_json(TrialStarted(0, config)) == {
        "kind": "trial_started",
        "trial": 0,
        "config": {
            "inf": None,
            "tuple": [1, 2],
            "3": repr(Path),
            "numbers": [0.5, 7, None],
            "bools": [True, repr(np.bool_(True))],
            "array": {"nested": "{1}"},
        },
    }


def test_a_metric_that_json_lacks_is_nan_again():
    event = EpochDone(0, 1, 0.5, metrics={"loss": math.inf, "top1": 0.5})
    metrics = from_json(to_json(event)).metrics
    assert math.isnan(metrics["loss"])
    assert metrics["top1"] == 0.5


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_score_is_finite(score):
    with pytest.raises(DivergedError, match=r"the score of epoch 3 is .*; a score is a finite number"):
        EpochDone(0, 3, score)


def test_an_unknown_kind_is_refused():
    with pytest.raises(UnknownNameError, match=r"Unknown kind of event 'warnd'\. Did you mean 'warned'\?"):
        from_json({"kind": "warnd", "text": ""})


def test_events_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Warned("a").text = "b"


HISTORY = [RunStarted("r", 2, None), Warned("line\nbreak \u2028 ä"), EpochDone(0, 1, 0.5), JobDone(0)]


@pytest.fixture
def log(tmp_path):
    return EventLog(tmp_path / "new" / "folder" / "events.jsonl")


def test_the_log_makes_its_folder_with_the_first_event_and_keeps_the_order(log):
    assert not log.path.parent.exists()
    for event in HISTORY:
        log(event)
    assert list(log) == list(log) == list(EventLog(log.path)) == HISTORY


def test_a_line_of_the_log_is_json_with_a_time(log):
    log(HISTORY[1])
    (line,) = log.path.read_bytes().splitlines()
    record = json.loads(line)
    assert record["kind"] == "warned"
    assert abs(record["time"] - time.time()) < 60


def test_passing_progress_is_not_logged(log):
    log(Progressed("decoding", 1, 100))
    assert not log.path.exists()


def test_every_event_is_in_the_file_at_once(log):
    for num, event in enumerate(HISTORY, start=1):
        log(event)
        assert log.path.read_bytes().count(b"\n") == num


@pytest.mark.parametrize("num_kept", [0, 1, 20])
def test_a_last_line_cut_by_a_kill_is_not_read_and_gives_way_to_the_next_event(log, num_kept):
    log(HISTORY[0])
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + whole[:num_kept])
    assert list(log) == HISTORY[:1]
    EventLog(log.path)(HISTORY[1])
    assert list(log) == HISTORY[:2]


def test_a_first_line_cut_by_a_kill_gives_way_too(log):
    log(HISTORY[0])
    log.path.write_bytes(log.path.read_bytes()[:-1])
    assert list(log) == []
    log(HISTORY[1])
    assert list(log) == HISTORY[1:2]


def test_damage_in_the_middle_is_not_passed_over(log):
    log(HISTORY[0])
    log.path.write_bytes(b"{}}\n" + log.path.read_bytes())
    with pytest.raises(json.JSONDecodeError):
        list(log)


def test_a_closed_log_is_opened_again_by_the_next_event(log):
    for event in HISTORY:
        log(event)
        log.close()
        log.close()
    assert list(log) == HISTORY


def test_two_logs_of_one_file_do_not_overwrite_each_other(log):
    other = EventLog(log.path)
    log(HISTORY[0])
    other(HISTORY[1])
    log(HISTORY[2])
    assert list(log) == HISTORY[:3]


class TestLineFile:
    def test_a_torn_line_of_any_length_is_cut(self, tmp_path):
        file = LineFile(tmp_path / "lines")
        file.append(b"one", b"", b"three")
        whole = file.path.read_bytes()
        for rest in (b"x", b"x" * 65_535, b"x" * 65_536, b"x" * 200_000):
            file.close()
            file.path.write_bytes(whole + rest)
            assert list(file) == [b"one", b"", b"three"]
            file.append(b"more")
            assert list(file) == [b"one", b"", b"three", b"more"]

    def test_a_write_that_fails_half_way_leaves_no_half_line(self, tmp_path, monkeypatch):
        file = LineFile(tmp_path / "lines")
        file.append(b"one")

        def full(descriptor, data):
            if len(data) < 5:
                raise OSError("no space left on the device")
            return write(descriptor, data[:3])

        write = os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="no space left"):
                file.append(b"a longer line")
        assert list(file) == [b"one"]
        file.append(b"two")
        assert list(file) == [b"one", b"two"]

    def test_an_open_file_that_nobody_closes_is_no_fault(self, tmp_path):
        file = LineFile(tmp_path / "lines")
        file.append(b"one")
        descriptor = file._descriptor
        del file
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
