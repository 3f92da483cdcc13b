"""What commands have in common: options, advice for unknown ones, messages in their words, findings, output files."""

from __future__ import annotations

import itertools
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saccade.errors import DataError, UnknownArgumentError, near_names, suggestion
from saccade.remote.urls import output_path
from saccade.study.url_folder import with_urls

if TYPE_CHECKING:
    from rich.console import Console

    from saccade.predictor import ImagePredictor

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="A run folder, or the folder of a saved predictor, or the URL of one.")
]
Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE|DIR...", help="Image files, URLs, patterns, and folders and archives with images at any depth."
    ),
]
ImageColumn = Annotated[str, typer.Option(metavar="COLUMN", help="Column of images in a table.")]
ImageRoot = Annotated[
    str | None,
    typer.Option(metavar="DIR|ZIP|URL", help="Folder of the images of a table.  [default: that of the table]"),
]
LabelSep = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Separator of several labels in one field of a table.")
]
Encoding = Annotated[str | None, typer.Option(metavar="NAME", help="Encoding of a table, such as cp1252.")]

_STYLES = {"OK": "green", "info": "green", "note": "yellow", "warning": "yellow", "problem": "bold red", "error": "red"}
_WORD_WIDTH, _NAME_WIDTH = 9, 12
_LEAST_WIDTH = 30

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
        if command == "fit":
            from saccade.training.recipes.recipe import ALIASES, Recipe  # lazily, as it imports torch

            places = {name: f"Pass --set {name}=VALUE." for name in (*Recipe.model_fields, *ALIASES)}
            places |= {
                "train_data": "DATA are the training images.",
                "tuning_data": "DATA may contain train/ and val/.",
            }
            if word in places or not near:
                advice = in_cli_words(suggestion(word, [], places))
        raise UnknownArgumentError(
            " ".join(filter(None, [f"{command} has no option {flag}.", advice, f"See saccade {command} --help."]))
        )


def print_remark(console: Console, word: str, name: str, texts: Sequence[str], advice: str = "") -> None:
    """Print a finding, wrapped at the width of the console; each text is a paragraph, and the advice comes last.

    The colour is that of `word`: OK, info, note, warning, problem or error.
    """
    from rich.text import Text  # slow to import

    width = max(console.width - _WORD_WIDTH - _NAME_WIDTH, _LEAST_WIDTH)
    lines = [Text(line) for text in texts for line in _wrapped(text, width)]
    lines += [Text(line, "dim") for line in _wrapped(f"-> {advice}", width) if advice]
    head = Text.assemble((f"{word:<{_WORD_WIDTH}}", _STYLES[word]), (f"{name:<{_NAME_WIDTH}}", "bold"))
    for number, line in enumerate(lines):
        console.print(Text.assemble(head if number == 0 else " " * len(head), line), soft_wrap=True)


def check_output(path: Path | None) -> None:
    """Raise a DataError, before the work is done, if a file cannot be written."""
    if path is None:
        return
    output_path(path)  # not a URL
    if path.is_dir():
        raise DataError(f"{path} is a folder; pass the name of a file, such as {path / 'table.csv'}")
    if not path.parent.is_dir():
        raise DataError(f"The folder {path.parent} of {path.name} does not exist; make it, or pass another path")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise DataError(f"{path} cannot be written; check the permissions, or pass another path")


def print_places(predictor: ImagePredictor, *, has_report: bool = True) -> None:
    """Print where the run of a predictor is, and its report or how to write it."""
    from saccade.fit.run_folder import REPORT

    typer.echo(f"run {predictor.path}")
    if (file := predictor.pipeline.saved.folder.parent / REPORT).is_file():
        typer.echo(f"report {with_urls(str(file))}")
    elif has_report:
        typer.echo(f"no report was written; write it: saccade report {predictor.path}")


def printable(text: str) -> str:
    """Return text with question marks for the bytes of file names that are not valid text."""
    return text.encode("utf-8", "replace").decode()


def _wrapped(text: str, width: int) -> list[str]:
    # Paths stay in one piece, so that they can be copied.
    return textwrap.wrap(printable(text), width, break_on_hyphens=False, break_long_words=False)
