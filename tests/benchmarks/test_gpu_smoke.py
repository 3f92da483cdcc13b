from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_smoke


def test_all_checks_pass_on_a_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_smoke, "RECIPE", {**gpu_smoke.RECIPE, "img_size": 32, "amp": False})
    assert gpu_smoke.run(torch.device("cpu"), tmp_path), capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="has a GPU")
def test_without_a_gpu_the_script_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_smoke"])
    with pytest.raises(SystemExit) as caught:
        gpu_smoke.main()
    assert caught.value.code == 2
    assert "has no GPU" in capsys.readouterr().out
