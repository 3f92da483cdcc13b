"""``saccade export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saccade.cli.printing import printable
from saccade.cli.words import Run


def export(
    run: Run,
    to: Annotated[str, typer.Option(metavar="FORMAT", help="The format of the file.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR", help="The file, or its folder.  [default: the folder export in the run folder]"
        ),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(metavar="NUM", help="Coverage of the sets of classes; 0.9 if not given and available."),
    ] = None,
    web: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder dist of the npm package onnxruntime-web, for the page beside an ONNX file."
        ),
    ] = None,
    member: Annotated[
        int | None,
        typer.Option(metavar="NUM", help="Network of an ensemble, from 0, for formats of one network such as timm."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a predictor as a file that runs without Saccade.

    The file is compared with the predictor on images of several sizes before it is moved into place.
    """
    from saccade.predictor import ImagePredictor

    predictor = ImagePredictor.load(run, verbosity=1)
    given = {"member": member, "web": web}
    options = {name: value for name, value in given.items() if value is not None}
    file = predictor.export(to, out, coverage=coverage, overwrite=overwrite, **options)
    typer.echo(f"written to {printable(file)}")
