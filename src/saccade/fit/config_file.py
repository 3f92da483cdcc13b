"""A whole fit in a TOML file: the options of `FitOptions`, the data, and the arguments of `ImagePredictor`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import tomli_w
from pydantic import Field

from saccade._version import __version__
from saccade.errors import DataError, HyperparameterError, SaccadeError, UnknownNameError
from saccade.fit.options import FitOptions, Kind, Option, option_flag, options_of
from saccade.fit.values import from_toml, parse_constant, to_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FIT_TOML = "fit.toml"  # the file in a run folder that repeats the run

_HEAD = f"""\
# Repeats the run, as far as time limits allow:  saccade fit --config {FIT_TOML}
# Options on the command line take precedence over this file. Written by Saccade {__version__}.

"""
_OTHER_NAMES = {"set": "hyperparameters"}
_SHORT_CUTS = ("model", "lr")  # hyperparameters that are options of their own


class FitConfig(FitOptions):
    """A fit as the command line and TOML files describe it."""

    data: Annotated[
        str | None,
        Option(
            "Folder with a subfolder per class, archive or CSV file of images, or its URL.",
            is_path=True,
            is_in_cli=False,
        ),
    ] = None
    label: Annotated[
        str, Option("Label column of a table, or several columns of 0 and 1.", metavar="COLUMN[,COLUMN...]")
    ] = "label"
    label_sep: Annotated[
        str | None, Option("Separator of several labels in one field: a multilabel problem.", metavar="TEXT")
    ] = None
    sample_weight: Annotated[
        str | None, Option("Column of a table with the weight of each image in training.", metavar="COLUMN")
    ] = None
    encoding: Annotated[
        str | None, Option("Encoding of a table, such as cp1252; by default UTF-8.", metavar="NAME")
    ] = None
    image_column: Annotated[str, Option("Image column of a table.", metavar="COLUMN")] = "image"
    image_root: Annotated[
        str | None,
        Option(
            "Folder, archive or URL that contains the images of a table; by default the table's folder.",
            metavar="DIR|ZIP|URL",
            is_path=True,
        ),
    ] = None
    problem_type: Annotated[
        str | None,
        Option("binary, multiclass, multilabel or regression; by default inferred from the labels.", metavar="TYPE"),
    ] = None
    eval_metric: Annotated[
        str | None,
        Option("Metric used for model selection; by default accuracy, or rmse.", metavar="NAME", flags=("metric",)),
    ] = None
    path: Annotated[
        str | None,
        Option("Run folder; by default a new one in saccade_runs.", metavar="DIR", flags=("out",), is_path=True),
    ] = None
    verbosity: Annotated[
        int,
        Field(ge=0, le=3),
        Option("0 silent, 1 result, 2 trials, 3 epochs.", metavar="0-3"),
        Kind("0, 1, 2 or 3", parse_constant),
    ] = 2

    @classmethod
    def read(cls, path: str | Path) -> FitConfig:
        """Return the configuration in a TOML file, or in a run folder's.

        The table ``hyperparameters`` (or ``set``) holds values that `saccade.fit.values.from_toml` reads; ``model`` and
        ``lr`` may stand outside. Relative paths are relative to the file.
        """
        path = Path(path).expanduser()
        file = path / FIT_TOML if path.is_dir() else path
        if path.is_dir() and not file.is_file():
            raise DataError(f"{path} is a folder without the file {FIT_TOML}. Pass a TOML file, or a run folder")
        try:
            # Some editors of Windows begin a text with a byte order mark.
            values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(f"{file} is not a TOML file: {error}") from None
        try:
            values = _with_one_table(values)
            names = {
                flag: name for name, option in options_of(cls) if option.is_in_file for flag in option.flags or (name,)
            }
            for flag in values:
                if flag not in names:
                    raise UnknownNameError.of("key", flag, [*names, *_OTHER_NAMES, *_SHORT_CUTS])
            arguments = {names[flag]: value for flag, value in values.items()}
            config = cls.of(arguments, label=lambda name: repr(option_flag(cls, name)))
            return config.with_absolute_paths(file.absolute().parent)
        except SaccadeError as error:
            raise type(error)(f"{file}: {error}") from None

    def write(self, path: Path) -> None:
        """Write a TOML file that `read` reads; a comment names what it cannot hold, such as networks of the user."""
        options = dict(options_of(type(self)))
        values: dict[str, Any] = {}
        remarks = []

        def add(table: dict[str, Any], name: str, value: Any, form: Callable[[Any], Any] = lambda value: value) -> None:
            try:
                tomli_w.dumps({name: form(value)}).encode()
            except (HyperparameterError, TypeError, UnicodeEncodeError):
                remarks.append(f"# {name} cannot be written: {shorten(ascii(value), 100)}\n")
            else:
                table[name] = form(value)

        for name, value in self.given.items():
            if not options[name].is_in_file or name in ("hyperparameters", "path"):  # the run keeps its folder
                continue
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if value is not None:
                form = _configs_to_toml if name == "starting_configs" else str if isinstance(value, Path) else None
                add(values, option_flag(type(self), name), value, *([form] if form else []))
            elif default is not None:
                values[option_flag(type(self), name)] = "none"
        table: dict[str, Any] = {}
        for name, value in self.hyperparameters.items():
            add(table, name, value, to_toml)
        if self.data is None:
            remarks.append("# Pass the images on the command line, before --config.\n")
        text = tomli_w.dumps({**values, **({"hyperparameters": table} if table else {})})
        path.write_text("".join([_HEAD, *remarks, text]), encoding="utf-8")

    def over(self, other: FitConfig) -> FitConfig:
        """Return the values given here, and for the rest those of `other`; hyperparameters are merged by name."""
        hyperparameters = self.hyperparameters or other.hyperparameters
        if self.hyperparameters and other.hyperparameters:
            from saccade.training.recipes.recipe import canonical

            hyperparameters = {**canonical(other.hyperparameters), **canonical(self.hyperparameters)}
        return other.model_copy(update={**self.given, "hyperparameters": hyperparameters})

    def with_absolute_paths(self, folder: Path) -> FitConfig:
        """Return the same fit with absolute paths; relative ones are relative to `folder`."""
        from saccade.remote.urls import is_url

        paths = {
            name: os.path.normpath(folder / Path(value).expanduser())
            for name, option in options_of(type(self))
            if option.is_path and (value := getattr(self, name)) is not None and not is_url(str(value))
        }
        return self.model_copy(update=paths)


def _with_one_table(values: dict[str, Any]) -> dict[str, Any]:
    """Return a file's values with all hyperparameters in one table, as spaces."""
    values = dict(values)
    hyperparameters: dict[str, Any] = {}
    for name in (*_OTHER_NAMES, "hyperparameters", *_SHORT_CUTS):
        if name not in values:
            continue
        given = values.pop(name)
        if name not in _SHORT_CUTS and not isinstance(given, dict):
            raise HyperparameterError(f"{name!r} was given {given!r}; expected a table, such as {{epochs = 5}}")
        for inner, value in ({name: given} if name in _SHORT_CUTS else given).items():
            if inner in hyperparameters:
                raise HyperparameterError(f"hyperparameter {inner!r} is given twice")
            hyperparameters[inner] = from_toml(value)
    if isinstance(starts := values.get("starting_configs"), list):
        values["starting_configs"] = [
            {name: from_toml(value) for name, value in config.items()} if isinstance(config, dict) else config
            for config in starts
        ]
    return {**values, **({"hyperparameters": hyperparameters} if hyperparameters else {})}


def _configs_to_toml(configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: to_toml(value) for name, value in config.items()} for config in configs]
