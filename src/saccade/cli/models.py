"""``saccade models``."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.errors import UnknownModelError


def models(
    pattern: Annotated[str | None, typer.Argument(help="Part of a name, or a pattern such as 'resnet*'.")] = None,
    license: Annotated[  # noqa: A002
        str | None, typer.Option(help="Only weights with these licences, such as mit,apache-2.0; 'free' is any use.")
    ] = None,
    detailed: Annotated[
        bool, typer.Option("--detailed", help="Show where the weights are, their licence, size and accuracy.")
    ] = False,
) -> None:
    """List the networks that can be searched."""
    from saccade.models.catalogue import list_models

    names = list_models(pattern, license=None if license is None else license.split(","))
    if not names:
        asked = "" if license is None else f" with the license {license}"
        raise UnknownModelError(f"No network name matches {pattern!r}{asked}; `saccade models` lists all names.")
    if detailed:
        from saccade.models.listing import models_table

        typer.echo(models_table(names).to_string(index=False))
        return
    for name in names:
        typer.echo(name)
