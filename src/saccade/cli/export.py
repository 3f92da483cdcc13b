"""``saccade export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    precision: Annotated[
        str | None,
        typer.Option(metavar="fp32|fp16|int8", help="In which the networks of an ONNX file compute.  [default: fp32]"),
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(metavar="NUM", help="How far accuracy may fall with fp16 or int8.  [default: 0.01]"),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Size of the images in pixels, such as 480x640, for openvino, litert and coreml."
        ),
    ] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not compare the file with the predictor.")] = False,
) -> Any:
    """Write a predictor as a file that runs without Saccade.

    The file is compared with the predictor on images of several sizes before it is moved into place.
    """
    from saccade.cli.results import FileResult
    from saccade.predictor import ImagePredictor

    predictor = ImagePredictor.load(run, verbosity=1)
    given = {
        "member": member,
        "web": web,
        "precision": precision,
        "max_accuracy_drop": max_accuracy_drop,
        "image_size": image_size,
    }
    options = {name: value for name, value in given.items() if value is not None}
    file = predictor.export(to, out, coverage=coverage, overwrite=overwrite, check=not no_check, **options)
    typer.echo(f"written to {printable(file)}")
    return FileResult.of(file)
