"""Benchmarks run on a few tiny photos, and in this process: new interpreters would take most of the time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.photos import make_photos

from benchmarks import measuring


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a benchmark does in processes of its own run in this one."""
    monkeypatch.setattr(measuring, "in_own_process", measuring.in_this_process)


@pytest.fixture(scope="session")
def tiny_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos with train and test."""
    folder = tmp_path_factory.mktemp("photos")
    make_photos(folder / "train", 40, num_classes=2, size=(48, 36))
    make_photos(folder / "test", 10, num_classes=2, size=(48, 36), seed=1)
    return folder


@pytest.fixture
def run_benchmark(here: None, tmp_path: Path) -> Callable[..., Any]:
    """Run a benchmark's `main`, and return the figures that it wrote."""
    import json

    def run(main: Callable[[list[str]], None], *arguments: object) -> Any:
        path = tmp_path / "figures.json"
        main([*map(str, arguments), "--json", str(path)])
        return json.loads(path.read_text())["figures"]

    return run
