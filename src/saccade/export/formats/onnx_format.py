"""ONNX files, written by torch's exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.checks import real_number
from saccade.errors import SaccadeError, UnknownNameError
from saccade.export.base import ExportFormat, Run
from saccade.export.companions import check_ort
from saccade.export.metadata import KEY, ExportMetadata
from saccade.export.onnx_model import OnnxModel

if TYPE_CHECKING:
    from saccade.export.module import ExportModule

OPSET = 18
MAX_BYTES = 2**31 - 1  # of a protobuf message
PRECISIONS = ("fp32", "fp16", "int8")
MAX_ACCURACY_DROP = 0.01  # of a file in fewer bits, on the validation images

NETWORK = "network/"  # beginning of the names of the nodes that a predictor's networks consist of
_SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note of the modules of a node


class OnnxFormat(ExportFormat):
    """One file for ONNX Runtime; its only input is ``images``, and its outputs are those of `ExportModule`.

    With `precision` ``"fp16"`` or ``"int8"`` the networks compute in fewer bits, and nothing else. Then the file may
    differ from the predictor; its accuracy on the validation images may be lower by `max_accuracy_drop`, or one image.

    `web` is the folder ``dist`` of the npm package onnxruntime-web, which the page beside the file needs.
    """

    name, suffix = "onnx", ".onnx"
    packages, extra = ("onnx", "onnxruntime", "onnxscript"), "onnx"

    def __init__(
        self, precision: str = "fp32", max_accuracy_drop: float = MAX_ACCURACY_DROP, web: str | Path | None = None
    ) -> None:
        self.precision = precision
        if precision not in PRECISIONS:
            raise UnknownNameError.of("precision", precision, PRECISIONS)
        self.max_accuracy_drop = real_number("max_accuracy_drop", max_accuracy_drop, "a number of 0 or more", least=0)
        if precision != "fp32":
            self.tolerance = None
        self.web = None if web is None else check_ort(Path(web).expanduser())

    def convert(self, module: ExportModule) -> Any:
        """Return the ``onnx.ModelProto``."""
        import torch

        from saccade.export.module import exported_program

        for noisy in ("onnxscript", "onnx_ir"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        program = exported_program(module)
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                program, (), dynamo=True, verbose=False, opset_version=OPSET,
                input_names=["images"], output_names=module.output_names,
            )  # fmt: skip
        assert exported is not None
        try:
            proto = exported.model_proto
        except ValueError as error:  # more than protobuf can hold
            raise _too_large() from error
        # Without the exporter's notes, which name files of this machine.
        for node in [*proto.graph.node, *(node for function in proto.functions for node in function.node)]:
            if any(each.key == _SCOPES and "prediction.networks." in each.value for each in node.metadata_props):
                node.name = f"{NETWORK}{node.name}"
            node.doc_string = ""
            del node.metadata_props[:]
        for value in proto.graph.value_info:
            del value.metadata_props[:]
        del proto.graph.metadata_props[:]
        names = dict(zip(_dimensions(proto.graph.input[0])[:3], ("batch", "height", "width"), strict=True))
        for value in [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]:
            for dimension in value.type.tensor_type.shape.dim:
                if dimension.dim_param in names:
                    dimension.dim_param = names[dimension.dim_param]
        return proto

    def save(self, program: Any, metadata: ExportMetadata, file: Path) -> None:
        """Write the file."""
        del program.metadata_props[:]
        entry = program.metadata_props.add()
        entry.key, entry.value = KEY, metadata.model_dump_json()
        program.producer_name, program.producer_version = "saccade", metadata.saccade_version
        if program.ByteSize() > MAX_BYTES:
            raise _too_large()
        file.write_bytes(program.SerializeToString())

    def load(self, file: Path) -> Run:
        """Return `OnnxModel.run`."""
        return OnnxModel(file).run


def _dimensions(value: Any) -> list[str]:
    return [dimension.dim_param for dimension in value.type.tensor_type.shape.dim]


def _too_large() -> SaccadeError:
    return SaccadeError(
        "The networks take more than 2 GB, the most that one ONNX file can hold. Choose smaller networks, or fewer of "
        "them: fit with ensemble=False"
    )
