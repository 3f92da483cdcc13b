"""``saccade leaderboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def leaderboard(
    run: Annotated[Path, typer.Argument(help="A run folder, or a saved predictor's.")],
) -> None:
    """Show the trials of a run, the best first, and where its time went."""
    from saccade.fit.run_folder import has_predictor, how_to_finish, is_run, read_trials
    from saccade.predictor import ImagePredictor
    from saccade.report.tables import output_console, print_trials, seconds_line
    from saccade.selection.summary import leaderboard as as_table
    from saccade.selection.summary import trial_rows

    if is_run(run) and not has_predictor(run):
        if trials := read_trials(run):
            print_trials(output_console(), as_table(trial_rows(trials), {}))
        typer.echo(how_to_finish(run))
        return
    predictor = ImagePredictor.load(run)
    summary = predictor.fit_summary()
    print_trials(output_console(), predictor.leaderboard(), summary)
    if seconds := summary.get("seconds"):  # predictors of earlier versions have none
        typer.echo(seconds_line(seconds))
