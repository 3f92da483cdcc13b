"""``saccade card`` and ``push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.cli.words import Run

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
