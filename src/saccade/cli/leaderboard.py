"""``saccade leaderboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def leaderboard(
    run: Annotated[Path, typer.Argument(help="A run folder, or a saved predictor's.")],
) -> None:
    """Show the trials of a run, the best first."""
    from saccade.predictor import ImagePredictor
    from saccade.report.tables import output_console, print_trials

    print_trials(output_console(), ImagePredictor.load(run).leaderboard())
