"""``saccade choose``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def choose(
    run: Annotated[Path, typer.Argument(help="The run folder of a search with several --objectives.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the predictor.")],
    max_latency_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Maximum latency in ms per image, as measured by the search."),
    ] = None,
    max_params: Annotated[float | None, typer.Option(metavar="N", help="Maximum number of parameters.")] = None,
    max_bytes: Annotated[float | None, typer.Option(metavar="N", help="Maximum size of the weights in bytes.")] = None,
    min_score: Annotated[
        float | None,
        typer.Option(metavar="SCORE", help="Minimum score: save the cheapest predictor, not the best."),
    ] = None,
) -> None:
    """Save the best predictor of a search within the given limits."""
    from saccade.predictor import ImagePredictor

    chosen = ImagePredictor.load(run).choose(
        max_latency_ms=max_latency_ms, max_params=max_params, max_bytes=max_bytes, min_score=min_score
    )
    chosen.save(out)
    typer.echo(f"result: {chosen.fit_summary()['result']}")
    typer.echo(f"predictor {out}")
