"""``saccade fit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saccade.errors import DataError

if TYPE_CHECKING:
    from saccade.fit.config_file import FitConfig

_SAME_NAMES = (
    *("num_trials", "searcher", "searcher_options", "scheduler", "scheduler_options", "starting_configs"),
    *("trial_time_limit", "max_reward", "holdout_frac", "weights", "executor", "refit_full", "objectives"),
    *("ensemble", "num_folds"),
)
_ARGUMENTS = {"preset": "presets", "seed": "random_state", "threads": "nthreads_per_trial", "gpus": "ngpus_per_trial"}
"""What `ImagePredictor.fit` calls these options."""


def fit(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR|ZIP|CSV|URL",
            help="Images in a folder for each class; train/, val/, test/ with such folders; or a table of images.",
            show_default=False,
        ),
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="For everything: 600, 90s, 10m, 1h30m or none.  [default: 2h]")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME[,NAME...]", help="Networks to search.")] = None,
    lr: Annotated[str | None, typer.Option(metavar="VALUE", help="Learning rate, such as 1e-4:1e-1:log.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any hyperparameter: a value, a,b or low:high[:log]."),
    ] = None,
    num_trials: Annotated[int | None, typer.Option(metavar="N", help="Trials at most.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            "--presets",
            metavar="NAME",
            help="medium_quality, high_quality, best_quality or fast_inference: how much work it is worth.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A TOML file with these options, or a run folder, whose fit.toml is taken."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="The run folder.  [default: a new one in saccade_runs]")
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="PATH", help="Folder, or file, of pretrained weights.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of all that is random.  [default: 0]")] = None,
    holdout_frac: Annotated[
        float | None,
        typer.Option(
            metavar="PART",
            help="Images held out to judge trials, where there is no val/.  [default: 0.1, or less of very many]",
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="The figure that chooses.  [default: accuracy, or rmse]")
    ] = None,
    problem_type: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="binary, multiclass or regression.  [default: what the labels look like]"),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Labels in a table.  [default: label]")] = None,
    image_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Images in a table.  [default: image]")
    ] = None,
    image_root: Annotated[
        str | None,
        typer.Option(metavar="DIR|ZIP|URL", help="Where the images of a table are.  [default: beside it]"),
    ] = None,
    searcher: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who proposes what to try: random, tpe, gp, ….  [default: auto]")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who decides what runs next: fifo, asha, ….  [default: auto]")
    ] = None,
    trial_time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="Training that one trial may have: 600, 90s, 10m.")
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME...", help="The score, and what is to be small: latency, params, bytes."),
    ] = None,
    max_reward: Annotated[float | None, typer.Option(metavar="SCORE", help="A score that ends the search.")] = None,
    refit_full: Annotated[
        bool | None, typer.Option("--refit-full", help="Train the best once more, on all images.", show_default=False)
    ] = None,
    ensemble: Annotated[
        str | None,
        typer.Option(metavar="N", help="Networks at most whose predictions are averaged, or none.  [default: 5]"),
    ] = None,
    num_folds: Annotated[
        int | None,
        typer.Option(metavar="K", help="Train the best once for each of K folds, and average the networks."),
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads of a trial.")] = None,
    gpus: Annotated[
        float | None, typer.Option(metavar="N", help="GPUs of a trial: 0 trains on the CPU, 0.5 shares one.")
    ] = None,
    executor: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where trials run: inline or process.  [default: auto]")
    ] = None,
    verbosity: Annotated[
        int | None,
        typer.Option(metavar="0-3", help="0 silent, 1 the result, 2 trials, 3 epochs.  [default: 2]"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, where one was interrupted.")
    ] = False,
) -> None:
    """Search networks and hyperparameters; keep the best.

    The run folder gets a file fit.toml that repeats the run: saccade fit --config RUN --out OTHER.
    """
    given = {name: value for name, value in locals().items() if value is not None and name != "resume"}
    asked = _asked(given)
    if asked.data is None:
        raise DataError(
            "there are no images: name a folder, an archive, a CSV file or an address, as in saccade fit pets.zip; or "
            "give a --config that has data = '…'"
        )
    _fit(asked, resume)


def _asked(given: dict[str, Any]) -> FitConfig:
    """Return what the options say, and for the rest what the file says that they name."""
    from saccade.data.sources.sources import local_file
    from saccade.fit.config_file import FitConfig
    from saccade.fit.values import parse_hyperparameters

    named = {name: given.pop(name, None) for name in ("model", "lr")}
    hyperparameters = parse_hyperparameters(given.pop("settings", []), **named)
    config = given.pop("config", None)
    options = FitConfig.of({**given, "hyperparameters": hyperparameters})
    asked = options if config is None else options.over(FitConfig.read(local_file(config)))
    return asked if asked.seed is not None else asked.model_copy(update={"seed": 0})


def _fit(asked: FitConfig, resume: bool) -> None:
    from saccade.cli.inputs import TableColumns, read_splits
    from saccade.fit.config_file import FIT_TOML
    from saccade.predictor import ImagePredictor
    from saccade.report.tables import output_console, print_trials

    assert asked.data is not None
    label = asked.label or "label"
    splits = read_splits(asked.data, TableColumns(asked.image_column or "image", label, asked.image_root))
    verbosity = 2 if asked.verbosity is None else asked.verbosity
    predictor = ImagePredictor(label, asked.problem_type, asked.metric, asked.out, verbosity)
    predictor.fit(splits.train, splits.val, hyperparameters=asked.hyperparameters, resume=resume, **_arguments(asked))
    asked.elsewhere().write(Path(predictor.path) / FIT_TOML)
    if verbosity > 0:
        print_trials(output_console(), predictor.leaderboard())
    if splits.test is not None:
        for name, figure in predictor.evaluate(splits.test).items():
            typer.echo(f"test {name} {figure:.4f}")
    typer.echo(f"run {predictor.path}")


def _arguments(asked: FitConfig) -> dict[str, Any]:
    """Return the keyword arguments of `ImagePredictor.fit` for what was said."""
    limit = {} if asked.time_limit is None else {"time_limit": None if asked.time_limit == "none" else asked.time_limit}
    said = {_ARGUMENTS.get(name, name): getattr(asked, name) for name in (*_SAME_NAMES, *_ARGUMENTS)}
    return {**limit, **{argument: value for argument, value in said.items() if value is not None}}
