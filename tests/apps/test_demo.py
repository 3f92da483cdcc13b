"""The demo, with the smaller of its networks."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from saccade.apps.demo import HYPERPARAMETERS, run_demo, write_digits
from saccade.data.dataset import ImageDataset


def test_the_digits_are_split_by_class(tmp_path):
    assert write_digits(tmp_path, num_images=200) == 200
    train, _, test = ImageDataset.from_folders(tmp_path)
    assert (len(train), len(test)) == (150, 50)
    assert train.classes == [str(digit) for digit in range(10)]
    with Image.open(train["image"].iloc[0]) as image:
        assert image.size == (32, 32)


@pytest.mark.slow
def test_the_demo_shows_trials_accuracy_and_the_pictures_path(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("saccade.apps.demo.NUM_PHOTOGRAPHS", 8)
    figures = run_demo(tmp_path, {**HYPERPARAMETERS, "model": "test_resnet", "lr": 1e-2}, num_images=900)
    assert figures["top1"] >= 0.85
    shown = capsys.readouterr().out
    assert f"test accuracy {figures['top1']:.4f}" in shown
    of_photographs = re.search(r"photographs: test accuracy ([\d.]+) on 24 parts", shown)
    assert of_photographs is not None
    assert float(of_photographs[1]) > 0.5
    assert "completed" in shown
    assert str((tmp_path / "predictions.png").resolve()) in shown
    assert str((tmp_path / "why.png").resolve()) in shown
    for name in ("photographs.png", "predictions.png", "why.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 500
