"""``saccade report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.cli.words import Run


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
    file = made.save(out)
    typer.echo(f"report {file}")
    return ReportResult.make(file=file, sections=list(made.frames))
