from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade.data.earlier_split import FITTED, HELD_OUT, NEW, EarlierSplit, Keys, image_keys
from saccade.data.splitting import split_holdout
from saccade.errors import DataError


def keys_of(first: int, last: int) -> Keys:
    numbers = range(first, last)
    return image_keys([f"{number}.png" for number in numbers], [f"{number + 1:016x}{0:016x}" for number in numbers])


def test_an_image_is_recognised_by_its_pixels_or_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digests = [f"{number:032x}" for number in range(2**100, 2**100 + 2**90 * 6, 2**90)]
    picture = Image.new("L", (2, 2))
    earlier = EarlierSplit.of(
        image_keys(["a.png", b"pixels", picture], digests[:3]), image_keys(["d.png"], digests[3:4])
    )
    moved = image_keys(
        ["other/a.png", tmp_path / "a.png", b"pixels", picture, "d.png", "new.png"],
        [*digests[:1], digests[4], digests[5], digests[2], digests[5], ""],
    )
    assert earlier.sides(moved).tolist() == [FITTED, FITTED, FITTED, FITTED, HELD_OUT, NEW]


def test_an_earlier_split_is_written_and_read(tmp_path: Path) -> None:
    assert EarlierSplit.load(tmp_path / "split") is None
    EarlierSplit.of(keys_of(0, 3), keys_of(2, 5)).save(tmp_path / "split")
    read = EarlierSplit.load(tmp_path / "split")
    assert read is not None
    assert read.sides(keys_of(0, 6)).tolist() == [1, 1, 1, 2, 2, 0]
    assert read.fitted_also_to(read.held_out).sides(keys_of(3, 6)).tolist() == [1, 1, 0]
    (tmp_path / "split").write_bytes(b"no split")
    with pytest.raises(DataError, match="is damaged"):
        EarlierSplit.load(tmp_path / "split")


@given(
    num_fitted=st.integers(0, 60),
    num_held_out=st.integers(0, 20),
    num_new=st.integers(0, 60),
    frac=st.floats(0.05, 0.5),
)
def test_fitted_images_are_not_held_out_if_there_are_others(
    num_fitted: int, num_held_out: int, num_new: int, frac: float
) -> None:
    total = num_fitted + num_held_out + num_new
    earlier = EarlierSplit.of(keys_of(0, num_fitted), keys_of(num_fitted, num_fitted + num_held_out))

    def split(rows: np.ndarray, part: float) -> tuple[np.ndarray, np.ndarray]:
        return split_holdout(rows % 2, part, 0)

    keys = keys_of(0, total)
    try:
        train, val = earlier.hold_out(keys, frac, split)
    except DataError:
        assert total < 4  # as without an earlier split
        return
    assert sorted([*train, *val]) == list(range(total))
    assert len(train) > 0 < len(val)
    if num_held_out + num_new and num_fitted:
        assert (earlier.sides(keys[val]) != FITTED).all()
        old = set(range(num_fitted, num_fitted + num_held_out))
        assert old <= set(val.tolist())  # the earlier split is kept
        assert len(val) >= min(num_held_out + num_new, int(frac * total)) - 2  # each class keeps a new image
