"""``saccade leaderboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def leaderboard(
    run: Annotated[Path, typer.Argument(help="A run folder, or a saved predictor's.")],
) -> None:
    """Show the trials of a run, the best first, and where its time went."""
    from saccade.predictor import ImagePredictor
    from saccade.report.tables import output_console, print_trials, seconds_line

    predictor = ImagePredictor.load(run)
    print_trials(output_console(), predictor.leaderboard())
    summary = predictor.fit_summary()
    typer.echo(f"result: {predictor.pipeline.saved.result}")
    if why := summary.get("why_not_best_trial"):  # predictors of earlier versions have neither this nor seconds
        typer.echo(f"Trial {summary['best_trial']} alone is not the result: {why}")
    if seconds := summary.get("seconds"):
        typer.echo(seconds_line(seconds))
