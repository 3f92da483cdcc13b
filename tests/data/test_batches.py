from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.data.batches import Batches


def batches(num: int, batch_size: int) -> Batches:
    images = [np.full((6, 8, 3), number, np.uint8) for number in range(num + 2)]
    indices = np.arange(2, num + 2)  # the first two images of the store are not of this split
    return Batches(images, indices, indices.copy(), lambda x: x[:, :4, :4], batch_size, (0.0,) * 3, (1 / 255,) * 3)


@settings(max_examples=50)
@given(num=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_each_image_comes_once_with_its_own_target_and_no_batch_is_tiny(num: int, batch_size: int) -> None:
    made = batches(num, batch_size)
    for one_pass in (made.shuffled(), made.in_order()):
        parts = list(one_pass)
        targets = torch.cat([y for _, y in parts]).tolist()
        assert sorted(targets) == list(range(2, num + 2))
        for x, y in parts:
            assert torch.equal(x[:, 0, 0, 0], y.float())
        sizes = [len(y) for _, y in parts]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        assert len(parts) == len(made)


def test_in_order_is_in_order_and_shuffled_depends_on_the_seed() -> None:
    made = batches(20, 6)
    assert torch.cat([y for _, y in made.in_order()]).tolist() == list(range(2, 22))

    def order(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return torch.cat([y for _, y in made.shuffled()]).tolist()

    assert order(0) == order(0) != order(1)


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    made = batches(4, 2)
    made.transform = lambda x: 1 / 0  # type: ignore[assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        list(made.in_order())


def test_weights_come_with_their_images() -> None:
    images, indices = [np.full((4, 4, 3), number, np.uint8) for number in range(9)], np.arange(9)
    weights = indices.astype(np.float32) / 2
    made = Batches(images, indices, indices, lambda x: x, 4, (0.0,) * 3, (1 / 255,) * 3, weights=weights)
    for one_pass in (made.shuffled(), made.in_order()):
        for x, y, w in one_pass:
            assert torch.equal(x[:, 0, 0, 0], y.float())
            assert torch.equal(w, y / 2)


def test_images_are_drawn_by_their_probabilities_as_often_as_there_are_images() -> None:
    images, indices = [np.zeros((4, 4, 3), np.uint8)] * 200, np.arange(200)
    draw = np.where(indices < 10, 0.5 / 10, 0.5 / 190)
    made = Batches(images, indices, indices, lambda x: x, 16, (0.0,) * 3, (1.0,) * 3, draw=draw)
    torch.manual_seed(0)
    drawn = torch.cat([y for _, y in made.shuffled()])
    assert len(drawn) == 200
    assert 70 < (drawn < 10).sum() < 130
    assert torch.cat([y for _, y in made.in_order()]).tolist() == indices.tolist()
