"""Fits on a machine without a hub and without a folder of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from saccade import ImagePredictor
from saccade.errors import WeightsNotFoundError


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SACCADE_WEIGHTS", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody answers


def test_a_fit_starts_from_installed_weights_with_one_line(
    make_colours: Callable[..., pd.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = ImagePredictor(path=tmp_path / "run")
    fast = {"img_size": 32, "epochs": 1, "batch_size": 8, "transfer_lr_mult": 0.0}
    predictor.fit(make_colours(10), hyperparameters=fast, hyperparameter_tune_kwargs={"num_trials": 1})
    best = predictor.fit_summary()["best_config"]
    assert best["model"].startswith("tf_efficientnet_lite")
    assert best.get("pretrained", True)
    shown = capsys.readouterr()
    (line,) = [line for line in (shown.out + shown.err).splitlines() if "pretrained weights" in line]
    assert "the Hugging Face hub cannot be reached" in line
    assert "this fit uses tf_efficientnet_lite2, tf_efficientnet_lite1, tf_efficientnet_lite0 instead" in line


def test_a_named_network_without_weights_is_an_error_that_lists_available_ones(
    make_colours: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"(?s)'resnet18'.*cannot be reached.*weights of tf_eff"):
        ImagePredictor(path=tmp_path / "run").fit(make_colours(), hyperparameters={"model": "resnet18"})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("pretrained", [True, False])
def test_weights_that_do_not_exist_are_an_error(
    make_colours: Callable[..., pd.DataFrame], tmp_path: Path, pretrained: bool
) -> None:
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0)
    with pytest.raises(WeightsNotFoundError, match="gone' does not exist"):
        predictor.fit(make_colours(4), weights=tmp_path / "gone", hyperparameters={"pretrained": pretrained})
