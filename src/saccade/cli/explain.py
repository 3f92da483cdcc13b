"""``saccade explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saccade.cli.arguments import Images, Run
from saccade.cli.printing import check_output, printable
from saccade.errors import DataError, explained_file_errors

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
"""Formats of the figure."""


def explain(
    run: Run,
    images: Images,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File of the figure: PNG, JPEG, WebP, PDF or SVG by its extension.")
    ] = Path("why.png"),
    k: Annotated[int, typer.Option("-k", metavar="NUM", help="Number of similar training images for each image.")] = 4,
    num_images: Annotated[
        int, typer.Option(metavar="NUM", help="Maximum number of images; of more, those with the lowest confidence.")
    ] = 12,
    among: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|ZIP|URL",
            help="The training images, in a folder for each class.  [default: the images of the fit]",
        ),
    ] = None,
) -> None:
    """Draw an explanation of each prediction: a saliency map, and the most similar training images.

    Unreadable images are listed; it is an error only if all images are unreadable.
    """
    from saccade.cli.inputs import read_files, read_splits
    from saccade.data.sources.tables import is_table
    from saccade.predictor import ImagePredictor
    from saccade.report.figures import UNREADABLE, reasons_figure

    if out.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{out} is not the name of a supported image file; pass --out with a name that ends in "
            f"{', '.join(SUFFIXES)}"
        )
    if among is not None and is_table(among):
        raise DataError(f"{among} is a table; pass --among with the training images in a folder for each class")
    out.parent.mkdir(parents=True, exist_ok=True)
    check_output(out)
    predictor = ImagePredictor.load(run)
    files = read_files(images)
    train = None if among is None else read_splits(among).train
    reasons = predictor.reasons(files, k, num_images, train)
    with explained_file_errors(out):
        reasons_figure(reasons).savefig(out)
    rows = [("image", "label", "probability", "nearest", "similarity")]
    for reason in reasons:
        probability = "" if reason.probability is None else f"{reason.probability:.3f}"
        nearest = next(iter(reason.neighbours), None)
        label, similarity = ("", "") if nearest is None else (nearest.label or "", f"{nearest.similarity:.2f}")
        rows.append((printable(str(reason.image)), reason.predicted or UNREADABLE, probability, label, similarity))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    if len(reasons) < len(files):
        typer.echo(f"{len(reasons)} of {len(files)} images; pass --num-images to show more")
    typer.echo(f"written to {printable(str(out))}")
