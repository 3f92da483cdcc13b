"""Files of a predictor that run without Saccade: ONNX and others, one module per format.

`saccade.export.exporting` makes them; `saccade.export.onnx_model` predicts with an ONNX file. Both are imported when
they are used, so that a server of an ONNX file imports no torch.
"""

from __future__ import annotations

from saccade.export.base import ExportFormat
from saccade.export.formats.coreml_format import CoreMlFormat
from saccade.export.formats.litert_format import LiteRtFormat
from saccade.export.formats.onnx_format import OnnxFormat
from saccade.export.formats.openvino_format import OpenVinoFormat
from saccade.export.formats.timm_format import TimmFormat
from saccade.export.formats.torch_format import TorchFormat
from saccade.study.registry import Registry

__all__ = ["EXPORT_FORMATS", "ExportFormat"]

EXPORT_FORMATS: Registry[ExportFormat] = Registry(
    "export format",
    ExportFormat,  # type: ignore[type-abstract]
    {
        "onnx": OnnxFormat,
        "pt2": TorchFormat,
        "openvino": OpenVinoFormat,
        "litert": LiteRtFormat,
        "coreml": CoreMlFormat,
        "timm": TimmFormat,
    },
)
