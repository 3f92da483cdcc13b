"""An option declared as one field appears on the command line, in TOML, in run.json, in the docstring and in checks."""

from __future__ import annotations

import inspect
import json
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from saccade.cli.fit import option_parameters
from saccade.errors import HyperparameterError, UnknownNameError
from saccade.fit.config_file import FitConfig
from saccade.fit.options import Count, FitOptions, Option, document_options


class MoreOptions(FitConfig):
    """The options of a fit, and one more."""

    num_restarts: Annotated[
        Count | None, Option("Maximum number of restarts.", "None: no limit.", metavar="N", flags=("restarts",))
    ] = None


def test_command_line():
    (parameter,) = (one for one in option_parameters(MoreOptions) if one.name == "num_restarts")
    given = []

    def command(**options: object) -> None:
        given.append(options)

    command.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    command.__annotations__ = {"num_restarts": parameter.annotation}
    app = typer.Typer()
    app.command()(command)
    assert "--restarts" in CliRunner().invoke(app, ["--help"]).output
    assert CliRunner().invoke(app, ["--restarts", "3"]).exit_code == 0
    assert MoreOptions.of(given[0], label=str).num_restarts == 3


def test_toml(tmp_path):
    MoreOptions(num_restarts=4, data="/pets").write(tmp_path / "fit.toml")
    assert "restarts = 4" in (tmp_path / "fit.toml").read_text()
    assert MoreOptions.read(tmp_path).num_restarts == 4
    (tmp_path / "fit.toml").write_text("restart = 4")
    with pytest.raises(UnknownNameError, match="Did you mean 'restarts'"):
        MoreOptions.read(tmp_path)


def test_record():
    record = json.loads(json.dumps(MoreOptions(num_restarts=4).to_json()))
    assert record["num_restarts"] == 4
    assert MoreOptions.of(record).num_restarts == 4


def test_docstring():
    def fit() -> None:
        """Fit.

        Parameters
        ----------
        **kwargs
            Options.
        """

    document_options(fit, MoreOptions)
    assert "num_restarts : int or None, default None\n            Maximum number of restarts." in (fit.__doc__ or "")
    assert "**kwargs" not in (fit.__doc__ or "")


@pytest.mark.parametrize("value", [0, "many", 1.5, True])
def test_wrong_values(value):
    with pytest.raises(HyperparameterError, match=r"num_restarts was given .*; expected a whole number, 1"):
        MoreOptions.of({"num_restarts": value})
    with pytest.raises(HyperparameterError, match="--restarts was given"):
        MoreOptions.of({"num_restarts": value}, label=lambda _: "--restarts")


def test_the_options_of_fit_are_in_its_docstring():
    from saccade import ImagePredictor

    for name in FitOptions.model_fields:
        assert f"\n        {name} : " in (ImagePredictor.fit.__doc__ or ""), name
