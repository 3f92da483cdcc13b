"""The example package of a third party, as if it were installed: its modules and its entry point are on sys.path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture
def run_installed(tmp_path):
    """Return a function that runs Python with the package on its path."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = tmp_path / "site" / "saccade_mutation-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "\n".join(f"{name} = {target}" for name, target in p.items()) for group, p in groups]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    paths = [str(PLUGIN / "src"), str(tmp_path / "site"), *filter(None, sys.path)]

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def test_its_own_tests_pass(run_installed):
    config = ["-c", str(PLUGIN / "pyproject.toml"), "-p", "no:cacheprovider", "-q"]
    done = run_installed("-m", "pytest", *config, str(PLUGIN / "tests"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_fit_uses_the_searcher_by_its_name(run_installed, make_colours, tiny, tmp_path):
    make_colours(6).to_csv(tmp_path / "images.csv", index=False)
    script = f"""
import pandas as pd
from saccade import ImagePredictor, Real
from saccade_mutation import MutationSearcher

asked = []
suggest = MutationSearcher.suggest
MutationSearcher.suggest = lambda self: asked.append(self.rate) or suggest(self)
predictor = ImagePredictor(path="run", verbosity=0).fit(
    pd.read_csv("images.csv"),
    hyperparameters={{**{tiny!r}, "epochs": 1, "lr": Real(0.01, 0.1)}},
    hyperparameter_tune_kwargs={{"num_trials": 3, "searcher": "mutation", "searcher_options": {{"rate": 0.5}}}},
    executor="inline",
)
print(len(predictor.leaderboard()), asked)
"""
    done = run_installed("-c", script)
    assert done.stdout.strip() == "3 [0.5, 0.5, 0.5]", done.stderr


def test_a_misspelt_name_gets_the_entry_point_as_suggestion(run_installed):
    script = "from saccade.searcher import make_searcher; make_searcher('mutatoin', {'x': 1})"
    done = run_installed("-c", script)
    assert "Unknown searcher 'mutatoin'. Did you mean 'mutation'?" in done.stderr
