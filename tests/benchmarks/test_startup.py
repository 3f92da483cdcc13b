from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import startup


def test_every_start_is_a_ratio(run_benchmark: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(predictor: str, photo: str) -> dict[str, list[str]]:
        assert Path(predictor, "predictor.json").is_file()
        assert Path(photo).is_file()
        return {startup.REFERENCE: ["-c", "import time; time.sleep(0.5)"], "import saccade": ["-c", "pass"]}

    monkeypatch.setattr(startup, "commands", quick)
    figures = run_benchmark(startup.main, "--network", "test_resnet", "--img-size", 32, "--rounds", 1)
    assert figures["ratios"][startup.REFERENCE]["wall_s"] == 1.0
    assert figures["ratios"]["import saccade"]["wall_s"] < 1.0


def test_nothing_heavy_is_imported_for_a_name_or_for_help() -> None:
    assert startup.heavy_imports("import saccade, saccade.cli.app") == []
    assert "numpy" in startup.heavy_imports("import numpy")
