"""Files of a predictor that run without Saccade: ONNX and others, one module per format.

`saccade.export.exporting` makes them; `saccade.export.onnx_model` predicts with an ONNX file. Both are imported when
they are used, so that a server of an ONNX file imports no torch.
"""

from __future__ import annotations

from saccade.export.base import ExportFormat
from saccade.export.onnx_format import OnnxFormat
from saccade.export.timm_format import TimmFormat
from saccade.study.registry import Registry

__all__ = ["EXPORT_FORMATS", "ExportFormat"]

EXPORT_FORMATS: Registry[ExportFormat] = Registry(
    "export format",
    ExportFormat,  # type: ignore[type-abstract]
    {"onnx": OnnxFormat, "timm": TimmFormat},
)
