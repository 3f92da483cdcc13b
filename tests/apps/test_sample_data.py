from __future__ import annotations

import pandas as pd
import pytest
from PIL import Image

from saccade import ImageDataset
from saccade.apps.sample_data import SIDE, write_documented_files, write_photos
from saccade.errors import DataError


def test_the_photos_are_a_data_set_without_findings(tmp_path):
    paths = write_photos(tmp_path / "photos", 5)
    dataset = ImageDataset.from_folder(tmp_path / "photos")
    assert list(dataset.classes) == ["flower", "portrait", "temple"]
    assert len(dataset) == len(paths) == 15
    with Image.open(paths[0]) as photo:
        assert photo.size == (SIDE, SIDE)
    assert not dataset.check().findings
    with pytest.raises(DataError, match="exists already"):
        write_photos(tmp_path / "photos", 5)


def test_the_tables_name_the_photos_that_are_there(tmp_path):
    write_photos(tmp_path / "photos", 2)
    written = write_documented_files(tmp_path / "photos")
    assert all(path.exists() for path in written)
    table = pd.read_csv(tmp_path / "labels.csv")
    assert all((tmp_path / "photos" / name).is_file() for name in table["image"])
    train, _, test = ImageDataset.from_folders(tmp_path / "shop")
    assert (len(train), len(test)) == (30, 6)
