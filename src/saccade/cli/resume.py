"""``saccade resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def resume(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    time_limit: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time for the whole run, earlier sessions included.  [default: unchanged]"),
    ] = None,
    verbosity: Annotated[
        int | None,
        typer.Option(metavar="0-3", min=0, max=3, help="0 silent, 1 result, 2 trials, 3 epochs."),
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Train nothing more: make the predictor of the trials that the run has.")
    ] = False,
) -> None:
    """Resume an interrupted run.

    It needs the run folder, and the images in their places. Only the interrupted epoch is trained again. A finished run
    is shown.
    """
    from saccade.fit.options import FitOptions

    given = {} if time_limit is None else {"time_limit": time_limit}
    limit = FitOptions.of(given, label=lambda _: "--time-limit").time_limit
    from saccade.predictor import ImagePredictor
    from saccade.report.tables import output_console, print_trials

    predictor = ImagePredictor.resume(run, limit, verbosity, finish=finish)
    if predictor.verbosity > 0:
        print_trials(output_console(), predictor.leaderboard(), predictor.fit_summary())
    typer.echo(f"run {predictor.path}")
