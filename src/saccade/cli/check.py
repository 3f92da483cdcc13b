"""``saccade check``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saccade.cli.words import Encoding, ImageColumn, ImageRoot, LabelSep, check_output, print_remark
from saccade.errors import DataError, explained_file_errors
from saccade.remote.urls import is_url

if TYPE_CHECKING:
    from saccade.cli.inputs import TableColumns
    from saccade.data.checks import CheckReport
    from saccade.data.dataset import ImageDataset

NUM_FILES_SHOWN = 3  # files shown for each finding; the table of --csv has all of them


def check(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DIR|ZIP|CSV|URL",
            help="Images in a folder for each class; train/, val/, test/ with such folders; a table; or loose images.",
        ),
    ],
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table of flagged images.")] = None,
    label: Annotated[
        str, typer.Option(metavar="COLUMN[,COLUMN...]", help="Label column of a table, or several columns of 0 and 1.")
    ] = "label",
    image_column: ImageColumn = "image",
    image_root: ImageRoot = None,
    label_sep: LabelSep = None,
    encoding: Encoding = None,
) -> Any:
    """Check images for problems.

    It finds unreadable files, duplicates, images in both the training and the test set, and tiny classes. The exit code
    is 1 if a finding is an error, because scores would be misleading; 2 if files of a table are missing; else 0.
    """
    from saccade.cli.inputs import TableColumns, label_columns
    from saccade.cli.results import CheckResult
    from saccade.data.sources.sources import NO_FILE, describe_unreadable
    from saccade.data.sources.tables import is_table

    check_output(csv)
    parts = _read(data, TableColumns(image_column, label_columns(label), image_root, label_sep, encoding))
    # In findings, file names are relative to the common folder of all images.
    every_image = (image for part in parts.values() for image in part[part.image_column])
    paths = [image for image in every_image if isinstance(image, str) and not is_url(image)]
    folders = {str(Path(image).absolute().parent) for image in paths}
    root = os.path.commonpath(folders) if folders else ""
    report = _check(parts, root)
    _show(report)
    frame = report.to_frame()
    is_path = [isinstance(name, str) and not is_url(name) for name in frame["file"]]
    frame["file"] = [str(Path(root, name)) if is_path[row] else name for row, name in enumerate(frame["file"])]
    if csv is not None:
        with explained_file_errors(csv):
            frame.to_csv(csv, index=False, encoding="utf-8", errors="surrogateescape")
        typer.echo(f"written to {csv}")
    if is_table(data):
        images = parts["train"][parts["train"].image_column].tolist()
        named = {row: path for row, path in enumerate(images) if isinstance(path, str) and path and not is_url(path)}
        missing = {row: NO_FILE for row, path in named.items() if not Path(path).exists()}
        if missing:
            raise DataError(
                f"{describe_unreadable(images, missing)}\n  Name the folder of the images of {data} by --image-root"
            )
    findings = []
    for finding in report.findings:
        files = frame.loc[
            (frame["code"] == finding.code) & frame["part"].map(bool), ["part", "file", "label", "detail"]
        ]
        found = {name: getattr(finding, name) for name in ("code", "title", "severity", "message", "what_to_do")}
        findings.append({**found, "files": files.to_dict("records")})
    return CheckResult.make(num_images=report.num_images, findings=findings, csv=csv)


def _read(data: str, columns: TableColumns) -> dict[str, ImageDataset]:
    """Return the images of each split; images outside of class folders have no labels."""
    from saccade.cli.inputs import read_splits
    from saccade.data.dataset import ImageDataset
    from saccade.data.sources.tables import is_table

    try:
        splits = read_splits(data, columns)
    except DataError:
        if is_table(data):
            raise
        # Raises an error if there are no images at all.
        return {"train": ImageDataset.from_folder(data, no_class=True)}
    return {name: part for name, part in splits._asdict().items() if part is not None}


def _show(report: CheckReport) -> None:
    from saccade.report.tables import output_console

    console = output_console()
    checked = ", ".join(f"{num} in {part}" for part, num in report.num_images.items())
    nothing = "" if report.findings else "; nothing found"
    console.print(f"images checked: {checked}{nothing}", soft_wrap=True)
    for finding in report.findings:
        shown = [f"{flagged.file} ({flagged.detail})" for flagged in finding.flagged[:NUM_FILES_SHOWN]]
        if (num_more := len(finding.flagged) - len(shown)) > 0:
            shown.append(f"... and {num_more} more")
        texts = [f"{finding.title}. {finding.message}", *shown]
        print_remark(console, finding.severity, finding.code, texts, finding.what_to_do)


def _check(parts: dict[str, ImageDataset], root: str) -> CheckReport:
    """Read all images, with a progress bar on a terminal, and check them; file names are relative to `root`."""
    from rich.console import Console  # slow to import, all of them
    from rich.progress import Progress

    from saccade.data.checks import CheckedPart, check_dataset
    from saccade.data.scanning import measure_pixel_range, scan_images
    from saccade.tasks.labels import infer_problem_type, plain_labels

    checked = {}
    console = Console(stderr=True)
    train = parts["train"]
    pixel_range = measure_pixel_range(train[train.image_column].tolist())
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        for name, part in parts.items():
            images = part[part.image_column].tolist()
            bar = bars.add_task(f"reading {name}", total=len(images))
            on_progress = lambda done, _: bars.update(bar, completed=done)  # noqa: B023, E731
            scan = scan_images(images, pixel_range=pixel_range, on_progress=on_progress)
            files = [
                os.path.relpath(image, root) if isinstance(image, str) and not is_url(image) else image
                for image in images
            ]
            labels = part.label_names() if part.label_column in part else None
            checked[name] = CheckedPart(files, labels, scan)
    has_labels = train.label_column in train
    is_regression = has_labels and infer_problem_type(plain_labels(train[train.label_column])) == "regression"
    return check_dataset(checked["train"], checked.get("val"), checked.get("test"), is_regression=is_regression)
