"""Programs of `torch.export`: files that torch alone runs, for images of any number and size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import SavedPredictorError
from saccade.export.base import ExportFormat, Run
from saccade.export.metadata import KEY, ExportMetadata

if TYPE_CHECKING:
    from saccade.export.module import ExportModule

METADATA = f"{KEY}.json"  # the name of the metadata among the extra files of the archive


class TorchFormat(ExportFormat):
    """A file for ``torch.export.load(file).module()``, which returns a tuple of the outputs."""

    name, suffix = "pt2", ".pt2"

    def convert(self, module: ExportModule) -> Any:
        """Return the ``torch.export.ExportedProgram``, without the places in source files that it was traced from."""
        from saccade.export.module import exported_program

        program = exported_program(module.requires_grad_(False))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        return program

    def save(self, program: Any, metadata: ExportMetadata, file: Path) -> None:
        """Write the archive."""
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights that share memory
            torch.export.save(program, file, extra_files={METADATA: metadata.model_dump_json()})

    def load(self, file: Path) -> Run:
        """Return a function that runs the program; a SavedPredictorError for other files."""
        import torch

        extra = {METADATA: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(file, extra_files=extra)
        except Exception as error:  # of the archive, of torch's own format, of JSON
            reason = " ".join(str(error).split())[:150]
            raise SavedPredictorError(f"{file} is not a program of torch.export, or is damaged ({reason})") from None
        names = ExportMetadata.from_json(extra[METADATA], file).outputs
        module = program.module()

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            with torch.inference_mode():
                found = module(torch.from_numpy(np.ascontiguousarray(images)))
            return {name: value.numpy() for name, value in zip(names, found, strict=True)}

        return run
