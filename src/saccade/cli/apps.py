"""``saccade demo``, ``saccade doctor`` and ``saccade sample-data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PROBLEM = 1
"""Exit code if a fit would fail."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the images, the run and the pictures.")] = Path("saccade_demo"),
) -> None:
    """Classify photographs by pretrained features, and search two small networks on handwritten digits."""
    from saccade.apps.demo import run_demo

    run_demo(out)


def doctor() -> None:
    """Check this machine: device, memory, disk, weights, image formats.

    The exit code is 1 if there is a problem that would make a fit fail.
    """
    from saccade.apps.doctor import examine
    from saccade.cli.printing import print_remark
    from saccade.report.tables import output_console

    console = output_console()
    verdicts = set()
    for fact in examine():
        verdicts.add(fact.verdict)
        print_remark(console, fact.verdict, fact.name, [fact.text], fact.advice)
    if "problem" in verdicts:
        raise typer.Exit(PROBLEM)


def sample_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write; it must not exist.")] = Path(
        "photos"
    ),
    num_images: Annotated[int, typer.Option(min=2, metavar="N", help="Images of each class.")] = 20,
    all_files: Annotated[
        bool,
        typer.Option("--all", help="Write beside it what the documentation uses: shop.zip, tables of labels, new.jpg."),
    ] = False,
) -> None:
    """Write a small photo set to try Saccade on: flowers, portraits and temples.

    The images are square parts of three photographs that scikit-learn and matplotlib contain.
    """
    from saccade.apps.sample_data import SOURCES, write_documented_files, write_photos

    paths = write_photos(folder, num_images)
    typer.echo(f"{len(paths)} photos of {len(SOURCES)} classes written to {folder}")
    if all_files:
        for path in write_documented_files(folder):
            typer.echo(f"also written: {path}")
    for source in SOURCES.values():
        typer.echo(source.credit)
    typer.echo(f"To train on them: saccade fit {folder} --time-limit 60 --out run")
