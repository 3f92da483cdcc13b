"""``saccade predict`` and ``explain``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.cli.words import Images, Run, check_output, printable
from saccade.errors import DataError, count_of, explained_file_errors


def predict(
    run: Run,
    images: Images,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a table: image, label, and p_<class> for each class."),
    ] = None,
    unknown: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Label for images that are unlike the training images."),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Part of known images that get the label --unknown; 0.05 if not given."),
    ] = None,
) -> Any:
    """Print the label of each image, and its probability.

    Unreadable images are marked; it is an error only if no image can be read.
    """
    import pandas as pd  # slow to import, as torch is

    from saccade.cli.inputs import read_files
    from saccade.cli.results import PredictResult
    from saccade.inference.feature_bank import FALSE_ALARM_RATE
    from saccade.insight.figures import UNREADABLE
    from saccade.predictor import ImagePredictor

    check_output(csv)
    predictor = ImagePredictor.load(run, verbosity=2 if csv else 1)
    predictor.predict([], unknown=unknown, false_alarm_rate=false_alarm_rate)  # raises an error if they are invalid
    files = read_files(images)
    rate = FALSE_ALARM_RATE if unknown is not None and false_alarm_rate is None else false_alarm_rate
    found = predictor.pipeline.predict(files, verbosity=predictor.verbosity, false_alarm_rate=rate)
    names = [None if each is None else ",".join(each) for each in found.names(predictor.class_names)]
    for row in found.unknown.nonzero()[0]:
        names[row] = unknown
    probabilities = found.label_probabilities

    def result() -> PredictResult:
        labels: list[Any] = names if predictor.classes else found.labels.tolist()
        if predictor.classes and not found.problem.has_one_class:
            labels = found.names(predictor.class_names)
        rows = []
        for row, (file, label) in enumerate(zip(files, labels, strict=True)):
            error = found.errors.get(row)
            read = {"probability": probabilities[row], "is_unknown": found.unknown[row]}
            rows.append({"image": file, "label": None if error else label, "error": error, **read})
            if predictor.classes and not error:
                values = found.predictions[row].tolist()
                rows[-1]["probabilities"] = dict(zip(predictor.class_names, values, strict=True))
        return PredictResult.make(images=rows, num_images=len(rows), num_unreadable=len(found.errors), csv=csv)

    if csv is None:
        shown = [
            (printable(file), UNREADABLE if name is None else name, "" if p is None else f"{p:.3f}")
            for file, name, p in zip(files, names, probabilities, strict=True)
        ]
        path_width, name_width = (max(len(row[column]) for row in shown) for column in (0, 1))
        for path, label, probability in shown:
            typer.echo(f"{path:<{path_width}}  {label:<{name_width}}  {probability}".rstrip())
        return result
    columns: dict[str, Any] = {"image": files, "label": names if predictor.classes else found.labels}
    if predictor.classes:
        columns |= {f"p_{name}": p for name, p in zip(predictor.class_names, found.predictions.T, strict=True)}
    with explained_file_errors(csv):  # file names need not be valid Unicode
        pd.DataFrame(columns).to_csv(csv, index=False, encoding="utf-8", errors="surrogateescape")
    counts = Counter("read" if name is not None and not predictor.classes else name for name in names)
    parts = [f"{UNREADABLE if name is None else name} ({num})" for name, num in counts.most_common()]
    typer.echo(f"{count_of(len(names), 'image')}: {', '.join(parts)}")
    typer.echo(f"written to {printable(str(csv))}")
    return result


FIGURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")  # formats of the figure


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
) -> Any:
    """Draw an explanation of each prediction: a saliency map, and the most similar training images.

    Unreadable images are listed; it is an error only if all images are unreadable.
    """
    from saccade.cli.inputs import read_files, read_splits
    from saccade.cli.results import ExplainResult
    from saccade.data.sources.tables import is_table
    from saccade.insight.figures import UNREADABLE, reasons_figure
    from saccade.predictor import ImagePredictor

    if out.suffix.lower() not in FIGURE_SUFFIXES:
        raise DataError(
            f"{out} is not the name of a supported image file; pass --out with a name that ends in "
            f"{', '.join(FIGURE_SUFFIXES)}"
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
    explained = [
        {"image": one.image, "label": one.predicted, "probability": one.probability, "nearest": one.neighbours}
        for one in reasons
    ]
    return ExplainResult.make(figure=out, images=explained, num_images=len(files))
