"""Every export format: the same images give the same outputs, and a failed export leaves nothing behind."""

from __future__ import annotations

import copy
import errno
import importlib.metadata
import importlib.util
import json
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from contracts.export_problems import Problems
from forked import Forked
from saccade import ImagePredictor
from saccade.cli import app
from saccade.errors import HyperparameterError, SaccadeError, SavedPredictorError, UnknownNameError
from saccade.export import EXPORT_FORMATS, ExportFormat
from saccade.export.formats.onnx_format import OnnxFormat
from saccade.export.metadata import ExportedPreprocessing, ExportMetadata, PrecisionResult
from saccade.export.onnx_model import OnnxModel

MakeColours = Callable[..., pd.DataFrame]
TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1, "lr": 3e-3}
LABELS = {"blue": "b\"l'u\n<e> \\", "red": "r\u00e9d \U0001f600 & \u4e2d"}
WHOLE = ("onnx", "pt2", "openvino", "litert", "coreml")  # formats of whole predictors


def fit(frame: pd.DataFrame, path: Path, **options: Any) -> ImagePredictor:
    predictor = ImagePredictor(path=path, verbosity=0)
    return predictor.fit(frame, frame, hyperparameters={**TINY, **options})


@pytest.fixture(scope="module")
def frame(make_colours_once: MakeColours) -> pd.DataFrame:
    found = make_colours_once(10)
    return found.assign(label=found["label"].map(LABELS))


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    return fit(frame, tmp_path_factory.mktemp("run") / "run")


def metadata_of(name: str, file: Path) -> ExportMetadata:
    """Read the metadata as the documentation says, without Saccade's reader."""
    if name == "onnx":
        import onnx

        text = {entry.key: entry.value for entry in onnx.load(file).metadata_props}["saccade"]
    elif name == "pt2":
        extra = {"saccade.json": ""}
        torch.export.load(file, extra_files=extra)
        text = extra["saccade.json"]
    elif name == "openvino":
        import openvino

        text = str(openvino.Core().read_model(file).get_rt_info("saccade").astype(str))
    elif name == "litert":
        text = zipfile.ZipFile(file).read("saccade.json").decode()
    else:
        import coremltools

        text = coremltools.models.MLModel(str(file), skip_model_load=True).user_defined_metadata["saccade"]
    return ExportMetadata.model_validate_json(text)


