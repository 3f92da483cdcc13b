"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(help="A run folder, or the folder of a saved predictor.")]
Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE|DIR...", help="Image files, URLs, patterns, and folders and archives with images at any depth."
    ),
]
LabelSep = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Separator of several labels in one field of a table.")
]
Encoding = Annotated[str | None, typer.Option(metavar="NAME", help="Encoding of a table, such as cp1252.")]
