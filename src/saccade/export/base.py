"""The seam of export formats: what a format must do."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from saccade.errors import HyperparameterError

if TYPE_CHECKING:
    from saccade.export.metadata import ExportMetadata
    from saccade.export.module import ExportModule
    from saccade.inference.pipeline import InferencePipeline

Run = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From uint8 images of one size, (N, H, W, C), to the outputs by name: see `saccade.export.module.ExportModule`."""

TOLERANCE = 1e-4
"""Largest difference of a probability from `predict_proba` in a file of full precision."""


class ExportFormat(ABC):
    """A format of files that predict without Saccade.

    Options of a format are arguments of its constructor. To add a format, write a subclass in a module of its own, and
    enter it in `saccade.export.EXPORT_FORMATS`, or as an entry point in the group ``saccade.export_formats``.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]  # of the file, with the dot
    packages: ClassVar[tuple[str, ...]] = ()  # modules that `convert`, `save` and `load` import
    extra: ClassVar[str | None] = None  # of Saccade, which installs them
    tolerance: float | None = TOLERANCE  # for the check of the file; None reports the difference and refuses nothing

    @abstractmethod
    def convert(self, module: ExportModule) -> Any:
        """Return the program in this format, for images of any number and size.

        `module` is in evaluation mode, in float32 on the CPU; `module.example()` returns images.
        """

    @abstractmethod
    def save(self, program: Any, metadata: ExportMetadata, file: Path) -> None:
        """Write what `convert` returned with the metadata; `file` is in an empty folder, which may get more files."""

    @abstractmethod
    def load(self, file: Path) -> Run:
        """Return a function that predicts with a file."""

    def check(self, program: Any, file: Path, module: ExportModule, pipeline: InferencePipeline) -> float:  # noqa: ARG002
        """Return the largest difference of a file from the predictor; raise a SaccadeError if it is too large."""
        from saccade.export.parity import check_parity, parity_images

        return check_parity(self.load(file), module, pipeline, parity_images(pipeline.saved), self)

    def check_packages(self) -> None:
        """Raise a HyperparameterError if a package is missing."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            install = f"'saccade[{self.extra}]'" if self.extra else " ".join(missing)
            raise HyperparameterError(
                f"Export to {self.name} requires {', '.join(missing)}. Install with pip install {install}"
            )
