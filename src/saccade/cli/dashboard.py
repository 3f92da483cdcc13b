"""``saccade dashboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.cli.output import emit


def dashboard(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders of fit or tune, or folders of saved predictors.")
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

    return ServeResult.make(url=run_dashboard(runs, host, port, opens_browser=not no_browser, on_start=on_start))
