"""``saccade fit``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import typer

from saccade.cli.output import with_json
from saccade.cli.words import flag_of, print_places
from saccade.errors import DataError

if TYPE_CHECKING:
    from saccade.fit.config_file import FitConfig
    from saccade.fit.options import FitOptions

Data = Annotated[
    str | None,
    typer.Argument(
        metavar="DIR|ZIP|CSV|URL",
        help="Images in a folder for each class; train/, val/, test/ with such folders; or a table of images.",
        show_default=False,
    ),
]
Model = Annotated[str | None, typer.Option(metavar="NAME[,NAME...]", help="Networks to search.")]
LearningRate = Annotated[str | None, typer.Option(metavar="VALUE", help="Learning rate, such as 1e-4:1e-1:log.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any hyperparameter: a value, a,b or low:high[:log]."),
]
Config = Annotated[
    str | None, typer.Option(metavar="FILE", help="TOML file with these options, or a run folder with a fit.toml.")
]


def fit(
    data: Data = None,
    model: Model = None,
    lr: LearningRate = None,
    settings: Set = None,
    config: Config = None,
    **options: Any,
) -> Any:
    """Search networks and hyperparameters; keep the best.

    The run folder gets a file fit.toml that repeats the run: saccade fit --config RUN --out OTHER.
    """
    from saccade.data.sources.sources import local_file
    from saccade.fit.config_file import FitConfig
    from saccade.fit.values import parse_hyperparameters
    from saccade.remote.urls import is_remote
    from saccade.study.url_folder import fetched

    given = {
        name: ",".join(value) if isinstance(value, list) else value  # of an option that may be repeated
        for name, value in {"data": data, **options}.items()
        if value is not None and value != []
    }
    if hyperparameters := parse_hyperparameters(settings or [], model=model, lr=lr):
        given["hyperparameters"] = hyperparameters
    asked = FitConfig.of(given, label=flag_of)
    if config is not None:
        is_folder = is_remote(config) and not config.endswith(".toml")
        asked = asked.over(FitConfig.read(fetched(config) if is_folder else local_file(config)))
    if asked.data is None:
        raise DataError(
            "No images were given. Pass a folder, an archive, a CSV file or a URL, as in saccade fit pets.zip, or a "
            "--config file with data = '…'"
        )
    return _fit(asked, asked.data)


def _fit(asked: FitConfig, data: str) -> Any:
    from saccade.cli.inputs import TableColumns, label_columns, read_splits
    from saccade.cli.results import FitResult
    from saccade.fit.config_file import FIT_TOML
    from saccade.fit.options import FitOptions
    from saccade.fit.run_folder import SOURCE
    from saccade.predictor import ImagePredictor
    from saccade.report.tables import output_console, print_trials
    from saccade.study.url_folder import send_changes
    from saccade.training.trial.ranks import launched_ranks

    if (ranks := launched_ranks()) is not None and ranks.rank > 0:  # rank 0 reads the images and prints
        ImagePredictor().fit(data)
        raise typer.Exit
    label = label_columns(asked.label)
    weight = asked.sample_weight
    others = {"--sample-weight": weight, "--groups": asked.groups, "--time": asked.time}
    named = {option: name for option, name in others.items() if isinstance(name, str)}
    columns = TableColumns(asked.image_column, label, asked.image_root, asked.label_sep, asked.encoding, named)
    splits = read_splits(data, columns)
    predictor = ImagePredictor(
        label, asked.problem_type, asked.eval_metric, asked.path, asked.verbosity, sample_weight=weight
    )
    splits.train.attrs[SOURCE] = asked.with_absolute_paths(Path.cwd()).data
    options = {name: value for name, value in asked.given.items() if name in FitOptions.model_fields}
    predictor.fit(splits.train, splits.val, **options)
    folder = predictor.pipeline.saved.folder.parent
    asked.with_absolute_paths(Path.cwd()).write(folder / FIT_TOML)
    send_changes(folder)
    if asked.verbosity > 0:
        print_trials(output_console(), predictor.leaderboard(), predictor.fit_summary())
    test = None if splits.test is None else predictor.evaluate(splits.test)
    for name, score in (test or {}).items():
        typer.echo(f"test {name} {score:.4f}")
    print_places(predictor, has_report=asked.report is not False)
    return FitResult.of(predictor, test)


def fit_command() -> Any:
    """Return the command, with a command-line option for each field of `FitConfig`; that imports pydantic."""
    from saccade.fit.config_file import FitConfig

    def command(**given: Any) -> Any:
        return fit(**given)

    parameters = [*list(inspect.signature(fit, eval_str=True).parameters.values())[:-1], *option_parameters(FitConfig)]
    command.__doc__ = fit.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command("fit")(with_json(command))
    return typer.main.get_command(app)


def option_parameters(model: type[FitOptions]) -> list[inspect.Parameter]:
    """Return a parameter for each option of the command line, as Typer reads them from a signature.

    Values are text, since the model parses and checks them; an option without a metavar is a flag, and a list may be
    given as one text or by repeating the option.
    """
    from saccade.fit.options import options_of

    parameters = []
    for name, option in options_of(model):
        if not option.is_in_cli:
            continue
        default = model.model_fields[name].get_default(call_default_factory=True)
        shown = f"  [default: {default}]" if option.metavar and default not in (None, []) else ""
        flags = [f"--{flag.replace('_', '-')}" for flag in option.flags or (name,)]
        if not option.metavar and default == "auto":  # neither given nor refused
            flags = [f"{flag}/--no-{flag[2:]}" for flag in flags]
        declared = typer.Option(*flags, metavar=option.metavar or None, help=option.summary + shown, show_default=False)
        is_list = get_origin(model.model_fields[name].annotation) is list
        kind: Any = bool if not option.metavar else list[str] if is_list else str
        annotation: Any = Annotated[kind | None, declared]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return parameters
