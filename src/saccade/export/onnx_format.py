"""ONNX files, written by torch's exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import SaccadeError
from saccade.export.base import ExportFormat, Run
from saccade.export.metadata import KEY, ExportMetadata
from saccade.export.onnx_model import OnnxModel
from saccade.export.web import check_ort

if TYPE_CHECKING:
    from saccade.export.module import ExportModule

OPSET = 18
MAX_BYTES = 2**31 - 1  # of a protobuf message


class OnnxFormat(ExportFormat):
    """One file for ONNX Runtime; its only input is ``images``, and its outputs are those of `ExportModule`.

    `web` is the folder ``dist`` of the npm package onnxruntime-web, which the page beside the file needs.
    """

    name, suffix = "onnx", ".onnx"
    packages, extra = ("onnx", "onnxruntime", "onnxscript"), "onnx"

    def __init__(self, web: str | Path | None = None) -> None:
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
