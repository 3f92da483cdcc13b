"""``saccade predict``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.cli.arguments import Images, Run
from saccade.cli.printing import check_output, printable
from saccade.errors import explained_file_errors

UNREADABLE = "cannot be read"
"""Printed instead of a class; a warning contains the reason."""


def predict(
    run: Run,
    images: Images,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a table: image, label, and p_<class> for each class."),
    ] = None,
) -> None:
    """Print the label of each image, and its probability.

    Unreadable images are marked; it is an error only if no image can be read.
    """
    import pandas as pd  # slow to import, as torch is

    from saccade.cli.inputs import read_files
    from saccade.predictor import ImagePredictor

    check_output(csv)
    predictor = ImagePredictor.load(run, verbosity=2 if csv else 1)
    files = read_files(images)
    found = predictor.pipeline.predict(files, verbosity=predictor.verbosity)
    names = [None if each is None else ",".join(each) for each in found.names(predictor.class_names)]
    if csv is None:
        shown = [
            (printable(file), UNREADABLE if name is None else name, "" if p is None else f"{p:.3f}")
            for file, name, p in zip(files, names, found.label_probabilities, strict=True)
        ]
        path_width, name_width = (max(len(row[column]) for row in shown) for column in (0, 1))
        for path, label, probability in shown:
            typer.echo(f"{path:<{path_width}}  {label:<{name_width}}  {probability}".rstrip())
        return
    columns: dict[str, Any] = {"image": files, "label": names if predictor.classes else found.labels}
    if predictor.classes:
        columns |= {f"p_{name}": p for name, p in zip(predictor.class_names, found.predictions.T, strict=True)}
    with explained_file_errors(csv):  # file names need not be valid Unicode
        pd.DataFrame(columns).to_csv(csv, index=False, encoding="utf-8", errors="surrogateescape")
    counts = Counter("read" if name is not None and not predictor.classes else name for name in names)
    parts = [f"{UNREADABLE if name is None else name} ({num})" for name, num in counts.most_common()]
    typer.echo(f"{len(names)} image{'s' * (len(names) != 1)}: {', '.join(parts)}")
    typer.echo(f"written to {printable(str(csv))}")
