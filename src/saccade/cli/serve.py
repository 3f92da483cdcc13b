"""Servers: ``saccade serve``, ``mcp`` and ``dashboard``."""

from __future__ import annotations

import inspect
import signal
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from saccade.cli.output import emit
from saccade.errors import DataError
from saccade.serve.settings import ServerSettings
from saccade.study.url_folder import fetched

Model = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FILE.onnx", help="A run folder, the folder of a saved predictor, or an exported file; or its URL."
    ),
]


def serve(model: Model, **settings: Any) -> Any:
    """Serve predictions over HTTP, with a page for people at /, and a description of the endpoints at /docs.

    Ctrl-C or SIGTERM stops the server; accepted requests are finished.
    """
    from saccade.cli.results import ServeResult, Serving
    from saccade.serve import serve

    url = ""

    def on_start(name: str, at: str) -> None:
        nonlocal url
        url = at
        emit(Serving.make(name=name, url=url).model_dump())

    serve(model, on_start=on_start, **{**settings, "cors": tuple(settings["cors"])})
    return ServeResult.make(url=url)


def mcp(
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder that tools may read and write; nothing outside of it.")
    ] = Path(),
    http: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="Serve streamable HTTP on 127.0.0.1 instead of standard input and output."),
    ] = None,
) -> None:
    """Offer fit, predict, explain and others as tools of the Model Context Protocol, for agents."""
    try:
        from saccade.cli.mcp_server import make_server
    except ModuleNotFoundError as error:
        if error.name not in ("mcp", "mcp_types"):
            raise
        raise DataError('The server needs mcp. Install it: pip install "saccade[mcp]"') from None
    server = make_server(root)
    if http is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the thread that reads standard input would hold up Ctrl-C
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=http)


def dashboard(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Run folders of fit or tune, or folders of saved predictors, or their URLs."
        ),
    ],
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="NUM", min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8080,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
) -> Any:
    """Show studies in optuna-dashboard, and the reports of the runs beside it.

    It reads copies, also of runs that still run, and changes nothing in the folders. Ctrl-C stops it.
    """
    from saccade.apps.dashboard import run_dashboard
    from saccade.cli.results import ServeResult, Serving

    def on_start(url: str) -> None:
        emit(Serving.make(name="dashboard", url=url).model_dump())

    folders = [fetched(run) for run in runs]
    return ServeResult.make(url=run_dashboard(folders, host, port, opens_browser=not no_browser, on_start=on_start))


def _options() -> list[inspect.Parameter]:
    """Return an option for each field of `ServerSettings`, as Typer reads them from a signature."""
    options = []
    for name, hint in get_type_hints(ServerSettings, include_extras=True).items():
        kind: Any = hint.__origin__
        metavar, text = hint.__metadata__
        default = getattr(ServerSettings, name)
        if isinstance(default, tuple):  # Typer has lists for options that can be repeated
            kind, default = list[str], list(default)
        annotation = Annotated[kind, typer.Option(metavar=metavar, help=text)]
        options.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
    return options


_PARAMETERS = [inspect.signature(serve, eval_str=True).parameters["model"], *_options()]
serve.__signature__ = inspect.Signature(_PARAMETERS)  # type: ignore[attr-defined]  # Typer reads it
serve.__annotations__ = {parameter.name: parameter.annotation for parameter in _PARAMETERS}
