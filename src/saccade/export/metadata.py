"""What every exported file states about itself: one schema for all formats. It imports neither torch nor a runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from saccade.errors import SavedPredictorError

FORMAT_VERSION = 1  # of `ExportMetadata`; a reader refuses newer ones
KEY = "saccade"  # the name of the JSON text in a file's own metadata


class ExportedNetwork(BaseModel):
    """A network in an exported file."""

    name: str
    weight: float  # in the mean of the predictions
    license: str  # of its pretrained weights; "" if unknown


class ExportedPreprocessing(BaseModel):
    """What happens to an image; all `steps` are in the file, apart from decoding."""

    channels: int  # 3 for RGB, 1 for grey, 4 for RGB and alpha
    # JPEG files may be decoded at 1/2, 1/4 or 1/8 of their size while the shorter side keeps so many pixels, as
    # `predict` does. Decoding at full size changes probabilities slightly.
    shorter_side: int
    steps: list[str]  # for people
    # Black and white of samples of more than 8 bits, as of the training images; None is the range of each image.
    pixel_range: tuple[float, float] | None = None


class ExportMetadata(BaseModel):
    """The metadata of an exported file."""

    model_config = ConfigDict(extra="ignore")

    saccade_version: str
    format_version: int = Field(FORMAT_VERSION, ge=1)
    problem_type: Literal["binary", "multiclass", "multilabel", "regression"]
    class_names: list[str]  # in the order of the probabilities; empty for regression
    models: list[ExportedNetwork]
    preprocessing: ExportedPreprocessing
    metrics: dict[str, float]  # on the validation images, as the fit measured them
    outputs: list[str]  # names of the outputs, in their order
    precision: str = "fp32"
    coverage: float | None = None  # of `set_mask` or `interval`; None without these outputs
    novelty_threshold: float | None = None  # above which an image is unknown; None if unknown or without novelty
    false_alarm_rate: float | None = None  # part of known images above `novelty_threshold`
    # Largest difference from `predict_proba` (for regression from `predict`, in standard deviations of the labels).
    max_difference: float | None = None

    @classmethod
    def from_json(cls, text: str | bytes | None, file: Path) -> ExportMetadata:
        """Read the metadata of a file; a SavedPredictorError if it is missing, damaged or newer."""
        if not text:
            raise SavedPredictorError(
                f"{file} has no metadata of Saccade, so its classes and preprocessing are unknown. Pass a file that "
                "saccade export has written"
            )
        try:
            found = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise SavedPredictorError(
                f"{file} has damaged metadata ({place}: {first['msg']}). Export the predictor again"
            ) from None
        if found.format_version > FORMAT_VERSION:
            raise SavedPredictorError(
                f"{file} was exported by saccade {found.saccade_version[:40]} in a newer format. Update saccade"
            )
        return found
