"""Options that several commands have, advice for unknown ones, and messages of Python's functions in their words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from saccade.errors import UnknownArgumentError, near_names, suggestion

Run = Annotated[Path, typer.Argument(help="A run folder, or the folder of a saved predictor.")]
Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE|DIR...", help="Image files, URLs, patterns, and folders and archives with images at any depth."
    ),
]
LabelSep = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Separator of several labels in one field of a table.")
]
Encoding = Annotated[str | None, typer.Option(metavar="NAME", help="Encoding of a table, such as cp1252.")]

_PYTHON = {
    r"ImagePredictor\((\w+=[^()]*)\)": r"\1",
    r"fit\((?:…|\.\.\.), (\w+=[^()]*)\)": r"\1",
    r"\broot=": "image_root=",
    r"\bpath=": "out=",
    r"\bunknown=…": "--unknown",
    r"\bfalse_alarm_rate\b": "--false-alarm-rate",
    r"\blabel_column\b": "--label",
    r"(?<![-\w])tuning_data\b": "the folder val/",
    r"(?<![-\w])train_data\b": "the training data",
}
"""Expressions of Python in messages, and what to write instead before options are replaced."""


def flag_of(name: str) -> str:
    """Return the option of ``saccade fit`` for a field of `FitConfig`."""
    from saccade.fit.config_file import FitConfig  # lazily, as it imports pydantic
    from saccade.fit.options import option_flag

    return f"--{option_flag(FitConfig, name).replace('_', '-')}"


def in_cli_words(message: str) -> str:
    """Write arguments of Python in a message as the command line does."""
    try:
        from saccade.fit.config_file import FitConfig
        from saccade.fit.options import options_of
    except ImportError:  # only the libraries of a server are installed
        return message

    options = {name: option for name, option in options_of(FitConfig) if option.is_in_cli}

    def written(found: re.Match[str]) -> str:
        name, value = found.group("name", "value")
        if name not in options or (value is None and "_" not in name):  # words such as label and weights are English
            return found[0]
        if value is None or (value == "True" and not options[name].metavar):
            return flag_of(name)
        return f"{flag_of(name)} {'none' if value in ('None', 'False') else value}"

    for pattern, replacement in _PYTHON.items():
        message = re.sub(pattern, replacement, message)
    # A name in a path, an attribute or an option is left as it is.
    name, value = r"(?<![\w/.\\-])(?P<name>[a-z]+(?:_[a-z]+)*)(?![\w/.\\(-])", r"(?P<value>[\w….]+|'[^']*'|\[[^\]]*\])"
    return re.sub(f"{name}(?:={value})?", written, message)


def check_flags(command: str, flags: Sequence[str], arguments: Sequence[str]) -> None:
    """Raise an UnknownArgumentError for the first argument that looks like an option and is not among the flags."""
    for argument in itertools.takewhile(lambda each: each != "--", arguments):
        flag = argument.partition("=")[0]
        if not flag.startswith("--") or flag in flags:
            continue
        word = flag[2:].replace("-", "_")
        names = [known[2:].replace("-", "_") for known in flags if known.startswith("--")]
        near = [f"--{name.replace('_', '-')}" for name in near_names(word, names)]
        advice = f"Did you mean {' or '.join(near)}?" if near else ""
        if command == "fit" and not near:
            from saccade.training.recipes.recipe import ALIASES, Recipe  # lazily, as it imports torch

            places = {name: f"Pass --set {name}=VALUE." for name in (*Recipe.model_fields, *ALIASES)}
            places |= {
                "train_data": "DATA are the training images.",
                "tuning_data": "DATA may contain train/ and val/.",
            }
            advice = in_cli_words(suggestion(word, [], places))
        raise UnknownArgumentError(
            " ".join(filter(None, [f"{command} has no option {flag}.", advice, f"See saccade {command} --help."]))
        )
