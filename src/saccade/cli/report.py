"""Pages: ``saccade report`` of one run, and ``compare`` of several, with a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saccade.cli.words import Encoding, ImageColumn, ImageRoot, LabelSep, Run, check_output, printable
from saccade.study.url_folder import with_urls

if TYPE_CHECKING:
    from rich.table import Table

    from saccade.report.compare import Comparison


def report(
    run: Run,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file.  [default: report.html in the folder]")
    ] = None,
) -> Any:
    """Write the report of a run as one HTML file: what was asked, what came out, and how the search went.

    The run may have failed, may not have finished, or may still run: then the report has fewer parts.
    """
    from saccade.cli.results import ReportResult
    from saccade.report.report import Report  # slow to import, as torch is

    made = Report.read(run)
    file = with_urls(str(made.save(out)))
    typer.echo(f"report {file}")
    return ReportResult.make(file=file, sections=list(made.frames))


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Two or more run folders, folders of saved predictors, or their URLs."),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|ZIP|CSV|URL",
            help="Test images, as for evaluate.  [default: the validation images that the runs have in common]",
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Metric.  [default: that of the fits, if it is the same]")
    ] = None,
    interval: Annotated[float, typer.Option(metavar="P", help="Confidence of the intervals.")] = 0.95,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write the page of the comparison, one HTML file.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of labels in a table.  [default: that of the first run]"),
    ] = None,
    image_column: ImageColumn = "image",
    image_root: ImageRoot = None,
    label_sep: LabelSep = None,
    encoding: Encoding = None,
) -> Any:
    """Compare runs on the same images, with paired intervals of the differences to the first run.

    Runs that failed or have not finished get a row without a score.
    """
    from saccade.cli.inputs import TableColumns, label_columns, read_test_images
    from saccade.cli.results import CompareResult
    from saccade.report.compare import compare as compared
    from saccade.report.record import RunRecord
    from saccade.report.tables import output_console

    check_output(out)
    images = None
    if data is not None:
        saved = (RunRecord.read(run).saved for run in runs)
        fitted = next((each.label for each in saved if each is not None), "label")
        labels = label_columns(label) if label else fitted if isinstance(fitted, str) else list(fitted)
        images = read_test_images(data, TableColumns(image_column, labels, image_root, label_sep, encoding))
    comparison = compared(runs, images, metric=metric, interval=interval)
    console = output_console()
    console.print(table(comparison))
    for row in comparison.frames["summary"].itertuples():
        for line in str(row.value).splitlines():
            console.print(f"{row.what}: {line}", soft_wrap=True, markup=False)
    file = None if out is None else comparison.save(out)
    if file is not None:
        typer.echo(f"written to {printable(str(file))}")
    compared_runs = comparison.record
    return CompareResult.make(
        metric=compared_runs.metric.name,
        greater_is_better=compared_runs.metric.greater_is_better,
        images=compared_runs.what,
        num_images=len(compared_runs.targets),
        interval=interval,
        runs=comparison.frames["runs"].astype(object).to_dict("records"),
        differences=comparison.frames["differences"].to_dict("records") if "differences" in comparison.frames else [],
        warnings=comparison.warnings,
        file=file,
    )


def table(comparison: Comparison) -> Table:
    """Return the runs as a table for the console."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    frame = comparison.frames["runs"]
    percent = f"{comparison.record.interval:.0%}"
    found = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in (
        "run",
        comparison.record.metric.name,
        percent,
        "difference",
        percent,
        "p",
        "",
        "images/s",
        "MB",
        "s",
        "networks",
    ):
        is_text = name in ("run", "", "networks")
        found.add_column(name, justify="left" if is_text else "right")

    def number(value: float, form: str) -> str:
        return "" if value != value else format(value, form)  # NaN differs from itself

    def ends(low: float, high: float, form: str) -> str:
        return "" if low != low else f"{low:{form}} to {high:{form}}"

    for row in frame.to_dict("records"):
        verdict = row["verdict"] if row["verdict"] != "not compared" or row["status"] == "finished" else row["status"]
        cells = [
            row["run"],
            number(row["score"], ".4g"),
            ends(row["score_low"], row["score_high"], ".4g"),
            number(row["difference"], "+.3g"),
            ends(row["difference_low"], row["difference_high"], "+.3g"),
            number(row["p_value"], ".3f"),
            verdict,
            number(row["images_per_s"], ",.3g" if row["images_per_s"] < 100 else ",.0f"),
            "" if row["num_bytes"] is None or row["num_bytes"] != row["num_bytes"] else f"{row['num_bytes'] / 1e6:.1f}",
            number(row["seconds"], ".1f"),
            row["networks"],
        ]
        found.add_row(*map(Text, cells))
    return found
