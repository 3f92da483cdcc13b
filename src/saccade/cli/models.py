"""``saccade models``."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.errors import UnknownModelError


def models(
    pattern: Annotated[str | None, typer.Argument(help="Part of a name, or a pattern such as 'resnet*'.")] = None,
) -> None:
    """List the networks that can be searched."""
    from saccade.models.catalogue import list_models

    names = list_models(pattern)
    if not names:
        raise UnknownModelError(f"No network name matches {pattern!r}; `saccade models` lists all names.")
    for name in names:
        typer.echo(name)
