"""``saccade evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or a saved predictor's.")],
    data: Annotated[str, typer.Argument(metavar="DIR", help="A folder of classes, or one with test/ in it.")],
) -> None:
    """Show how well a run does on labelled images."""
    from saccade.cli.inputs import read_test_images  # pandas and torch are slow to import
    from saccade.predictor import ImagePredictor

    predictor = ImagePredictor.load(run)
    for name, figure in predictor.evaluate(read_test_images(data)).items():
        typer.echo(f"{name} {figure:.4f}")
