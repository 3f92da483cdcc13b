"""Core ML."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import DataError, SavedPredictorError
from saccade.export.base import FixedSizeFormat, Run
from saccade.export.metadata import KEY, ExportMetadata

if TYPE_CHECKING:
    from saccade.export.module import ExportModule


class CoreMlFormat(FixedSizeFormat):
    """An ML program for iOS 17, macOS 14 and later, as a package: a folder that these systems show as a file.

    Its input ``images`` is one RGB or grey image of one size. Outputs are named as those of `ExportModule`; numbers and
    truth values are int32. Conversion is possible on any system, prediction on macOS only.
    """

    name, suffix, is_folder = "coreml", ".mlpackage", True
    packages, extra = ("coremltools",), "coreml"
    why_unchecked = "" if sys.platform == "darwin" else "Core ML predicts on macOS only"

    def convert(self, module: ExportModule) -> Any:
        """Return the ``coremltools.models.MLModel``."""
        from torch import nn

        from saccade.export.formats.fixed_size import FixedSizeModule

        if module.channels not in (1, 3):
            raise DataError(f"Core ML takes RGB and grey images; these networks take {module.channels} channels")
        with _quiet():
            import coremltools as ct  # type: ignore[import-untyped]

            class Images(nn.Module):
                """The module for an image as Core ML passes it: float32 (1, C, H, W)."""

                def __init__(self, fixed: FixedSizeModule) -> None:
                    super().__init__()
                    self.fixed = fixed

                def forward(self, images: Any) -> tuple[Any, ...]:
                    found = self.fixed(images.permute(0, 2, 3, 1))
                    return tuple(each if each.is_floating_point() else each.int() for each in found)

            fixed = FixedSizeModule(module, self.image_size(module))
            program = fixed.program_of(Images(fixed), fixed.example.permute(0, 3, 1, 2).float().contiguous())
            return ct.convert(
                program.run_decompositions({}),
                inputs=[
                    ct.ImageType(
                        "images", color_layout=ct.colorlayout.RGB if module.channels == 3 else ct.colorlayout.GRAYSCALE
                    )
                ],
                outputs=[ct.TensorType(name) for name in module.output_names],
                minimum_deployment_target=ct.target.iOS17,
                compute_precision=ct.precision.FLOAT32,
                skip_model_load=True,
            )

    def save(self, program: Any, metadata: ExportMetadata, file: Path) -> None:
        """Write the package."""
        program.user_defined_metadata[KEY] = metadata.model_dump_json()
        with _quiet():
            program.save(str(file))

    def load(self, file: Path) -> Run:
        """Return a function that runs the model on macOS; a SavedPredictorError for other files."""
        from PIL import Image

        with _quiet():
            import coremltools as ct

            try:
                model = ct.models.MLModel(str(file), compute_units=ct.ComputeUnit.CPU_ONLY)
            except Exception as error:  # classes of coremltools and of the system
                reason = " ".join(str(error).split())[:150]
                raise SavedPredictorError(f"{file} is not a Core ML package, or is damaged ({reason})") from None
        names = ExportMetadata.from_json(model.user_defined_metadata.get(KEY), file).outputs

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            parts = [model.predict({"images": Image.fromarray(image.squeeze())}) for image in images]
            return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in names}

        return run


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence the warnings, progress bars and messages of coremltools."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
