"""Export of a predictor: convert it, compare the file with `predict_proba`, and move it into place."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade._version import __version__
from saccade.errors import DataError, SaccadeError, explained_file_errors
from saccade.export import EXPORT_FORMATS
from saccade.export.base import ExportFormat
from saccade.export.companions import COMPANIONS, WEB_FOLDERS, copy_scripts, write_companions
from saccade.export.formats.onnx_format import OnnxFormat
from saccade.export.metadata import ExportedNetwork, ExportedPreprocessing, ExportMetadata
from saccade.export.module import ExportModule
from saccade.export.precision import RunImages, precision_table, reduce
from saccade.inference.feature_bank import FALSE_ALARM_RATE
from saccade.inference.pipeline import InferencePipeline
from saccade.inference.postprocessing import COVERAGE
from saccade.inference.preprocessing import Preprocess
from saccade.inference.saved import SavedPredictor
from saccade.models.catalogue import license_of
from saccade.remote.urls import output_path
from saccade.report.tables import output_console


def export(
    pipeline: InferencePipeline,
    to: str | ExportFormat = "onnx",
    path: str | Path | None = None,
    *,
    coverage: float | None = None,
    overwrite: bool = False,
    check: bool = True,
    verbosity: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Write a predictor as a file of another format, and return its path; see `ImagePredictor.export`."""
    chosen = EXPORT_FORMATS.make(to, options)
    chosen.check_packages()
    if check and chosen.why_unchecked:
        raise SaccadeError(
            f"{chosen.why_unchecked}, so the file cannot be compared with the predictor here. Pass check=False "
            "(--no-check) to write it without this comparison"
        )
    file = target_file(path, pipeline.saved, chosen)
    if file.exists() and not overwrite:
        raise DataError(f"{file} exists. Pass overwrite=True to replace it, or another path")
    reference = float32_pipeline(pipeline.saved)
    is_reduced = isinstance(chosen, OnnxFormat) and chosen.precision != "fp32"
    images = RunImages(reference.saved) if is_reduced else None
    module = make_module(reference, coverage)
    size = chosen.image_size(module)
    metadata = describe(module, reference.saved).model_copy(update={"image_size": size})
    with _folder_beside(file) as folder:
        made = folder / file.name
        program = chosen.convert(module)
        if isinstance(chosen, OnnxFormat) and images is not None:
            program, metadata = reduce(chosen, program, metadata, images, folder)
        chosen.save(program, metadata, made)
        if check:
            difference = chosen.check(program, made, module, reference)
            metadata = metadata.model_copy(update={"max_difference": difference})
            chosen.save(program, metadata, made)
        if isinstance(chosen, OnnxFormat):
            write_companions(folder, file, metadata)
            copy_scripts(folder, chosen.web)
        _move(folder, made, file, overwrite)
    if metadata.precisions and verbosity > 0:
        output_console().print(precision_table(metadata.precisions, metadata.problem_type))
    return file


def _move(folder: Path, made: Path, file: Path, overwrite: bool) -> None:
    """Move all that `folder` contains beside `file`, and what was `made` to it."""
    parts = sorted(folder.iterdir(), key=lambda part: part == made)  # the file itself last
    ours = (*COMPANIONS, *WEB_FOLDERS)
    there = [part.name for part in parts if part.name not in ours and (file.parent / part.name).exists()]
    if there and not overwrite:
        raise DataError(f"{file.parent} contains {there[0]}. Pass overwrite=True to replace it, or another path")
    for part in parts:
        for each in part.iterdir() if part.name in WEB_FOLDERS else [part]:
            place = file.parent / each.relative_to(folder)
            place.parent.mkdir(exist_ok=True)
            if each == made and place.is_dir():  # a folder does not replace another one
                shutil.rmtree(place)
            each.replace(place)


