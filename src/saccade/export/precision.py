"""ONNX files whose networks compute in fewer bits, and what that costs."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.data.decoding import decode_image
from saccade.data.examples import ImageLike
from saccade.data.store.stored_form import pixels_of
from saccade.errors import DataError, ImageReadError, SaccadeError
from saccade.export.base import Run
from saccade.export.formats.onnx_format import NETWORK, OnnxFormat
from saccade.export.metadata import ExportMetadata, PrecisionResult
from saccade.export.onnx_model import OnnxModel
from saccade.export.parity import Place, images_of_run
from saccade.inference.preprocessing import Preprocess
from saccade.inference.saved import SavedPredictor

if TYPE_CHECKING:
    from rich.table import Table

NUM_CALIBRATION = 100  # training images by which the ranges of activations are measured
NUM_EVALUATED = 1000  # validation images that are predicted at most
BATCH_SIZE, ROUNDS = 16, 3  # of a measurement of throughput

# Where most of the time goes; other operations between them are computed on the same integers where possible.
QUANTISED = ["Conv", "Gemm", "MatMul", "Add", "AveragePool", "GlobalAveragePool", "MaxPool", "Relu", "Clip"]


def reduce(
    chosen: OnnxFormat, program: Any, metadata: ExportMetadata, images: RunImages, folder: Path
) -> tuple[Any, ExportMetadata]:
    """Return a program in the precision of `chosen`, with its results beside those of the given one in float32.

    `folder` is one for temporary files. Raises a SaccadeError if the score falls by more than `max_accuracy_drop`.
    """
    results: list[PrecisionResult] = []
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        file = Path(temporary) / "model.onnx"
        for precision in ("fp32", chosen.precision):
            if precision == "fp16":
                program = to_fp16(program)
            elif precision == "int8":
                program = to_int8(program, images.training)
            chosen.save(program, metadata, file)
            results.append(measure(precision, file, images))
    check_drop(results[0], results[1], chosen.max_accuracy_drop, score_name(metadata.problem_type))
    return program, metadata.model_copy(update={"precision": chosen.precision, "precisions": results})


def to_fp16(program: Any) -> Any:
    """Return an ``onnx.ModelProto`` whose networks compute in 16 bits; images, resizing and decisions stay as they are.

    Runtimes without 16-bit operations, such as ONNX Runtime on most processors, compute in float32 between casts.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    others = [node.name for node in program.graph.node if not node.name.startswith(NETWORK)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights below the smallest number
        return convert_float_to_float16(program, keep_io_types=True, node_block_list=others)


def to_int8(program: Any, images: Sequence[np.ndarray]) -> Any:
    """Return an ``onnx.ModelProto`` whose networks compute in 8 bits, with ranges of activations from some images.

    Weights have a scale for each output channel. Pairs of QuantizeLinear and DequantizeLinear describe it (QDQ).
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.remaining: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.remaining, None)
            return None if image is None else {"images": image[None]}

    names = [node.name for node in program.graph.node if node.name.startswith(NETWORK)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _quiet_logging():
        warnings.simplefilter("ignore")
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        given.write_bytes(program.SerializeToString())
        quantize_static(
            given, made, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, nodes_to_quantize=names,
            op_types_to_quantize=QUANTISED, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )  # fmt: skip
        return onnx.load(made)


@contextlib.contextmanager
def _quiet_logging() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice to preprocess the model, which torch's exporter did
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


class RunImages:
    """Decoded images of a predictor's run: `training` ones, and `validation` ones with their `targets`.

    Raises a DataError if the run folder, or its images, are not there.
    """

    def __init__(self, saved: SavedPredictor) -> None:
        try:
            fitted, held_out = images_of_run(saved)
        except (SaccadeError, OSError, ValueError) as error:
            raise DataError(
                f"Files in fewer bits require the images of the run, which {saved.folder.parent} does not list "
                f"({error}). Export from the run folder of the fit"
            ) from None
        self.saved = saved
        self.training = [image for image, _ in self._decoded(fitted, NUM_CALIBRATION)]
        pairs = self._decoded(held_out or fitted, NUM_EVALUATED)
        self.validation = [image for image, _ in pairs]
        if not self.training or not self.validation:
            raise DataError(
                "Files in fewer bits require training and validation images of the run, and none can be read. Restore "
                "them in their places"
            )
        self.targets = np.concatenate([target for _, target in pairs])

    def _decoded(self, places: Sequence[Place], num: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return up to `num` readable images with their encoded labels, in a random order."""
        saved, rng = self.saved, np.random.default_rng(0)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for place in rng.permutation(len(places)):
            part, row = places[place]
            if len(found) == num:
                break
            try:
                pixels = self._pixels(part.images[row])
                assert part.labels is not None
                target = saved.problem.encode(part.labels.iloc[[row]])
            except (ImageReadError, DataError):  # unreadable, or of a class that was left out
                continue
            found.append((pixels, target))
        return found

    def _pixels(self, image: ImageLike) -> np.ndarray:
        shorter_side = max(Preprocess(member.blueprint.input).shorter_side for member in self.saved.members)
        decoded = decode_image(
            image,
            min_shorter_side=shorter_side,
            channels=self.saved.blueprint.in_chans,
            pixel_range=self.saved.pixel_range,
        )
        return pixels_of(decoded.image)


def measure(precision: str, file: Path, images: RunImages) -> PrecisionResult:
    """Return size, throughput and score of a file."""
    model = OnnxModel(file)
    found = model.predict(images.validation)
    problem, targets = images.saved.problem, images.targets
    if problem.has_one_class:
        score = float((found["label"] == targets).mean())
    elif problem.has_classes:
        score = float((found["given"] == (targets > 0)).mean())
    else:
        labels = problem.true_labels(targets)
        spread = max(np.square(labels - labels.mean()).sum(), 1e-12)
        score = 1 - float(np.square(found["prediction"] - labels).sum() / spread)
    return PrecisionResult(
        precision=precision,
        num_bytes=file.stat().st_size,
        images_per_s=images_per_s(model.run, images.validation[0]),
        score=score,
        num_images=len(images.validation),
    )


def images_per_s(run: Run, image: np.ndarray) -> float:
    """Return the throughput of a model in batches of `BATCH_SIZE`, the best of `ROUNDS`."""
    batch = np.repeat(image[None], BATCH_SIZE, 0)
    seconds = []
    for _ in range(1 + ROUNDS):  # the first one includes setup
        start_s = time.perf_counter()
        run(batch)
        seconds.append(time.perf_counter() - start_s)
    return BATCH_SIZE / min(seconds[1:])


def score_name(problem_type: str) -> str:
    """Return what `PrecisionResult.score` is."""
    return {"multilabel": "labels right", "regression": "R²"}.get(problem_type, "accuracy")


def check_drop(full: PrecisionResult, reduced: PrecisionResult, max_drop: float, name: str) -> None:
    """Raise a SaccadeError if the score falls by more than `max_drop`; a single image never counts."""
    drop = full.score - reduced.score
    if not drop <= max(max_drop, 1 / full.num_images if name == "accuracy" else 0) + 1e-9:
        raise SaccadeError(
            f"With precision {reduced.precision} the {name} on {full.num_images} validation images falls from "
            f"{full.score:.4g} to {reduced.score:.4g}, by more than {max_drop:g}. Nothing was written. Pass a larger "
            "max_accuracy_drop (--max-accuracy-drop), or another precision"
        )


def precision_table(results: Sequence[PrecisionResult], problem_type: str) -> Table:
    """Return size, throughput and score of files as a table for a terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("precision", "size (MB)", "images/s", score_name(problem_type), "images"):
        table.add_column(name, justify="left" if name == "precision" else "right")
    for one in results:
        size = f"{one.num_bytes / 1e6:.2f}"
        table.add_row(one.precision, size, f"{one.images_per_s:.0f}", f"{one.score:.4f}", str(one.num_images))
    return table
