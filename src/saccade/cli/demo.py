"""``saccade demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the images, the run and the pictures.")] = Path("saccade_demo"),
) -> None:
    """Search two small networks on handwritten digits."""
    from saccade.apps.demo import run_demo

    run_demo(out)
