"""``saccade fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saccade.cli.values import parse_hyperparameters, parse_time_limit


def fit(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DIR|ZIP|URL", help="Images in a folder for each class, or train/, val/, test/ with such folders."
        ),
    ],
    time_limit: Annotated[str, typer.Option(help="For everything: 600, 90s, 10m, 1h30m, or none.")] = "auto",
    model: Annotated[str | None, typer.Option(metavar="NAME[,NAME...]", help="Networks to search.")] = None,
    lr: Annotated[str | None, typer.Option(metavar="VALUE", help="Learning rate, such as 1e-4:1e-1:log.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any hyperparameter: a value, a,b or low:high[:log]."),
    ] = None,
    num_trials: Annotated[int | None, typer.Option(help="Trials at most.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; a new one in saccade_runs by default.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder, or file, of pretrained weights.")] = None,
    verbosity: Annotated[int, typer.Option(help="0 silent, 1 the result, 2 trials, 3 epochs.", min=0, max=3)] = 2,
) -> None:
    """Search networks and hyperparameters; keep the best."""
    limit = parse_time_limit(time_limit)
    hyperparameters = parse_hyperparameters(settings or [], model=model, lr=lr)

    from saccade.cli.inputs import read_splits  # pandas and torch are slow to import, and mistakes are told first
    from saccade.predictor import ImagePredictor
    from saccade.report.tables import output_console, print_trials

    splits = read_splits(data)
    predictor = ImagePredictor(path=out, verbosity=verbosity)
    predictor.fit(
        splits.train,
        splits.val,
        time_limit=limit,
        hyperparameters=hyperparameters,
        hyperparameter_tune_kwargs={} if num_trials is None else {"num_trials": num_trials},
        weights=weights,
    )
    if verbosity > 0:
        print_trials(output_console(), predictor.leaderboard())
    if splits.test is not None:
        for name, figure in predictor.evaluate(splits.test).items():
            typer.echo(f"test {name} {figure:.4f}")
    typer.echo(f"run {predictor.path}")
