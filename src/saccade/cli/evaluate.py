"""``saccade evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or the folder of a saved predictor.")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DIR|ZIP|CSV|URL", help="Images in a folder for each class, test/ with such folders, or a table."
        ),
    ],
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME...]",
            help="Metrics to print, such as f1_macro, classification_report or confusion_matrix.",
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of labels in a table.  [default: that of the fit]")
    ] = None,
    image_column: Annotated[str, typer.Option(metavar="COLUMN", help="Column of images in a table.")] = "image",
    image_root: Annotated[
        str | None,
        typer.Option(metavar="DIR|ZIP|URL", help="Folder of the images of a table.  [default: that of the table]"),
    ] = None,
    label_sep: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Separator of several labels in one field of a table.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help="Encoding of a table, such as cp1252.")] = None,
) -> None:
    """Print the metrics of a run on labelled images."""
    from saccade.cli.inputs import TableColumns, label_columns, read_test_images
    from saccade.predictor import ImagePredictor

    predictor = ImagePredictor.load(run)
    fitted = predictor.label
    columns_of_labels = label_columns(label) if label else fitted if isinstance(fitted, str) else list(fitted)
    columns = TableColumns(image_column, columns_of_labels, image_root, label_sep, encoding)
    images = read_test_images(data, columns)
    names = None if metrics is None else [name.strip() for name in metrics.split(",")]
    for name, score in predictor.evaluate(images, names).items():
        typer.echo(f"{name} {score:.4f}" if isinstance(score, float) else f"{name}\n{score.to_string()}")
