"""The example package of a third party, as if it were installed: its modules and its entry point are on sys.path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from saccade import ImagePredictor, Real
from saccade.errors import UnknownNameError
from saccade.searcher import make_searcher

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Return the folders that an installation of the package would add to sys.path, where they are added."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = tmp_path / "site" / "saccade_mutation-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "\n".join(f"{name} = {target}" for name, target in p.items()) for group, p in groups]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    folders = [str(PLUGIN / "src"), str(tmp_path / "site")]
    for folder in folders:
        monkeypatch.syspath_prepend(folder)
    yield folders
    sys.modules.pop("saccade_mutation", None)


def test_its_own_tests_pass(site, tmp_path):
    command = [sys.executable, "-m", "pytest", "-c", str(PLUGIN / "pyproject.toml"), "-p", "no:cacheprovider", "-q"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*site, *filter(None, sys.path)])}
    done = subprocess.run(
        [*command, str(PLUGIN / "tests")], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_fit_uses_the_searcher_by_its_name(site, make_colours, tiny, tmp_path, monkeypatch):
    from saccade_mutation import MutationSearcher

    rates, suggest = [], MutationSearcher.suggest
    monkeypatch.setattr(MutationSearcher, "suggest", lambda self: rates.append(self.rate) or suggest(self))
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0).fit(
        make_colours(6),
        hyperparameters={**tiny, "epochs": 1, "lr": Real(0.01, 0.1)},
        hyperparameter_tune_kwargs={"num_trials": 3, "searcher": "mutation", "searcher_options": {"rate": 0.5}},
        executor="inline",
    )
    assert len(predictor.leaderboard()) == 3
    assert rates == [0.5] * 3


def test_a_misspelt_name_gets_the_entry_point_as_suggestion(site):
    with pytest.raises(UnknownNameError, match=r"Unknown searcher 'mutatoin'. Did you mean 'mutation'?"):
        make_searcher("mutatoin", {"x": 1})
