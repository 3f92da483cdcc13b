from __future__ import annotations

import base64
import json
from pathlib import Path

import pandas as pd
import pytest

from saccade import ImagePredictor
from saccade.testing import TrackerContract
from saccade.trackers.mlflow import MlflowTracker, _image_of, _signature

mlflow = pytest.importorskip("mlflow")

# What MLflow causes in other libraries, and a remark on its own classes, which it hides in a way that threads disturb.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is inferred as AnyType"),
]

CHILDREN = "tags.`mlflow.parentRunId` = '{}'"


@pytest.fixture(autouse=True)
def experiment(request):
    return mlflow.set_experiment(request.node.name).experiment_id


def runs(experiment):
    """Return the parent runs of an experiment, and their trials."""
    found = mlflow.search_runs([experiment], output_format="list", order_by=["attributes.start_time"])
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parents[-1].info.run_id]
    return parents, sorted(children, key=lambda run: int(run.data.tags["saccade.trial"]))


class TestMlflow(TrackerContract):
    def make(self, tmp_path):
        return MlflowTracker()


def test_trials_are_nested_runs_with_parameters_and_metrics(search, experiment, tmp_path):
    search("mlflow", path=tmp_path / "run")
    (parent,), children = runs(experiment)
    assert (parent.info.run_name, parent.info.status) == ("run", "FINISHED")
    assert parent.data.tags["saccade.run_folder"] == str(tmp_path / "run")
    assert parent.data.params["metric"] == "loss"
    assert parent.data.metrics["best_score"] == pytest.approx(-1 / 3)
    assert parent.data.metrics["num_trials"] == 3
    assert [child.data.params["x"] for child in children] == ["1", "1", "3"]
    assert children[1].data.params == {"x": "1", "net.name": "b", "net.depth": "3"}
    assert [child.info.status for child in children] == ["FINISHED"] * 3
    history = mlflow.MlflowClient().get_metric_history(children[2].info.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert children[0].data.metrics["f1_0.5"] == 1.0
    table = Path(mlflow.artifacts.download_artifacts(run_id=parent.info.run_id, artifact_path="leaderboard.csv"))
    assert pd.read_csv(table)["trial"].tolist() == [0, 1, 2]


def test_a_resumed_search_continues_its_run(search, experiment, tmp_path):
    search("mlflow", path=tmp_path, num_trials=1)
    search("mlflow", path=tmp_path, num_trials=2, resume=True)
    (parent,), children = runs(experiment)
    assert parent.info.run_id == json.loads((tmp_path / "trackers.json").read_text())["mlflow"]
    assert parent.data.metrics["num_trials"] == 2
    assert len(children) == 2


def test_a_run_that_was_deleted_is_replaced_when_the_search_is_resumed(search, experiment, tmp_path):
    (tmp_path / "trackers.json").write_text('{"mlflow": "0123456789abcdef0123456789abcdef"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saccade.tuning.tuner.check_path", lambda folder: None)
        search("mlflow", path=tmp_path, num_trials=1)
    (parent,), _ = runs(experiment)
    assert parent.info.run_id == json.loads((tmp_path / "trackers.json").read_text())["mlflow"]


def test_the_active_run_is_used_and_stays_active(search, experiment):
    with mlflow.start_run(run_name="mine") as mine:
        mlflow.log_param("metric", "my own value")
        search("mlflow")
        assert mlflow.active_run().info.run_id == mine.info.run_id
        assert mlflow.MlflowClient().get_run(mine.info.run_id).info.status == "RUNNING"
    (parent,), children = runs(experiment)
    assert (parent.info.run_name, parent.info.status, len(children)) == ("mine", "FINISHED", 3)
    assert parent.data.params["metric"] == "my own value"


def test_a_failed_search_is_a_failed_run(experiment):
    from saccade import tune

    with pytest.raises(Exception, match="failed"):
        tune(lambda config: config["y"], {"x": 1}, callbacks=["mlflow"], verbosity=0)
    (parent,), (child,) = runs(experiment)
    assert (parent.info.status, child.info.status) == ("FAILED", "FAILED")
    assert child.data.tags["saccade.reason"] == "KeyError: 'y'"


@pytest.fixture(scope="module")
def fitted(make_colours_once, tmp_path_factory):
    """Return the data of a fit, its predictor, and the run that MLflow has of it."""
    experiment = mlflow.set_experiment("fit").experiment_id
    data = make_colours_once(8)
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("fit") / "run", verbosity=0)
    small = {"model": "test_resnet", "pretrained": False, "img_size": 32, "epochs": 1, "batch_size": 4}
    predictor.fit(data, hyperparameters=small, callbacks=["mlflow"])
    return data, predictor, runs(experiment)[0][0]


def test_mlflow_loads_the_predictor(fitted):
    data, predictor, run = fitted
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    expected = predictor.predict(data).tolist()
    paths = data[["image"]]
    content = [Path(path).read_bytes() for path in paths["image"]]
    text = [base64.b64encode(each).decode() for each in content]
    for images in (paths["image"].tolist(), content, text, [f"data:image/png;base64,{each}" for each in text]):
        assert list(model.predict(pd.DataFrame({"image": images}))) == expected
    assert list(model.predict(data[["label", "image"]])) == expected
    proba = model.predict(paths, params={"proba": True})
    pd.testing.assert_frame_equal(proba, predictor.predict_proba(paths["image"].tolist()))
    signature = model.metadata.signature
    assert signature.inputs.input_names() == ["image"]
    assert [(each.name, each.type.name) for each in signature.outputs.inputs] == [("label", "string")]
    example = mlflow.models.Model.load(f"runs:/{run.info.run_id}/model").load_input_example()
    assert model.predict(example)[0] in predictor.classes


def test_files_of_the_run_are_artifacts(fitted):
    _, _, run = fitted
    client = mlflow.MlflowClient()
    names = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert {"fit.toml", "leaderboard.csv"} <= names
    assert run.data.params["num_train"] == "14"
    assert run.data.params["problem"].startswith("binary")
    pytest.importorskip("onnxscript")
    assert "onnx/model.onnx" in {each.path for each in client.list_artifacts(run.info.run_id, "onnx")}


@pytest.mark.parametrize(
    "value", ["a.png", "https://x.org/a.png", "/" + "a" * 79, "x" * 65, "no base64 " * 9, b"abc", 3]
)
def test_what_is_not_base64_is_a_path(value):
    assert _image_of(value) == (value if value != "/" + "a" * 79 else base64.b64decode(value))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pd.Series(["a"], name="kind"), [("kind", "string")]),
        (pd.Series([1], name="kind"), [("kind", "long")]),
        (pd.Series([0.5], name="price"), [("price", "double")]),
        (pd.DataFrame({"red": [1], "green": [0]}), [("red", "long"), ("green", "long")]),
    ],
)
def test_the_signature_has_the_type_of_the_labels(labels, expected):
    assert [(each.name, each.type.name) for each in _signature(labels).outputs.inputs] == expected
