"""The commands, and how their errors are shown.

Each command is a function, which imports pandas and torch when it runs, so that help and errors in
arguments appear at once.
"""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from saccade._version import __version__
from saccade.cli.apps import demo, doctor, models, sample_data, schema
from saccade.cli.check import check
from saccade.cli.export import card, export, push
from saccade.cli.fit import fit, fit_command
from saccade.cli.output import Write, is_asked, json_lines, with_json
from saccade.cli.predict import explain, predict
from saccade.cli.report import compare, report
from saccade.cli.runs import choose, evaluate, leaderboard, resume, watch
from saccade.cli.serve import cluster, dashboard, mcp, serve
from saccade.cli.words import check_flags, in_cli_words
from saccade.deadline import counting_from
from saccade.errors import SaccadeError, explained_file_errors
from saccade.events import warnings_in

WRONG = 2  # exit code of a command that failed

_UsageError: Any = typer.BadParameter.__bases__  # of arguments that cannot be parsed


class _Commands(TyperGroup):
    """Commands whose errors are a paragraph on standard error instead of a traceback."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        command = fit_command() if name == "fit" else command
        assert name is not None  # Typer raises an error for an unknown command
        assert command is not None
        flags = [flag for option in command.params for flag in (*option.opts, *option.secondary_opts)]
        check_flags(name, [*flags, *ctx.help_option_names], rest)
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        warnings.formatwarning = lambda message, *_, **__: f"warning: {in_cli_words(str(message))}\n"
        with json_lines() if is_asked(ctx.args) else contextlib.nullcontext() as write:
            with _shown_errors(write), warnings_in(in_cli_words), explained_file_errors():
                result = super().invoke(ctx)
                result = result() if callable(result) and write else result
            if write:
                write(result.model_dump())
        if exit_code := getattr(result, "exit_code", 0):
            raise typer.Exit(exit_code)


@contextlib.contextmanager
def _shown_errors(write: Write | None) -> Iterator[None]:
    """Context whose errors are a paragraph on standard error; `write` gets them as well."""
    try:
        yield
    except (BrokenPipeError, typer.Exit):  # the reader of the output has closed it; help was shown
        raise
    except BaseException as error:
        is_known = isinstance(error, (SaccadeError, OSError))
        text = str(error).partition("\n\n")[0]  # without a trial's traceback, which is in the run's events as well
        text = in_cli_words(text) if isinstance(error, SaccadeError) else text
        if write:
            write(_failure(error, text))
        if not is_known:
            raise
        typer.echo(f"saccade: {text}", err=True)
        raise typer.Exit(WRONG) from None


def _failure(error: BaseException, text: str) -> dict[str, Any]:
    """Return an error as a line of JSON."""
    from saccade.cli.results import Failure

    code, advice = type(error).__name__, None
    if isinstance(error, _UsageError):
        code, text, context = "UsageError", error.format_message(), error.ctx
        advice = f"saccade {context.info_name} --help" if context and context.parent else "saccade --help"
    elif isinstance(error, KeyboardInterrupt):
        text = "interrupted"
    return Failure.make(code=code, message=text, advice=advice).model_dump()


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _fit_stub() -> None:
    """Stand for ``saccade fit`` in the list of commands: its options are made only when it runs."""


_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "sample-data": sample_data,
    "check": check,
    "fit": _fit_stub,
    "resume": resume,
    "watch": watch,
    "leaderboard": leaderboard,
    "report": report,
    "dashboard": dashboard,
    "choose": choose,
    "evaluate": evaluate,
    "compare": compare,
    "predict": predict,
    "explain": explain,
    "export": export,
    "serve": serve,
    "mcp": mcp,
    "card": card,
    "push": push,
    "models": models,
    "doctor": doctor,
    "cluster": cluster,
    "schema": schema,
}
PROTOCOLS = {"mcp"}  # commands whose standard output is a protocol, so that they have no --json

for name, command in _COMMANDS.items():
    made = command if name in PROTOCOLS else with_json(command)
    app.command(name, help=fit.__doc__ if command is _fit_stub else None)(made)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"saccade {__version__}")
        raise typer.Exit


@app.callback()
def _saccade(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """AutoML for images: the best classifier that a time limit can buy."""


def main() -> None:
    """Run the command line; time limits count from the start of the process."""
    from saccade.cli import STARTED_S

    gc.set_threshold(100_000)  # to look for garbage among modules, which stay, takes a fifth of their import time
    with counting_from(STARTED_S):
        app(prog_name="saccade")
