"""OpenVINO's intermediate representation (IR)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import SavedPredictorError
from saccade.export.base import FixedSizeFormat, Run
from saccade.export.metadata import KEY, ExportMetadata

if TYPE_CHECKING:
    from saccade.export.module import ExportModule


class OpenVinoFormat(FixedSizeFormat):
    """A pair of files, .xml and .bin, for any number of images of one size.

    OpenVINO computes float64 in float32. So it cannot compute how to resize an image with the required precision, and
    files contain that for one size.
    """

    name, suffix = "openvino", ".xml"
    packages, extra = ("openvino",), "openvino"

    def convert(self, module: ExportModule) -> Any:
        """Return the ``openvino.Model``."""
        import openvino  # type: ignore[import-untyped]

        from saccade.export.formats.fixed_size import FixedSizeModule

        height, width = self.image_size(module)
        model = openvino.convert_model(FixedSizeModule(module, (height, width), num=None).program())
        model.inputs[0].get_tensor().set_names({"images"})
        for output, name in zip(model.outputs, module.output_names, strict=True):
            output.get_tensor().set_names({name})
        model.reshape([-1, height, width, module.channels])
        return model

    def save(self, program: Any, metadata: ExportMetadata, file: Path) -> None:
        """Write both files."""
        import openvino

        program.set_rt_info(metadata.model_dump_json(), KEY)
        openvino.save_model(program, file, compress_to_fp16=False)

    def load(self, file: Path) -> Run:
        """Return a function that runs the model on the CPU in float32; a SavedPredictorError for other files."""
        import openvino

        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": False})  # files may be replaced
        try:
            model = core.read_model(file)
            text = str(model.get_rt_info(KEY).astype(str)) if model.has_rt_info(KEY) else None
            compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:150]
            raise SavedPredictorError(f"{file} is not a model of OpenVINO, or is damaged ({reason})") from None
        names = ExportMetadata.from_json(text, file).outputs

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            found = compiled(images)
            return {name: np.array(found[number]) for number, name in enumerate(names)}

        return run
