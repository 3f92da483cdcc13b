"""``saccade demo``, ``doctor``, ``sample-data``, ``models`` and ``schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.errors import UnknownModelError, UnknownNameError


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the images, the run and the pictures.")] = Path("saccade_demo"),
) -> Any:
    """Classify photographs by pretrained features, and search two small networks on handwritten digits."""
    from saccade.apps.demo import PHOTOGRAPHS, PREDICTIONS, WHY, run_demo
    from saccade.cli.results import DemoResult

    scores = run_demo(out)
    figures = [out / name for name in (PHOTOGRAPHS, PREDICTIONS, WHY)]
    return DemoResult.make(scores=scores, runs=[out / "photographs_run", out / "run"], figures=figures)


def doctor() -> Any:
    """Check this machine: device, memory, disk, weights, image formats.

    The exit code is 1 if there is a problem that would make a fit fail.
    """
    from saccade.apps.doctor import examine
    from saccade.cli.results import DoctorResult
    from saccade.cli.words import print_remark
    from saccade.report.tables import output_console

    console = output_console()
    facts = []
    for fact in examine():
        facts.append(fact)
        print_remark(console, fact.verdict, fact.name, [fact.text], fact.advice)
    return DoctorResult.make(facts=facts)


def sample_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write; it must not exist.")] = Path(
        "photos"
    ),
    num_images: Annotated[int, typer.Option(min=2, metavar="N", help="Images of each class.")] = 20,
    all_files: Annotated[
        bool,
        typer.Option("--all", help="Write beside it what the documentation uses: shop.zip, tables of labels, new.jpg."),
    ] = False,
) -> Any:
    """Write a small photo set to try Saccade on: flowers, portraits and temples.

    The images are square parts of three photographs that scikit-learn and matplotlib contain.
    """
    from saccade.apps.sample_data import SOURCES, write_documented_files, write_photos
    from saccade.cli.results import SampleDataResult

    paths = write_photos(folder, num_images)
    typer.echo(f"{len(paths)} photos of {len(SOURCES)} classes written to {folder}")
    others = write_documented_files(folder) if all_files else []
    for path in others:
        typer.echo(f"also written: {path}")
    credits = [source.credit for source in SOURCES.values()]  # noqa: A001
    typer.echo("\n".join(credits))
    typer.echo(f"To train on them: saccade fit {folder} --time-limit 60 --out run")
    return SampleDataResult.make(
        folder=folder, classes=list(SOURCES), num_images=len(paths), also_written=others, credits=credits
    )


def models(
    pattern: Annotated[str | None, typer.Argument(help="Part of a name, or a pattern such as 'resnet*'.")] = None,
    license: Annotated[  # noqa: A002
        str | None, typer.Option(help="Only weights with these licences, such as mit,apache-2.0; 'free' is any use.")
    ] = None,
    detailed: Annotated[
        bool, typer.Option("--detailed", help="Show where the weights are, their licence, size and accuracy.")
    ] = False,
) -> Any:
    """List the networks that can be searched."""
    from saccade.cli.results import ModelsResult
    from saccade.models.catalogue import list_models

    names = list_models(pattern, license=None if license is None else license.split(","))
    if not names:
        asked = "" if license is None else f" with the license {license}"
        raise UnknownModelError(f"No network name matches {pattern!r}{asked}; `saccade models` lists all names.")
    if detailed:
        from saccade.models.ranking import models_table

        table = models_table(names)
        typer.echo(table.to_string(index=False))
        return ModelsResult.make(models=table.to_dict("records"))
    typer.echo("\n".join(names))
    return ModelsResult.make(models=[{"model": name} for name in names])


def schema(
    command: Annotated[str | None, typer.Argument(help="A command.  [default: all of them]")] = None,
) -> Any:
    """Print the JSON Schema of the lines that a command writes with --json."""
    from saccade.cli.results import RESULTS, SchemaResult, schema_of

    if command is not None and command not in RESULTS:
        raise UnknownNameError.of("command", command, RESULTS)
    schemas = {name: schema_of(name) for name in RESULTS if command in (None, name)}
    typer.echo(json.dumps(schemas if command is None else schemas[command], indent=2))
    return SchemaResult.make(schemas=schemas)
