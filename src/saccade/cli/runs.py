"""Commands on a run folder: ``saccade resume``, ``saccade leaderboard`` and ``saccade choose``."""

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


def choose(
    run: Annotated[Path, typer.Argument(help="The run folder of a search with several --objectives.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the predictor.")],
    max_latency_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Maximum latency in ms per image, as measured by the search."),
    ] = None,
    max_params: Annotated[float | None, typer.Option(metavar="N", help="Maximum number of parameters.")] = None,
    max_bytes: Annotated[float | None, typer.Option(metavar="N", help="Maximum size of the weights in bytes.")] = None,
    min_score: Annotated[
        float | None,
        typer.Option(metavar="SCORE", help="Minimum score: save the cheapest predictor, not the best."),
    ] = None,
) -> None:
    """Save the best predictor of a search within the given limits."""
    from saccade.predictor import ImagePredictor

    chosen = ImagePredictor.load(run).choose(
        max_latency_ms=max_latency_ms, max_params=max_params, max_bytes=max_bytes, min_score=min_score
    )
    chosen.save(out)
    typer.echo(f"result: {chosen.fit_summary()['result']}")
    typer.echo(f"predictor {out}")