@pytest.fixture(scope="module", autouse=True)
def _converted_once() -> Iterator[None]:
    """Convert the predictor of this file to ONNX once, which takes seconds."""
    convert, converted = OnnxFormat.convert, []

    def convert_once(chosen: OnnxFormat, module: Any) -> Any:
        if not converted:
            converted.append(convert(chosen, module))
        return copy.deepcopy(converted[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxFormat, "convert", convert_once)
        yield


@pytest.fixture(scope="module", params=WHOLE)
def exported(
    request: Any, fitted: ImagePredictor, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExportFormat, Path]:
    """A file of each format; that of OpenVINO is written by the command line, for images of a given size."""
    chosen = EXPORT_FORMATS.make(request.param)
    for package in chosen.packages:
        pytest.importorskip(package, reason=f"needs the extra {chosen.extra}", exc_type=ImportError)
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "openvino":
        arguments = ["export", fitted.path, "--to", "openvino", "--out", str(folder), "--image-size", "40x70"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return chosen, folder / "model.xml"
    return chosen, Path(fitted.export(request.param, folder, check=not chosen.why_unchecked))


def images_for(chosen: ExportFormat, frame: pd.DataFrame, metadata: ExportMetadata) -> np.ndarray:
    height, width = metadata.image_size or (45, 61)
    return np.stack([np.asarray(Image.open(path).resize((width, height))) for path in frame["image"][:6]])


def test_same_images_same_outputs_and_names(
    exported: tuple[ExportFormat, Path], fitted: ImagePredictor, frame: pd.DataFrame
) -> None:
    chosen, file = exported
    metadata = metadata_of(chosen.name, file)
    assert metadata.class_names == list(LABELS.values())
    assert metadata.outputs == ["probabilities", "label", "set_mask", "novelty"]
    assert (metadata.image_size is None) == (chosen.name in ("onnx", "pt2"))
    if chosen.why_unchecked:
        assert metadata.max_difference is None
        pytest.skip(chosen.why_unchecked)
    assert metadata.max_difference is not None
    assert metadata.max_difference <= 1e-4
    images = images_for(chosen, frame, metadata)
    found = chosen.load(file)(images)
    np.testing.assert_allclose(found["probabilities"], fitted.predict_proba(list(images), as_pandas=False), atol=1e-4)
    assert [metadata.class_names[number] for number in found["label"]] == fitted.predict(list(images)).tolist()
    sets = fitted.predict_set(list(images), 0.9).tolist()
    assert found["set_mask"].sum(1).tolist() == [len(one) for one in sets]
    np.testing.assert_allclose(found["novelty"], fitted.novelty(list(images), as_pandas=False), atol=1e-4)
    for _ in range(2):  # one image at a time, and again
        alone = chosen.load(file)(images[:1])
        np.testing.assert_allclose(alone["probabilities"], found["probabilities"][:1], atol=1e-5)


def test_damaged_files_are_refused(exported: tuple[ExportFormat, Path], tmp_path: Path) -> None:
    chosen, file = exported
    if chosen.why_unchecked:
        pytest.skip(chosen.why_unchecked)
    damaged = tmp_path / file.name
    for content in (b"", b"not a model", file.read_bytes()[: file.stat().st_size // 2]):
        damaged.write_bytes(content)
        with pytest.raises(SavedPredictorError, match=damaged.name):
            chosen.load(damaged)


@pytest.mark.parametrize("name", WHOLE)
def test_a_full_disk_leaves_nothing(
    name: str, fitted: ImagePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = EXPORT_FORMATS.make(name)
    monkeypatch.setattr(chosen, "packages", ())
    monkeypatch.setattr(chosen, "convert", lambda module: module)

    def save(program: Any, metadata: Any, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(chosen, "save", save)
    with pytest.raises(SaccadeError, match=r"(?i)disk|space"):
        fitted.export(chosen, tmp_path / "new" / "folder", check=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "pt2"])
def test_a_missing_extra_is_named(name: str, fitted: ImagePredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = EXPORT_FORMATS.make(name).packages
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda found, *rest: None if found in packages else find(found, *rest)
    )
    with pytest.raises(HyperparameterError, match=rf'pip install "saccade\[{name}\]"'):
        fitted.export(name)


@pytest.mark.parametrize("exported", ["openvino"], indirect=True)
def test_image_sizes_are_two_numbers(exported: tuple[ExportFormat, Path]) -> None:
    chosen, file = exported
    assert metadata_of("openvino", file).image_size == (40, 70)
    with pytest.raises(RuntimeError, match="shape"):
        chosen.load(file)(np.zeros((6, 20, 70, 3), np.uint8))
    for wrong in ("40", "40x70x3", "0x9", "axb", (3,), (2.5, "x"), 7):
        with pytest.raises(HyperparameterError, match="image_size"):
            EXPORT_FORMATS.make("openvino", {"image_size": wrong})


def test_other_problems(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    module, chosen = Problems().eval(), EXPORT_FORMATS.make("openvino", {"image_size": "40x50"})
    program = chosen.convert(module)  # type: ignore[arg-type]
    metadata = ExportMetadata(
        saccade_version="0", problem_type="regression", class_names=[], models=[], metrics={},
        preprocessing=ExportedPreprocessing(channels=3, shorter_side=40, steps=[]), outputs=module.output_names,
    )  # fmt: skip
    chosen.save(program, metadata, tmp_path / "model.xml")
    images = module.example(5)
    found = chosen.load(tmp_path / "model.xml")(images.numpy())
    with torch.no_grad():
        expected = dict(zip(module.output_names, module(images), strict=True))
    for name, values in expected.items():  # OpenVINO computes in float32
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("exported", ["pt2"], indirect=True)
def test_pt2_needs_torch_alone(
    exported: tuple[ExportFormat, Path], fitted: ImagePredictor, frame: pd.DataFrame, tmp_path: Path
) -> None:
    file = exported[1]
    images = np.stack([np.asarray(Image.open(path).resize((50, 33))) for path in frame["image"][:3]])

    def predict_without_others() -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in ("saccade", "timm", "torchvision"):
                sys.modules[name] = None  # type: ignore[assignment]  # importing it is an error
        found = torch.export.load(file).module()(torch.from_numpy(images))
        np.save(tmp_path / "found.npy", found[0].numpy())

    process = Forked(predict_without_others)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    expected = fitted.predict_proba(list(images), as_pandas=False)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-4)
    assert str(Path(__file__).parents[2]).encode() not in file.read_bytes()


def test_foreign_programs_are_refused(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "foreign.pt2")
    with pytest.raises(SavedPredictorError, match="metadata"):
        EXPORT_FORMATS.make("pt2").load(tmp_path / "foreign.pt2")


def test_core_ml_is_not_checked_elsewhere(fitted: ImagePredictor, tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    if sys.platform == "darwin":
        pytest.skip("macOS checks it")
    with pytest.raises(SaccadeError, match=r"macOS.*--no-check"):
        fitted.export("coreml", tmp_path)
    assert not list(tmp_path.iterdir())


class Toy(ExportFormat):
    """A format in one module: the pickled parameters of a function that returns the class frequencies."""

    name, suffix = "toy", ".toy"
    tolerance = None

    def convert(self, module: Any) -> Any:
        return module

    def save(self, program: Any, metadata: ExportMetadata, file: Path) -> None:
        file.write_bytes(pickle.dumps(metadata.model_dump_json()))
        self.module = program

    def load(self, file: Path) -> Any:
        assert json.loads(pickle.loads(file.read_bytes()))["class_names"] == list(LABELS.values())

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            with torch.no_grad():
                found = self.module(torch.from_numpy(np.ascontiguousarray(images)))
            return {name: each.numpy() for name, each in zip(self.module.output_names, found, strict=True)}

        return run


def test_a_new_format_is_one_module(fitted: ImagePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted.export(Toy(), tmp_path / "a.toy") == str(tmp_path / "a.toy")  # an instance
    point = importlib.metadata.EntryPoint("toy", f"{Toy.__module__}:Toy", "saccade.export_formats")
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda _: Toy)
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [point] if group == "saccade.export_formats" else []
    )
    assert Path(fitted.export("toy", tmp_path)).name == "model.toy"
    with pytest.raises(UnknownNameError, match="toy"):
        fitted.export("tyo", tmp_path)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_fewer_bits(precision: str, fitted: ImagePredictor, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    arguments = ["export", fitted.path, "--precision", precision, "--out", str(tmp_path), "--max-accuracy-drop", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    file = tmp_path / f"model-{precision}.onnx"
    metadata = OnnxModel(file).metadata
    full, reduced = metadata.precisions
    assert (full.precision, reduced.precision, metadata.precision) == ("fp32", precision, precision)
    assert reduced.num_bytes < (0.75 if precision == "fp16" else 0.6) * full.num_bytes
    assert 0 < metadata.max_difference < 1  # type: ignore[operator]
    assert full.num_images == 20
    for one in metadata.precisions:
        assert f"{one.score:.4f}" in result.stdout
        assert f"{one.num_bytes / 1e6:.2f}" in result.stdout
    proto = onnx.load(file)
    types = {each.name: each.data_type for each in proto.graph.initializer}
    reduced_types = {onnx.TensorProto.FLOAT16} if precision == "fp16" else {onnx.TensorProto.INT8}
    producer = {name: node for node in proto.graph.node for name in node.output}

    def is_reduced(node: Any) -> bool:
        to = [each.i for each in node.attribute if each.name == "to"]
        return node.op_type == "DequantizeLinear" or to == [onnx.TensorProto.FLOAT16]

    others = [node for node in proto.graph.node if not node.name.startswith("network/")]
    resizing = [node for node in others if node.op_type == "MatMul"]
    assert len(resizing) >= 2
    assert not any(is_reduced(producer[name]) for node in resizing for name in node.input if name in producer)
    assert "Conv" not in {node.op_type for node in others}
    assert reduced_types & set(types.values())
    if precision == "int8":  # a scale for each channel of a weight
        shapes = [list(each.dims) for each in proto.graph.initializer if each.name.endswith("_scale")]
        assert any(dims and dims[0] > 1 for dims in shapes)


def test_a_fall_of_accuracy_is_an_error() -> None:
    from saccade.export.precision import check_drop

    def result(score: float, num_images: int = 100) -> PrecisionResult:
        return PrecisionResult(precision="int8", num_bytes=1, images_per_s=1, score=score, num_images=num_images)

    with pytest.raises(
        SaccadeError, match=r"int8 the accuracy on 100 validation images falls from 0\.9 to 0\.84.*0\.01"
    ):
        check_drop(result(0.9), result(0.84), 0.01, "accuracy")
    with pytest.raises(SaccadeError, match="R²"):
        check_drop(result(0.9), result(0.88), 0.01, "R²")
    check_drop(result(0.9), result(0.84), 0.06, "accuracy")
    check_drop(result(0.9), result(0.95), 0.0, "accuracy")
    check_drop(result(0.9, 20), result(0.85, 20), 0.01, "accuracy")  # one image
    with pytest.raises(UnknownNameError, match="fp16"):
        EXPORT_FORMATS.make("onnx", {"precision": "f16"})
    with pytest.raises(HyperparameterError, match="max_accuracy_drop"):
        EXPORT_FORMATS.make("onnx", {"max_accuracy_drop": -1})


def test_fewer_bits_require_the_run(fitted: ImagePredictor, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    alone = ImagePredictor.load(tmp_path / "saved", verbosity=0)
    with pytest.raises(SaccadeError, match="run folder"):
        alone.export("onnx", tmp_path / "out", precision="int8")
    assert not (tmp_path / "out").exists()
