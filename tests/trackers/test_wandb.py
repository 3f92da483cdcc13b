from __future__ import annotations

import json
import struct
import time

import pytest

from saccade.deadline import Deadline
from saccade.testing import TrackerContract
from saccade.trackers.wandb import WandbTracker

wandb = pytest.importorskip("wandb")


class TestWandb(TrackerContract):
    def make(self, tmp_path):
        return WandbTracker()


def records(folder):
    """Return the records of an offline run's file, which a process of the library completes after the run."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    deadline = Deadline(30)
    while "exit" not in [each.WhichOneof("record_type") for each in records_in(path)]:
        assert deadline.seconds_left() > 0
        time.sleep(0.02)
    return records_in(path)


def records_in(path):
    """Return the records of a file: a LevelDB log behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, at, part, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if at % 32768 > 32768 - 7:  # the rest of a block is empty
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        part += content[at + 7 : at + 7 + length]
        at += 7 + length
        if at > len(content):
            break
        if kind in (1, 4):  # a whole record, or the end of one
            found.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    return found


def values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_epochs_summary_and_leaderboard_are_in_the_run(search, tmp_path):
    search("wandb", path=tmp_path / "run")
    found = records(tmp_path / "run")
    rows = [values(each.history.item) for each in found if each.WhichOneof("record_type") == "history"]
    epochs = [row for row in rows if "trial" in row]
    assert len(epochs) == 9
    assert [(row["trial"], row["epoch"], row["loss"]) for row in epochs[6:9]] == [(2, 1, 3.0), (2, 2, 1.5), (2, 3, 1.0)]
    assert epochs[8]["trials/2"] == -1.0
    assert epochs[8]["best_score"] == pytest.approx(-1 / 3)
    (table,) = [row for row in rows if "leaderboard/nrows" in row]
    assert (table["leaderboard/nrows"], table["leaderboard/_type"]) == (3, "table-file")
    summary: dict = {}
    for each in found:
        if each.WhichOneof("record_type") == "summary":
            summary |= values(each.summary.update)
    assert (summary["best_trial"], summary["num_trials"], summary["best_config.x"]) == (0, 3, 1)
    config: dict = {}
    for each in found:
        if each.WhichOneof("record_type") in ("run", "config"):
            part = each.run.config if each.WhichOneof("record_type") == "run" else each.config
            config |= values(part.update)
    assert config["metric"] == "loss"
    assert config["run_folder"] == str(tmp_path / "run")
    (run,) = {each.run.run_id for each in found if each.WhichOneof("record_type") == "run"}
    assert json.loads((tmp_path / "run" / "trackers.json").read_text()) == {"wandb": run}


def test_the_active_run_is_used_and_stays_active(search, tmp_path):
    with wandb.init(dir=tmp_path, project="mine", settings=wandb.Settings(console="off")) as mine:
        search("wandb", num_trials=1)
        assert wandb.run is mine
        assert mine.summary["best_trial"] == 0
        mine.log({"after": 1})
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1


def test_without_an_api_key_nothing_is_asked(search, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.warns(UserWarning, match="has no API key, so the run is only recorded in files"):
        search("wandb", path=tmp_path / "run", num_trials=1)
    assert records(tmp_path / "run")


def test_a_resumed_search_continues_its_run(search, tmp_path):
    search("wandb", path=tmp_path, num_trials=1)
    search("wandb", path=tmp_path, num_trials=2, resume=True)
    (name,) = {path.name for path in tmp_path.glob("wandb/offline-run-*/run-*.wandb")}
    assert name == f"run-{json.loads((tmp_path / 'trackers.json').read_text())['wandb']}.wandb"
