from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.earlier_split import FITTED, EarlierSplit
from saccade.data.splitting import split_holdout
from saccade.errors import DataError


def digests(first: int, last: int) -> list[str]:
    return [f"{number:016x}{0:016x}" for number in range(first, last)]


def test_it_is_written_and_read(tmp_path: Path) -> None:
    assert EarlierSplit.load(tmp_path / "split") is None
    EarlierSplit.of(digests(0, 3), digests(2, 5)).save(tmp_path / "split")
    read = EarlierSplit.load(tmp_path / "split")
    assert read is not None
    assert read.sides(digests(0, 6)).tolist() == [1, 1, 1, 2, 2, 0]
    assert read.fitted_also_to(read.held_out).sides(digests(3, 6)).tolist() == [1, 1, 0]
    (tmp_path / "split").write_bytes(b"no split")
    with pytest.raises(DataError, match="is damaged"):
        EarlierSplit.load(tmp_path / "split")


@given(
    num_fitted=st.integers(0, 60),
    num_held_out=st.integers(0, 20),
    num_new=st.integers(0, 60),
    frac=st.floats(0.05, 0.5),
)
def test_no_image_that_was_fitted_is_held_out_while_there_are_others(
    num_fitted: int, num_held_out: int, num_new: int, frac: float
) -> None:
    total = num_fitted + num_held_out + num_new
    earlier = EarlierSplit.of(digests(0, num_fitted), digests(num_fitted, num_fitted + num_held_out))

    def split(rows: np.ndarray, part: float) -> tuple[np.ndarray, np.ndarray]:
        return split_holdout(rows % 2, part, 0)

    keys = digests(0, total)
    try:
        train, val = earlier.hold_out(keys, frac, split)
    except DataError:
        assert total < 4  # as without an earlier split
        return
    assert sorted([*train, *val]) == list(range(total))
    assert len(train) > 0 < len(val)
    if num_held_out + num_new and num_fitted:
        assert (earlier.sides([keys[row] for row in val]) != FITTED).all()
        old = set(range(num_fitted, num_fitted + num_held_out))
        assert old <= set(val.tolist())  # the earlier split is kept
        assert len(val) >= min(num_held_out + num_new, int(frac * total)) - 2  # each class keeps a new image
