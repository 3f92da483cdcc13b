"""LiteRT (TensorFlow Lite)."""

from __future__ import annotations

import contextlib
import io
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import SavedPredictorError
from saccade.export.base import FixedSizeFormat, Run
from saccade.export.metadata import KEY, ExportMetadata

if TYPE_CHECKING:
    from saccade.export.module import ExportModule

METADATA = f"{KEY}.json"  # in the ZIP archive that follows the model, as associated files of TensorFlow Lite do


class LiteRtFormat(FixedSizeFormat):
    """A .tflite file for one image of one size; outputs are in the order of `ExportModule.output_names`."""

    name, suffix = "litert", ".tflite"
    packages, extra = ("litert_torch", "ai_edge_litert"), "litert"

    def convert(self, module: ExportModule) -> Any:
        """Return the bytes of the model."""
        import tempfile

        import litert_torch  # type: ignore[import-not-found]

        from saccade.export.formats.fixed_size import FixedSizeModule

        fixed = FixedSizeModule(module, self.image_size(module))
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            tempfile.TemporaryDirectory() as made,
        ):
            warnings.simplefilter("ignore")
            file = Path(made) / "model.tflite"
            litert_torch.convert(fixed, (fixed.example,)).export(str(file))
            return file.read_bytes()

    def save(self, program: Any, metadata: ExportMetadata, file: Path) -> None:
        """Write the model, and the metadata after it."""
        file.write_bytes(program)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(METADATA, metadata.model_dump_json())

    def load(self, file: Path) -> Run:
        """Return a function that runs the model; a SavedPredictorError for other files."""
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

        try:
            with zipfile.ZipFile(file) as archive:
                text = archive.read(METADATA)
            interpreter = Interpreter(str(file))
            interpreter.allocate_tensors()
        except (zipfile.BadZipFile, KeyError, OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:150]
            raise SavedPredictorError(f"{file} is not a LiteRT file of Saccade, or is damaged ({reason})") from None
        names = ExportMetadata.from_json(text, file).outputs
        (given,), outputs = interpreter.get_input_details(), interpreter.get_output_details()
        outputs.sort(key=lambda output: int(output["name"].split("_")[-2]))  # serving_default_output_0_output

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
            for image in images:
                interpreter.set_tensor(given["index"], image[None])
                interpreter.invoke()
                for name, output in zip(names, outputs, strict=True):
                    rows[name].append(interpreter.get_tensor(output["index"]))
            return {name: np.concatenate(parts) for name, parts in rows.items()}

        return run
