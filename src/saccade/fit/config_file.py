"""Everything that a fit can be asked, under the names of the command line's options; from and to TOML."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from saccade._version import __version__
from saccade.data.sources.sources import is_url
from saccade.errors import HyperparameterError, SaccadeError, UnknownNameError
from saccade.fit.settings import REMOVED
from saccade.fit.toml import read_toml, toml_text
from saccade.fit.values import from_toml, parse_duration, parse_time_limit, to_toml

FIT_TOML = "fit.toml"
"""The file in a run folder that repeats the run."""

_HEAD = f"""\
# This repeats the run, as far as time limits allow:  saccade fit --config {FIT_TOML}
# Options on the command line win over what is here. Written by Saccade {__version__}.

"""
_PATHS = ("data", "image_root", "weights", "out")
_OTHER_NAMES = {"set": "hyperparameters"}
_SHORT_CUTS = ("model", "lr")  # hyperparameters that are options of their own


class FitConfig(BaseModel):
    """A fit as the command line and TOML files describe it; what is None was not said.

    Examples
    --------
    >>> config = FitConfig(data="pets.zip", time_limit="10m", hyperparameters={"epochs": 5})
    >>> config.time_limit
    600.0
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    data: str | None = Field(None, description="a folder, archive or CSV file of labelled images, or its address")
    image_column: str | None = Field(None, description="a CSV file's column of image paths")
    label: str | None = Field(None, description="a CSV file's column of labels")
    image_root: str | None = Field(None, description="what relative paths in a CSV file are relative to")
    problem_type: str | None = Field(None, description="binary, multiclass, multilabel or regression")
    metric: str | None = Field(None, description="the figure that chooses")
    time_limit: float | str | None = Field(None, description="seconds, a duration such as 10m, auto or none")
    num_trials: int | None = Field(None, description="trials at most")
    preset: str | None = Field(None, description="a preset's name")
    searcher: str | None = Field(None, description="who proposes configurations")
    searcher_options: dict[str, Any] | None = Field(None, description="further arguments of the searcher")
    scheduler: str | None = Field(None, description="who decides what runs next")
    scheduler_options: dict[str, Any] | None = Field(None, description="further arguments of the scheduler")
    starting_configs: list[dict[str, Any]] | None = Field(None, description="configurations to try first")
    trial_time_limit: float | str | None = Field(None, description="training of one trial: seconds, or 10m")
    objectives: list[str] | str | None = Field(None, description="the score, and what is to be small: latency, params")
    max_reward: float | None = Field(None, description="a score that ends the search")
    holdout_frac: float | None = Field(None, description="part of the images to hold out")
    seed: int | None = Field(None, description="seed of the split, the search and the training")
    refit_full: bool | None = Field(None, description="train the best once more, on all images")
    ensemble: bool | int | str | None = Field(None, description="the most networks to average: auto, none or a number")
    num_folds: int | None = Field(None, description="folds that the best recipe is trained and judged on")
    weights: str | None = Field(None, description="folder, or file, of pretrained weights")
    threads: int | None = Field(None, description="CPU threads of a trial")
    gpus: int | float | None = Field(None, description="GPUs of a trial; 0 trains on the CPU, 0.5 shares one")
    executor: str | None = Field(None, description="auto, inline or process")
    verbosity: int | None = Field(None, ge=0, le=3, description="0 silent, 1 the result, 2 trials, 3 epochs")
    out: str | None = Field(None, description="the run folder")
    hyperparameters: dict[str, Any] = Field(default_factory=dict, description="values and spaces by name")

    @field_validator("time_limit", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        limit = parse_time_limit(value) if isinstance(value, str) else value
        return "none" if limit is None and value is not None else limit

    @field_validator("trial_time_limit", mode="before")
    @classmethod
    def _trial_duration(cls, value: Any) -> Any:
        return parse_duration(value, "--trial-time-limit") if isinstance(value, str) else value

    @field_validator("ensemble", mode="before")
    @classmethod
    def _most_members(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return {"none": False, "false": False, "true": True}.get(value, int(value) if value.isdecimal() else value)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> FitConfig:
        """Return the configuration with these values by name.

        Raises
        ------
        UnknownNameError
            For a name that is none of the attributes, with a suggestion.
        HyperparameterError
            For a value that cannot be.
        """
        for name in values:
            if name in REMOVED:
                raise UnknownNameError(REMOVED[name])
            if name not in cls.model_fields:
                raise UnknownNameError.of("key", name, [*cls.model_fields, *_OTHER_NAMES, *_SHORT_CUTS])
        try:
            return cls(**values)
        except ValidationError as error:
            # A value that could be of several types has an error for each of them: one is enough.
            details = {detail["loc"][0]: detail for detail in reversed(error.errors(include_url=False))}
            raise HyperparameterError("; ".join(map(_problem, details.values()))) from None

    @classmethod
    def read(cls, path: str | Path) -> FitConfig:
        """Return the configuration in a TOML file, or in a run folder's.

        Values of hyperparameters are what `saccade.fit.values.from_toml` reads. They stand in the table
        ``hyperparameters`` (or ``set``); ``model`` and ``lr`` may stand outside. Relative paths are relative to the
        file.

        Raises
        ------
        DataError
            When it is no TOML file.
        UnknownNameError, HyperparameterError, SpaceError
            When something in it cannot be; the message names the file.
        OSError
            When it cannot be read at all.
        """
        path = Path(path).expanduser()
        file = path / FIT_TOML if path.is_dir() else path
        values = read_toml(file)
        try:
            return cls.of(_absolute(_with_one_table(values), file.absolute().parent))
        except SaccadeError as error:
            raise type(error)(f"{file}: {error}") from None

    def write(self, path: Path) -> None:
        """Write a TOML file that `read` reads; values that no file can hold are named in a comment.

        Such are networks, optimizers and other objects of a program's own.
        """
        said = self._said()
        spaces, own_parts = _writable(said.pop("hyperparameters"), to_toml)
        if "starting_configs" in said:
            said["starting_configs"] = [_values_to_toml(config) for config in said["starting_configs"]]
        plain, unwritable = _writable(said, lambda value: value)
        remarks = [
            f"# {name} cannot be written: {_shown(value)}\n" for name, value in {**unwritable, **own_parts}.items()
        ]
        if "data" not in plain:
            remarks.append("# The images are to be named on the command line, before --config.\n")
        text = toml_text({**plain, **({"hyperparameters": spaces} if spaces else {})})
        path.write_text("".join([_HEAD, *remarks, text]), encoding="utf-8")

    def over(self, other: FitConfig) -> FitConfig:
        """Return what is said here, and for the rest what is said in `other`; hyperparameters are taken one by one.

        Raises
        ------
        HyperparameterError
            For an unknown hyperparameter, or one that is given twice under different names.
        """
        hyperparameters = self.hyperparameters or other.hyperparameters
        if self.hyperparameters and other.hyperparameters:
            from saccade.training.recipes.recipe import canonical

            hyperparameters = {**canonical(other.hyperparameters), **canonical(self.hyperparameters)}
        return other.model_copy(update={**self._said(), "hyperparameters": hyperparameters})

    def elsewhere(self) -> FitConfig:
        """Return the same fit for a file: with absolute paths, and without a run folder, lest it replaces its own."""
        return self.model_copy(update={**_absolute(self._said(), Path.cwd()), "out": None})

    def _said(self) -> dict[str, Any]:
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


def _with_one_table(values: dict[str, Any]) -> dict[str, Any]:
    """Return a file's values with all hyperparameters in one place, as spaces."""
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
        values["starting_configs"] = [_values_from_toml(config) for config in starts]
    return {**values, "hyperparameters": hyperparameters}


def _values_from_toml(config: Any) -> Any:
    """Return a starting configuration; its values are written as those of hyperparameters."""
    return {name: from_toml(value) for name, value in config.items()} if isinstance(config, dict) else config


def _values_to_toml(config: Mapping[str, Any]) -> dict[str, Any]:
    forms, odd = _writable(config, to_toml)
    return {**forms, **odd}  # what cannot be written is found so as part of the whole


def _absolute(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values with paths that begin at `folder`, where they are relative."""
    paths = {
        name: os.path.normpath(folder / Path(path).expanduser())
        for name in _PATHS
        if isinstance(path := values.get(name), str) and not is_url(path)
    }
    return {**values, **paths}


def _writable(values: Mapping[str, Any], form: Callable[[Any], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the forms of the values that TOML can hold, and the other values."""
    written, unwritten = {}, {}
    for name, value in values.items():
        try:
            written[name] = form(value)
            toml_text({name: written[name]})
        except HyperparameterError:
            written.pop(name, None)
            unwritten[name] = value
    return written, unwritten


def _shown(value: Any) -> str:
    return shorten(ascii(value), 100)


def _problem(detail: Any) -> str:
    if detail["type"] == "value_error":  # ours, a whole sentence
        return str(detail["ctx"]["error"])
    name = str(detail["loc"][0])
    description = FitConfig.model_fields[name].description
    return f"{name!r} ({description}) was given {detail['input']!r}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
