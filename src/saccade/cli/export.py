"""``saccade export``, ``card`` and ``push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.cli.words import Run, printable


def export(
    run: Run,
    to: Annotated[str, typer.Option(metavar="FORMAT", help="The format of the file.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR", help="The file, or its folder.  [default: the folder export in the run folder]"
        ),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(metavar="NUM", help="Coverage of the sets of classes; 0.9 if not given and available."),
    ] = None,
    web: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder dist of the npm package onnxruntime-web, for the page beside an ONNX file."
        ),
    ] = None,
    member: Annotated[
        int | None,
        typer.Option(metavar="NUM", help="Network of an ensemble, from 0, for formats of one network such as timm."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    precision: Annotated[
        str | None,
        typer.Option(metavar="fp32|fp16|int8", help="In which the networks of an ONNX file compute.  [default: fp32]"),
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(metavar="NUM", help="How far accuracy may fall with fp16 or int8.  [default: 0.01]"),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Size of the images in pixels, such as 480x640, for openvino, litert and coreml."
        ),
    ] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not compare the file with the predictor.")] = False,
) -> Any:
    """Write a predictor as a file that runs without Saccade.

    The file is compared with the predictor on images of several sizes before it is moved into place.
    """
    from saccade.cli.results import FileResult
    from saccade.predictor import ImagePredictor

    predictor = ImagePredictor.load(run, verbosity=1)
    given = {
        "member": member,
        "web": web,
        "precision": precision,
        "max_accuracy_drop": max_accuracy_drop,
        "image_size": image_size,
    }
    options = {name: value for name, value in given.items() if value is not None}
    file = predictor.export(to, out, coverage=coverage, overwrite=overwrite, check=not no_check, **options)
    typer.echo(f"written to {printable(file)}")
    return FileResult.of(file)


DataSet = Annotated[str | None, typer.Option(metavar="NAME", help="The data set's name on the Hugging Face hub.")]
License = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The predictor's licence.  [default: that of the pretrained weights, if known]"),
]


def card(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR|FILE.md", help="Write the card, and calibration.png beside it.  [default: print it]"),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="The title, such as user/shoes.")] = None,
    dataset: DataSet = None,
    license: License = None,  # noqa: A002
) -> Any:
    """Write a model card: what was trained, metrics with intervals, calibration, licences and limits."""
    from saccade.cli.results import CardResult
    from saccade.predictor import ImagePredictor  # slow to import, as torch is

    found = ImagePredictor.load(run, verbosity=1).model_card(name, dataset=dataset, license=license)
    file = None if out is None else found.save(out)
    typer.echo(found.text if file is None else f"written to {file}\n", nl=False)
    return CardResult.make(text=found.text, file=file)


def push(
    run: Run,
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="The repository, which is made if necessary.")],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Visibility of a new repository.  [default: that of the account]"),
    ] = None,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="The branch.  [default: main]")] = None,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="The message of the commit.")] = None,
    dataset: DataSet = None,
    license: License = None,  # noqa: A002
) -> Any:
    """Write a predictor and its model card to the Hugging Face hub.

    The token is read from HF_TOKEN, or from hf auth login.
    """
    from saccade.cli.results import PushResult
    from saccade.predictor import ImagePredictor  # slow to import, as torch is

    predictor = ImagePredictor.load(run, verbosity=1)
    options = {"private": private, "revision": revision, "commit_message": message}
    address = predictor.push_to_hub(repo, **options, dataset=dataset, license=license)  # type: ignore[arg-type]
    typer.echo(f"pushed to {address}")
    typer.echo(f"load it by ImagePredictor.from_hub({repo!r})")
    return PushResult.make(repo=repo, url=address)
