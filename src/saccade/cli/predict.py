"""``saccade predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

UNREADABLE = "cannot be read"
"""What is shown instead of a class; a warning says why."""


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or a saved predictor's.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files of images.")],
) -> None:
    """Show the likeliest class of each image, and its probability."""
    from saccade.predictor import ImagePredictor  # torch is slow to import

    predictor = ImagePredictor.load(run, verbosity=1)
    if predictor.classes:
        answers = [_likeliest(predictor.class_names, row) for row in np.asarray(predictor.predict_proba(images))]
    else:
        answers = [(UNREADABLE, "") if value is None else (f"{value:.6g}", "") for value in predictor.predict(images)]
    path_width, name_width = max(len(str(image)) for image in images), max(len(name) for name, _ in answers)
    for image, (name, probability) in zip(images, answers, strict=True):
        typer.echo(f"{image!s:<{path_width}}  {name:<{name_width}}  {probability}".rstrip())


def _likeliest(names: list[str], probabilities: Any) -> tuple[str, str]:
    if np.isnan(probabilities).any():
        return UNREADABLE, ""
    return names[probabilities.argmax()], f"{probabilities.max():.3f}"
