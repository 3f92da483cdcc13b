from __future__ import annotations

import pytest

from saccade.testing import TrackerContract
from saccade.trackers.tensorboard import TensorBoardTracker

pytest.importorskip("tensorboard")


class TestTensorBoard(TrackerContract):
    def make(self, tmp_path):
        return TensorBoardTracker(tmp_path / "logs")


def read(folder):
    """Return what TensorBoard itself reads in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_each_trial_has_curves_and_hyperparameters(search, tmp_path):
    search("tensorboard", path=tmp_path / "run")
    folder = tmp_path / "run" / "tensorboard"
    assert sorted(each.name for each in folder.iterdir()) == ["run", "trial-0000", "trial-0001", "trial-0002"]
    trial = read(folder / "trial-0002")
    assert [(each.step, each.value) for each in trial.Scalars("loss")] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert trial.Scalars("hparam/best_score")[0].value == -1.0
    from tensorboard.plugins.hparams import plugin_data_pb2

    parsed = plugin_data_pb2.HParamsPluginData()
    start = trial.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    parsed.ParseFromString(start)
    values = parsed.session_start_info.hparams
    assert (values["x"].number_value, values["net"].string_value) == (3.0, "a")
    run = read(folder / "run")
    assert run.Scalars("best_score")[-1].value == pytest.approx(-1 / 3)
    text = run.Tensors("run/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "| metric | loss |" in text
    assert "| num_trials | 3 |" in text


def test_a_resumed_search_adds_to_the_folder(search, tmp_path):
    search("tensorboard", path=tmp_path, num_trials=1)
    search("tensorboard", path=tmp_path, num_trials=2, resume=True)
    assert read(tmp_path / "tensorboard" / "trial-0001").Scalars("loss")
    best = read(tmp_path / "tensorboard" / "run").Scalars("best_score")
    assert [each.value for each in best] == pytest.approx([-1, -1 / 2, -1 / 3])  # trial 1 is not better


def test_a_search_without_a_folder_writes_to_runs(search, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search("tensorboard", num_trials=1)
    assert list(tmp_path.glob("runs/saccade_*/trial-0000/events.out.tfevents.*"))
