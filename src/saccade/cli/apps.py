"""``saccade demo``, ``doctor``, ``sample-data`` and ``models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saccade.errors import UnknownModelError

PROBLEM = 1  # exit code if a fit would fail


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
