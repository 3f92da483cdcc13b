"""``saccade predict``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saccade.cli.printing import printable

if TYPE_CHECKING:
    import numpy as np

    from saccade.predictor import ImagePredictor

UNREADABLE = "cannot be read"
"""What is shown instead of a class; a warning says why."""


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or a saved predictor's.")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|DIR...", help="Files of images, and folders: all images below them are taken."),
    ],
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a table: image, label, and p_<class> for each class."),
    ] = None,
) -> None:
    """Show the likeliest class of each image, and its probability.

    Images that cannot be read are told as such; only when all of them cannot is that an error.
    """
    import numpy as np  # torch, and NumPy, are slow to import

    from saccade.cli.inputs import read_files
    from saccade.predictor import ImagePredictor

    predictor = ImagePredictor.load(run, verbosity=2 if csv else 1)
    files = read_files(images)
    answers: list[tuple[str | None, str]]
    if predictor.classes:
        probabilities = np.asarray(predictor.predict_proba(files))
        answers = [_answer(predictor, row) for row in probabilities]
        labels: list[Any] = [name for name, _ in answers]
        columns = {f"p_{name}": column for name, column in zip(predictor.class_names, probabilities.T, strict=True)}
    else:
        labels, columns = list(predictor.predict(files)), {}
        answers = [(None if value is None else f"{value:.6g}", "") for value in labels]
    if csv is None:
        _show(files, answers)
    else:
        _write(csv, {"image": files, "label": labels, **columns})
        _show_summary(csv, [name for name, _ in answers], is_counted=bool(predictor.classes))


def _answer(predictor: ImagePredictor, probabilities: np.ndarray) -> tuple[str | None, str]:
    """Return the name of the likeliest class, or of all labels that an image has, and how likely that is."""
    from saccade.tasks.problem import THRESHOLD

    if (probabilities != probabilities).any():  # NaN
        return None, ""
    if predictor.problem_type == "multilabel":
        pairs = zip(predictor.class_names, probabilities, strict=True)
        return ",".join(name for name, probability in pairs if probability >= THRESHOLD), ""
    return predictor.class_names[probabilities.argmax()], f"{probabilities.max():.3f}"


def _show(files: list[str], answers: list[tuple[str | None, str]]) -> None:
    shown = [
        (printable(file), UNREADABLE if name is None else name, probability)
        for file, (name, probability) in zip(files, answers, strict=True)
    ]
    path_width, name_width = (max(len(row[column]) for row in shown) for column in (0, 1))
    for path, name, probability in shown:
        typer.echo(f"{path:<{path_width}}  {name:<{name_width}}  {probability}".rstrip())


def _show_summary(csv: Path, names: list[str | None], *, is_counted: bool) -> None:
    counts = Counter("read" if name is not None and not is_counted else name for name in names)
    parts = [f"{UNREADABLE if name is None else name} ({num})" for name, num in counts.most_common()]
    typer.echo(f"{len(names)} image{'s' * (len(names) != 1)}: {', '.join(parts)}")
    typer.echo(f"written to {printable(str(csv))}")


def _write(csv: Path, columns: dict[str, Any]) -> None:
    import pandas as pd  # slow to import

    # File names need not be Unicode.
    pd.DataFrame(columns).to_csv(csv, index=False, encoding="utf-8", errors="surrogateescape")
