"""Exports: where files go, what is refused, and that nothing is left behind; with a format that takes no time."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from saccade import ImagePredictor
from saccade.errors import DataError, DiskFullError, HyperparameterError, SaccadeError, UnknownNameError
from saccade.export import EXPORT_FORMATS, ExportFormat
from saccade.export.exporting import export, float32_pipeline, make_module
from saccade.export.metadata import ExportMetadata
from saccade.export.module import ExportModule, exported_program
from saccade.export.parity import check_parity, parity_images
from saccade.inference.pipeline import InferencePipeline
from saccade.inference.thresholds import Thresholds
from saccade.tasks.problem import Multilabel

MakeColours = Callable[..., pd.DataFrame]
TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 1, "lr": 3e-3}


class Eager(ExportFormat):
    """A file that stands for the module itself."""

    name, suffix = "eager", ".json"

    def __init__(self, change: float = 0.0, other_label: bool = False, error: BaseException | None = None) -> None:
        self.change, self.other_label, self.error = change, other_label, error

    def convert(self, module: ExportModule) -> Any:
        self.module = module
        return module

    def save(self, program: Any, metadata: ExportMetadata, file: Path) -> None:
        file.write_text(metadata.model_dump_json())
        if self.error is not None:
            raise self.error

    def load(self, file: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            with torch.no_grad():
                outputs = self.module(torch.from_numpy(np.ascontiguousarray(images)))
            found = {name: each.numpy().copy() for name, each in zip(self.module.output_names, outputs, strict=True)}
            found[self.module.output_names[0]][0] += self.change
            if self.other_label:
                found["label"][:] = (found["label"] + 1) % len(self.module.problem.classes)
            return found

        return run


@pytest.fixture(scope="module")
def predictor(make_colours_once: MakeColours, tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    fitted = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    return fitted.fit(make_colours_once(14, ("blue", "green", "red")), hyperparameters=TINY, holdout_frac=0.5)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_file_is_in_the_run_folder_or_in_a_given_one_or_has_a_given_name(
    predictor: ImagePredictor, tmp_path: Path
) -> None:
    pipeline = predictor.pipeline
    assert export(pipeline, Eager()) == Path(predictor.path) / "export" / "model.json"
    assert export(pipeline, Eager(), tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "model.json"
    assert export(pipeline, Eager(), tmp_path / "pets.json") == tmp_path / "pets.json"
    assert files(tmp_path) == ["new", "new/folder", "new/folder/model.json", "pets.json"]
    metadata = ExportMetadata.from_json((tmp_path / "pets.json").read_bytes(), tmp_path)
    assert metadata.class_names == ["blue", "green", "red"]
    assert metadata.outputs == ["probabilities", "label", "set_mask", "novelty"]
    assert metadata.coverage == 0.9
    assert 0 <= (metadata.max_difference or 0) <= 1e-4
    assert [model.name for model in metadata.models] == ["test_resnet"]
    assert "accuracy" in metadata.metrics


def test_an_existing_file_is_replaced_only_on_request(predictor: ImagePredictor, tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    file.write_text("mine")
    with pytest.raises(DataError, match=r"exists\. Pass overwrite=True"):
        export(predictor.pipeline, Eager(), tmp_path)
    assert file.read_text() == "mine"
    export(predictor.pipeline, Eager(), tmp_path, overwrite=True)
    assert json.loads(file.read_text())["problem_type"] == "multiclass"


@pytest.mark.parametrize(
    ("format_", "error", "match"),
    [
        (Eager(error=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), DiskFullError, "Make room"),
        (Eager(error=KeyboardInterrupt()), KeyboardInterrupt, "^$"),
        (Eager(change=2e-4), SaccadeError, r"differs from the predictor: probabilities by up to 0\.0002"),
        (Eager(change=float("nan")), SaccadeError, "differs from the predictor"),
        (Eager(other_label=True), SaccadeError, "other labels or sets for"),
    ],
)
def test_a_failed_export_leaves_nothing(
    predictor: ImagePredictor, tmp_path: Path, format_: Eager, error: type[BaseException], match: str
) -> None:
    with pytest.raises(error, match=match):
        export(predictor.pipeline, format_, tmp_path / "new" / "folder")
    assert files(tmp_path) == []


def test_a_place_that_cannot_be_written_is_an_error(predictor: ImagePredictor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file.*\. "):
        export(predictor.pipeline, Eager(), tmp_path / "file" / "folder")
    with pytest.raises(DataError, match=r"ends in \.onnx; files of the format eager end in \.json"):
        export(predictor.pipeline, Eager(), tmp_path / "model.onnx")
    assert files(tmp_path) == ["file"]


def test_a_label_at_the_boundary_may_differ(predictor: ImagePredictor) -> None:
    pipeline = float32_pipeline(predictor.pipeline.saved)
    module, images = make_module(pipeline, None), [np.full((8, 8, 3), 90, np.uint8)]
    p = pipeline.predict(images).predictions[0]
    first, second = np.argsort(-p)[:2]
    prior = np.ones(3)
    prior[first] = p[first] / p[second] * (1 + 2e-5)  # so that both classes are nearly equal

    def changed(by: float) -> InferencePipeline:
        divided = prior.copy()
        divided[first] *= by
        parts = replace(pipeline.saved.postprocessing, thresholds=Thresholds(class_prior=tuple(divided)))
        return InferencePipeline(replace(pipeline.saved, postprocessing=parts), "cpu")

    other = changed(1 - 4e-5)
    labels = [each.predict(images).labels[0] for each in (changed(1), other)]
    assert labels[0] != labels[1]
    module = make_module(changed(1), None)
    eager = Eager()
    eager.convert(module)
    assert check_parity(eager.load(Path()), make_module(other, None), other, images, eager) <= 1e-4


def test_images_of_the_check_are_validation_images_in_many_sizes(predictor: ImagePredictor) -> None:
    images = parity_images(predictor.pipeline.saved)
    assert {image.shape for image in images} >= {(32, 32, 3), (700, 90, 3), (1500, 2000, 3)}
    assert all(image.dtype == np.uint8 for image in images)
    synthetic = parity_images(replace(predictor.pipeline.saved, folder=Path("nowhere")))
    assert len(synthetic) == len(images)


def test_sets_have_the_coverage_that_was_asked_for(predictor: ImagePredictor) -> None:
    pipeline = predictor.pipeline
    assert make_module(pipeline, 0.8).prediction.head.coverage == 0.8
    with pytest.raises(DataError, match="validation images"):
        make_module(pipeline, 0.999)
    with pytest.raises(HyperparameterError, match="coverage"):
        make_module(pipeline, 2.0)
    problem = Multilabel(("blue", "green", "red"))
    several = InferencePipeline(replace(pipeline.saved, problem=problem, folder=pipeline.saved.folder), "cpu")
    several.stored_features = lambda: None  # type: ignore[method-assign, assignment]
    assert make_module(several, None).output_names == ["probabilities", "given"]


def test_unknown_formats_and_options_are_errors(predictor: ImagePredictor, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'onnx'"):
        predictor.export("onx", tmp_path)
    with pytest.raises(HyperparameterError, match="has no option 'precisoin'"):
        predictor.export("onnx", tmp_path, precisoin="fp16")
    assert "onnx" in EXPORT_FORMATS
    assert files(tmp_path) == []


def test_a_network_that_cannot_be_exported_is_named(predictor: ImagePredictor) -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    module = make_module(float32_pipeline(predictor.pipeline.saved), None)
    module.prediction.networks[0] = Branches()
    module.prediction.known = None
    with pytest.raises(SaccadeError, match=r"The network \(Branches\) cannot be exported"):
        exported_program(module)
