from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import saccade

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torchvision", "pandas", "timm", "optuna", "sklearn", "matplotlib", "PIL"}


def modules_after(code):
    script = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_public_names_are_exactly_these():
    assert saccade.__all__ == [
        "Bool",
        "Categorical",
        "Dict",
        "ImageClassifier",
        "ImageDataset",
        "ImagePredictor",
        "ImageRegressor",
        "Int",
        "List",
        "Real",
        "SaccadeError",
        "TuneResult",
        "__version__",
        "compare",
        "errors",
        "scheduler",
        "searcher",
        "space",
        "tune",
    ]


def test_every_public_name_is_listed_and_importable():
    assert set(saccade.__all__) <= set(dir(saccade))
    assert all(getattr(saccade, name) is not None for name in saccade.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", saccade.__version__)


def test_there_are_no_other_names():
    with pytest.raises(AttributeError, match="module 'saccade' has no attribute 'ImagePredicter'"):
        saccade.ImagePredicter  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import saccade",
        "import saccade as ag; ag.Dict(x=ag.Real(0, 1), n=ag.Categorical(1, 2)); ag.errors; dir(ag)",
        "import saccade.study.study, saccade.fit.options, saccade.executor, saccade.scheduler, saccade.searcher",
        "import saccade.executor.worker",
        "import saccade; saccade.tune",
    ],
)
def test_searching_needs_none_of_the_heavy_libraries(code):
    modules = modules_after(code)
    assert "saccade" in modules
    assert not modules & HEAVY


def test_a_wheel_contains_all_files_that_are_not_python():
    package = ROOT / "src" / "saccade"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["saccade"]
    contained = {path for pattern in patterns for path in package.glob(pattern)}
    others = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert others == contained
    # setuptools finds packages by their __init__.py.
    assert all((path.parent / "__init__.py").is_file() for path in package.rglob("*.py"))
