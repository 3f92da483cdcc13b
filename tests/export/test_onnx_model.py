"""Which ONNX files are read, and that this requires no torch."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import DataError, SavedPredictorError
from saccade.export.metadata import FORMAT_VERSION, KEY, ExportedPreprocessing, ExportMetadata
from saccade.export.onnx_model import OnnxModel, refers_to_files

onnx = pytest.importorskip("onnx", reason="requires the extra onnx")
pytest.importorskip("onnxruntime", reason="requires the extra onnx")

METADATA = ExportMetadata(
    saccade_version="1",
    problem_type="regression",
    class_names=[],
    models=[],
    preprocessing=ExportedPreprocessing(channels=3, shorter_side=4, steps=[]),
    metrics={},
    outputs=["prediction"],
)


def mean_model(metadata: str | None = METADATA.model_dump_json()) -> onnx.ModelProto:
    """Return a model that predicts the mean of an image."""
    helper = onnx.helper
    images = helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["n", "h", "w", 3])
    prediction = helper.make_tensor_value_info("prediction", onnx.TensorProto.FLOAT, ["n"])
    axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [3], [1, 2, 3])
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["prediction"], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "mean", [images], [prediction], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if metadata is not None:
        helper.set_model_props(model, {KEY: metadata})
    return model


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def test_images_of_several_sizes_keep_their_order(tmp_path: Path) -> None:
    model = OnnxModel(saved(tmp_path, mean_model()))
    images = [np.full((2 + number % 3, 3, 3), number, np.uint8) for number in range(70)]
    assert model.predict(images)["prediction"].tolist() == list(range(70))
    assert model.predict([]) == {}
    for wrong in (np.zeros((3, 3), np.uint8), np.zeros((3, 3, 4), np.uint8), np.zeros((3, 3, 3)), "a.png"):
        with pytest.raises(DataError, match=r"image 1 is .*; expected uint8 of shape \(height, width, 3\)"):
            model.predict([images[0], wrong])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "no metadata of Saccade"),
        ("{", "damaged metadata"),
        ('{"saccade_version": "1"}', "damaged metadata"),
        (METADATA.model_copy(update={"format_version": FORMAT_VERSION + 1}).model_dump_json(), "Update saccade"),
        (METADATA.model_copy(update={"outputs": ["label"]}).model_dump_json(), "other inputs and outputs"),
    ],
)
def test_files_of_others_are_refused(text: str | None, match: str, tmp_path: Path) -> None:
    with pytest.raises(SavedPredictorError, match=match):
        OnnxModel(saved(tmp_path, mean_model(text)))


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    content = mean_model().SerializeToString()
    for number, part in enumerate((b"", b"no protobuf", content[:-40], content[: len(content) // 2])):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(part)
        with pytest.raises(SavedPredictorError, match=str(path)):
            OnnxModel(path)
    for missing in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(SavedPredictorError, match="does not exist"):
            OnnxModel(missing)


def test_a_file_that_refers_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(24))
    model = mean_model()
    assert not refers_to_files(model.SerializeToString())
    (axes,) = model.graph.initializer
    axes.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 2, 3]), "axes"))
    onnx.external_data_helper.set_external_data(axes, "secret")
    axes.ClearField("raw_data")
    with pytest.raises(SavedPredictorError, match="refers to other files"):
        OnnxModel(saved(tmp_path, model))
    nested = onnx.helper.make_node("If", ["x"], ["y"], then_branch=model.graph, else_branch=model.graph)
    outer = mean_model()
    outer.graph.node.append(nested)
    assert refers_to_files(outer.SerializeToString())


@given(st.binary(max_size=200))
def test_any_bytes_are_read_to_their_end_or_refused(content: bytes) -> None:
    with contextlib.suppress(ValueError, LookupError):
        assert refers_to_files(content) in (True, False)


WITHOUT_TORCH = """
import sys
MISSING = ("torch", "torchvision", "timm", "pandas", "sklearn", "scipy", "optuna", "safetensors")
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import numpy as np
from saccade.export.onnx_model import OnnxModel
from saccade.export import EXPORT_FORMATS
print(OnnxModel(sys.argv[1]).predict([np.full((2, 2, 3), 7, np.uint8)])["prediction"][0], "onnx" in EXPORT_FORMATS)
"""


def test_predictions_require_no_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(saved(tmp_path, mean_model()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "7.0 True\n", done.stderr