def target_file(path: str | Path | None, saved: SavedPredictor, chosen: ExportFormat) -> Path:
    """Return the file for a path: a file with the format's suffix, or a folder for it; None is one of the run."""
    given = saved.folder.parent / "export" if path is None else output_path(path)
    if given.suffix == chosen.suffix and (chosen.is_folder or not given.is_dir()):
        return given
    if given.suffix and not given.is_dir():
        raise DataError(f"{path} ends in {given.suffix}; files of the format {chosen.name} end in {chosen.suffix}")
    name = "model" if chosen.precision == "fp32" else f"model-{chosen.precision}"
    return given / f"{name}{chosen.suffix}"


def float32_pipeline(saved: SavedPredictor) -> InferencePipeline:
    """Return the pipeline of a predictor on the CPU in float32, which is what files contain."""
    members = [replace(member, amp=False) for member in saved.members]
    return InferencePipeline(replace(saved, members=members, numerics={}), "cpu")


def make_module(pipeline: InferencePipeline, coverage: float | None) -> ExportModule:
    """Return the module with conformal sets and novelty, where the predictor has what they require.

    A `coverage` that the predictor does not have is an error; without one, sets have `COVERAGE` if they are available.
    """
    saved = pipeline.saved
    if coverage is None and (saved.problem.has_one_class or not saved.problem.has_classes):
        with contextlib.suppress(DataError):
            saved.postprocessing.conformal.check(saved.problem, COVERAGE)
            coverage = COVERAGE
    elif coverage is not None:
        saved.postprocessing.conformal.check(saved.problem, coverage)
    channels = {member.blueprint.in_chans for member in saved.members}
    if len(channels) > 1:
        raise SaccadeError(
            f"The networks of this predictor take images of {sorted(channels)} channels; one file has one kind of "
            "image. Export the predictor of one network: fit with ensemble=False"
        )
    bank = pipeline.stored_features()
    has_novelty = bank is not None and len(bank.train) > 0
    return ExportModule(pipeline.module(coverage, has_novelty=has_novelty), saved).eval()


def describe(module: ExportModule, saved: SavedPredictor) -> ExportMetadata:
    """Return the metadata of the file."""
    found: dict[str, Any] = {}
    sets = module.prediction.head.coverage
    if module.has_novelty and saved.features is not None:
        with contextlib.suppress(DataError):  # too few validation images
            found = {
                "novelty_threshold": saved.features.threshold(FALSE_ALARM_RATE),
                "false_alarm_rate": FALSE_ALARM_RATE,
            }
    numbers = {saved.metric: saved.summary.get("valid_score"), "accuracy": saved.summary.get("valid_acc")}
    specs = list(dict.fromkeys(member.blueprint.input for member in saved.members))
    steps = []
    for spec in specs:
        side = Preprocess(spec).shorter_side
        mean, std = ([round(value, 4) for value in values] for values in (spec.mean, spec.std))
        steps.append(
            f"shorter side to {side} pixels (bicubic; enlarged: {spec.interpolation}; elongated by more than 1:3: "
            f"squeezed to a square), central {spec.img_size} x {spec.img_size}, normalised by mean {mean} and std {std}"
        )
    return ExportMetadata(
        saccade_version=__version__,
        problem_type=saved.problem.type,
        class_names=saved.names_of_classes,
        models=[
            ExportedNetwork(
                name=member.blueprint.name,
                weight=member.weight,
                license=license_of(member.blueprint.architecture) if member.blueprint.architecture else "",
            )
            for member in saved.members
        ],
        preprocessing=ExportedPreprocessing(
            channels=module.channels,
            shorter_side=max(Preprocess(spec).shorter_side for spec in specs),
            steps=steps,
            pixel_range=saved.pixel_range,
        ),
        metrics={name: float(value) for name, value in numbers.items() if isinstance(value, int | float)},
        outputs=module.output_names,
        coverage=sets,
        **found,
    )


@contextlib.contextmanager
def _folder_beside(file: Path) -> Iterator[Path]:
    """Yield a temporary folder beside a file; at an error, folders that were made for it are removed as well."""
    new = [folder for folder in file.parents if not folder.exists()]
    with explained_file_errors(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".export-", dir=file.parent) as temporary:
                yield Path(temporary)
        except BaseException:
            for folder in new:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
