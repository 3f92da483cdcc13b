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
    summary = predictor.fit_summary()
    print_trials(output_console(), predictor.leaderboard(), summary)
    if seconds := summary.get("seconds"):  # predictors of earlier versions have none
        typer.echo(seconds_line(seconds))
