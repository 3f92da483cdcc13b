"""``saccade serve``."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from saccade.serve.settings import ServerSettings

Model = Annotated[
    Path,
    typer.Argument(metavar="RUN|FILE.onnx", help="A run folder, the folder of a saved predictor, or an exported file."),
]


def serve(model: Model, **settings: Any) -> None:
    """Serve predictions over HTTP, with a page for people at /, and a description of the endpoints at /docs.

    Ctrl-C or SIGTERM stops the server; accepted requests are finished.
    """
    from saccade.serve import serve

    serve(model, **{**settings, "cors": tuple(settings["cors"])})


def _options() -> list[inspect.Parameter]:
    """Return an option for each field of `ServerSettings`, as Typer reads them from a signature."""
    hints = get_type_hints(ServerSettings)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=list(field.default) if field.name == "cors" else field.default,
            annotation=Annotated[
                list[str] if field.name == "cors" else hints[field.name],
                typer.Option(metavar=field.metadata["metavar"], help=field.metadata["help"]),
            ],
        )
        for field in fields(ServerSettings)
    ]


_PARAMETERS = [inspect.signature(serve, eval_str=True).parameters["model"], *_options()]
serve.__signature__ = inspect.Signature(_PARAMETERS)  # type: ignore[attr-defined]  # Typer reads it
serve.__annotations__ = {parameter.name: parameter.annotation for parameter in _PARAMETERS}
