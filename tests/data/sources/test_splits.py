from __future__ import annotations

import pytest

from saccade.data.sources.splits import find_splits, role_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, ("train", "")) for name in ("train", "Training_Set", "train-images", "TrainData", "trainset")),
        *(
            (name, ("val", ""))
            for name in ("val", "valid", "Validation", "validating", "dev", "val2017", "evaluation_images")
        ),
        *((name, ("test", "")) for name in ("testing", "test_256", "Hold-Out", "hold_out", "test set")),
        ("seg_train", ("train", "seg")),
        ("training shoes", ("train", "shoes")),
        *((name, None) for name in ("cat", "trainer", "protest", "attest", "invalid", "device", "train_test", "")),
    ],
)
def test_role_of_finds_the_split_in_a_name(name, expected):
    assert role_of(name) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train/cat/1.jpg", "test/cat/1.jpg"], {"train": "train", "test": "test"}),
        (["train/1.jpg", "test/1.jpg"], {"train": "train", "test": "test"}),
        (["train/cat/1.jpg"], {"train": "train"}),
        (["train/cat/1.jpg", "test/cat/1.jpg", "more/cat/1.jpg"], {"train": "train", "test": "test"}),
        (["val/cat/1.jpg", "valid/cat/1.jpg", "train/cat/1.jpg"], {"train": "train", "val": "val"}),
        (["birds_train/a/1.jpg", "birds_val/a/1.jpg"], {"train": "birds_train", "val": "birds_val"}),
        (["train/1.jpg", "bus/1.jpg", "car/1.jpg"], {}),
        (["train/1.jpg", "test/1.jpg", "car/1.jpg"], {}),
        (["positive test/1.jpg", "negative test/1.jpg"], {}),
        (["valid/1.jpg", "invalid/1.jpg"], {}),
        (["training shoes/1.jpg", "test tubes/1.jpg"], {}),
    ],
)
def test_folders_are_splits_or_classes(tmp_path, files, expected):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert find_splits(tmp_path) == expected
