"""Predictions by an exported ONNX file. It requires numpy, pydantic and onnxruntime, but not torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saccade.errors import DataError, HyperparameterError, SavedPredictorError
from saccade.export.metadata import KEY, ExportMetadata

BATCH_SIZE = 32
MAX_BATCH_PIXELS = 2**24  # in a batch of large images, which has fewer of them

# Fields of ONNX's messages that contain messages, by their number (onnx.proto); external data are in tensors.
_PARTS = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of a tensor


class OnnxModel:
    """A file that `saccade export` has written, in ONNX Runtime.

    `num_threads` are those of the processor; None lets ONNX Runtime choose. Threads may share an object. Raises a
    SavedPredictorError if the file is missing, damaged, not one of Saccade's, or refers to other files.

    Examples
    --------
    >>> model = OnnxModel("model.onnx")                                 # doctest: +SKIP
    >>> found = model.predict([np.zeros((480, 640, 3), np.uint8)])      # doctest: +SKIP
    >>> model.metadata.class_names[found["label"][0]]                   # doctest: +SKIP
    'cat'
    """

    def __init__(self, path: str | Path, num_threads: int | None = None) -> None:
        self.path = Path(path)
        # From 1.29 on, its import starts a thread that reports to Microsoft, unless this is set.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
        except ImportError:
            raise HyperparameterError("ONNX files require onnxruntime. Run pip install 'saccade[onnx]'") from None

        if not self.path.is_file():
            raise SavedPredictorError(f"{path} does not exist, or is not a regular file. Pass the path of an ONNX file")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # fatal errors; others are raised
        options.intra_op_num_threads = num_threads or 0
        try:
            content = self.path.read_bytes()
            if refers_to_files(content):
                raise SavedPredictorError(
                    f"{path} refers to other files, which a file of Saccade never does. Pass a file that saccade "
                    "export has written"
                )
            # From memory, so that no other file is found.
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        except OSError as error:
            raise SavedPredictorError(f"{path} cannot be read: {error.strerror or error}") from None
        except SavedPredictorError:
            raise
        except Exception as error:  # ONNX Runtime has classes of its own
            raise SavedPredictorError(
                f"{path} is not an ONNX file, or is damaged ({' '.join(str(error).split())[:150]}). Export again"
            ) from None
        self.metadata = ExportMetadata.from_json(text, self.path)
        self._names = [output.name for output in self._session.get_outputs()]
        if [each.name for each in self._session.get_inputs()] != ["images"] or self._names != self.metadata.outputs:
            raise SavedPredictorError(f"{path} has other inputs and outputs than its metadata. Export again")

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs by name for images of one size, uint8 (N, H, W, C)."""
        return dict(zip(self._names, self._session.run(None, {"images": images}), strict=True))

    def predict(self, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name, a row for each image; {} without images.

        Parameters
        ----------
        images : sequence of uint8 arrays, shape (H, W, C)
            Decoded images of any sizes. C is ``metadata.preprocessing.channels``.

        Raises
        ------
        DataError
            If an image has another shape or type.
        """
        channels = self.metadata.preprocessing.channels
        for number, image in enumerate(images):
            shape: tuple[int, ...] = getattr(image, "shape", ())
            if len(shape) != 3 or shape[2] != channels or not image.size or image.dtype != np.uint8:
                given = f"{getattr(image, 'dtype', type(image).__name__)} of shape {shape}"
                raise DataError(f"image {number} is {given}; expected uint8 of shape (height, width, {channels})")
        results: dict[str, np.ndarray] = {}
        for rows in _batches(images):
            for name, part in self.run(np.stack([images[row] for row in rows])).items():
                if name not in results:
                    results[name] = np.empty((len(images), *part.shape[1:]), part.dtype)
                results[name][rows] = part
        return results

    def __repr__(self) -> str:
        return f"OnnxModel({str(self.path)!r})"


def _batches(images: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Yield the numbers of images of one size."""
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(images):
        rows_of.setdefault(image.shape, []).append(row)
    for (height, width, _), rows in rows_of.items():
        size = max(1, min(BATCH_SIZE, MAX_BATCH_PIXELS // (height * width)))
        yield from (rows[first : first + size] for first in range(0, len(rows), size))


def refers_to_files(content: bytes) -> bool:
    """Return whether a tensor of an ONNX model is in another file; a ValueError if the bytes are not protobuf."""

    def has_external(message: memoryview, kind: str) -> bool:
        parts = _PARTS.get(kind, {})
        for field, value in _fields(message):
            if kind == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value)):
                return True
            if field in parts and isinstance(value, memoryview) and has_external(value, parts[field]):
                return True
        return False

    return has_external(memoryview(content), "model")


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield number and value of the fields of a protobuf message: an integer, or the bytes of a part."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number is too long")

    while place < len(message):
        tag = varint()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, varint()
            continue
        length = {1: 8, 5: 4}[kind] if kind != 2 else varint()
        if place + length > len(message):
            raise ValueError("the file is cut off")
        yield tag >> 3, message[place : place + length]
        place += length
