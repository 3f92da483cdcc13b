"""``saccade evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or a saved predictor's.")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DIR|ZIP|CSV|URL", help="Images in a folder for each class, test/ with such, or a table."
        ),
    ],
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Labels in a table.  [default: as when it was fitted]")
    ] = None,
    image_column: Annotated[str, typer.Option(metavar="COLUMN", help="Images in a table.")] = "image",
    image_root: Annotated[
        str | None,
        typer.Option(metavar="DIR|ZIP|URL", help="Where the images of a table are.  [default: beside it]"),
    ] = None,
) -> None:
    """Show how well a run does on labelled images."""
    from saccade.cli.inputs import TableColumns, read_test_images
    from saccade.predictor import ImagePredictor

    predictor = ImagePredictor.load(run)
    images = read_test_images(data, TableColumns(image_column, label or str(predictor.label), image_root))
    for name, figure in predictor.evaluate(images).items():
        typer.echo(f"{name} {figure:.4f}")
