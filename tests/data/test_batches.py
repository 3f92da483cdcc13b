from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.data.augmentation import Augmentation, TrainingTransform
from saccade.data.batches import AHEAD, Batches


def batches(num: int, batch_size: int) -> Batches:
    images = [np.full((6, 8, 3), number, np.uint8) for number in range(num + 2)]
    indices = np.arange(2, num + 2)  # the first two images of the store are not of this split
    return Batches(images, indices, indices.copy(), lambda x: x[:, :4, :4], batch_size, (0.0,) * 3, (1 / 255,) * 3)


@settings(max_examples=50)
@given(num=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_a_pass_has_each_image_once_with_its_target_in_even_batches(num: int, batch_size: int) -> None:
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


def test_an_error_in_a_thread_reaches_the_caller_and_no_thread_stays() -> None:
    made = batches(4, 2)
    made.transform = lambda x: 1 / 0  # type: ignore[assignment,return-value]
    for one_pass in (made.in_order(), made.shuffled()):
        with pytest.raises(ZeroDivisionError):
            list(one_pass)
    assert not [thread for thread in threading.enumerate() if "saccade-batches" in thread.name]


class Counted:
    """Images that count how often they are asked for."""

    def __init__(self) -> None:
        self.num_loaded = 0

    def __getitem__(self, index: int, /) -> np.ndarray:
        self.num_loaded += 1
        return np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def varied(num: int, num_threads: int, **augmentation: object) -> Batches:
    transform = TrainingTransform(Augmentation(**augmentation), 16, "bilinear")  # type: ignore[arg-type]
    numbers = np.arange(num)
    return Batches(Counted(), numbers, numbers, transform, 5, (0.5,) * 3, (0.5,) * 3, num_threads=num_threads)


@pytest.mark.parametrize("policy", [None, "randaugment"])
def test_a_random_pass_depends_on_the_seed_only(policy: str | None) -> None:
    def one_pass(num_threads: int, *, draws: bool) -> list[torch.Tensor]:
        torch.manual_seed(3)
        images = []
        for x, _ in varied(23, num_threads, auto_augment=policy, color_jitter=0.2).shuffled():
            images += list(x)
            if draws:
                torch.rand(1)
        return images

    first = one_pass(1, draws=False)
    for num_threads, draws in ((1, True), (2, False), (5, True)):
        again = one_pass(num_threads, draws=draws)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_each_use_of_an_image_is_augmented_differently() -> None:
    made = varied(1, 2)
    shown = [next(iter(made.shuffled()))[0] for _ in range(6)]
    assert len({x.numpy().tobytes() for x in shown}) == 6
    made = varied(12, 2)
    made.indices = np.zeros(12, np.int64)  # one image twelve times in a pass
    assert len({image.numpy().tobytes() for x, _ in made.shuffled() for image in x}) == 12


def test_few_batches_are_prefetched_and_a_pass_may_be_stopped() -> None:
    made = varied(100, 2)
    assert isinstance(made.images, Counted)
    one_pass = made.shuffled()
    next(one_pass)
    time.sleep(0.2)
    assert made.images.num_loaded <= 5 * (AHEAD + 1)
    del one_pass
    assert not [thread for thread in threading.enumerate() if "saccade-batches" in thread.name]


def test_the_seconds_that_were_waited_are_counted() -> None:
    made = varied(20, 1)

    def slow(x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01)
        return x[:, :8, :8]

    made.transform = slow
    list(made.in_order())
    assert made.waited_s > 0.15
    for _ in made.in_order():
        time.sleep(0.1)  # while the next ones are prepared
    assert made.waited_s < 0.15


@pytest.mark.parametrize("channels", [1, 4])
def test_images_may_have_other_channels(channels: int) -> None:
    images = [np.full((20, 30, channels), 51, np.uint8)] * 3
    transform = TrainingTransform(Augmentation(re_prob=0.5), 16, "bicubic")
    numbers = np.arange(3)
    made = Batches(images, numbers, numbers, transform, 2, (0.1,) * channels, (0.1,) * channels)
    for x, _ in made.shuffled():
        assert x.shape[1:] == (channels, 16, 16)
        assert x.max() == pytest.approx(1.0, abs=1e-5)


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


@settings(max_examples=50)
@given(num=st.integers(1, 40), most=st.integers(1, 50), batch_size=st.integers(1, 50), seed=st.integers(0, 3))
def test_passes_over_parts_show_each_image_once_before_any_comes_again(
    num: int, most: int, batch_size: int, seed: int
) -> None:
    images, rows = [np.zeros((4, 4, 3), np.uint8)] * num, np.arange(num)
    made = Batches(images, rows, rows, lambda x: x, batch_size, (0.0,) * 3, (1.0,) * 3, most_in_pass=most)
    for turn in range(2):
        torch.manual_seed(seed)  # of the order within a pass; which images are in it depends on its number alone
        seen = []
        for part in range(made.num_parts):
            batches = made.shuffled_rows(turn * made.num_parts + part)
            assert made.num_in_pass - 1 <= sum(map(len, batches)) <= made.num_in_pass <= most
            assert len(batches) == len(made)
            assert max(map(len, batches)) <= batch_size
            seen += np.concatenate(batches).tolist()
        assert sorted(seen) == rows.tolist()
    assert made.num_images == len(list(torch.cat([y for _, y in made.in_order()]))) == num


def test_a_pass_over_a_part_has_the_class_frequencies_of_all_images() -> None:
    strata = np.repeat([0, 1], [900, 100])
    images = [np.zeros((4, 4, 3), np.uint8)] * 1000
    given = images, np.arange(1000), strata, lambda x: x, 32, (0.0,) * 3, (1.0,) * 3
    made = Batches(*given, most_in_pass=100, strata=strata)
    for part in range(2 * made.num_parts):
        assert abs(strata[np.concatenate(made.shuffled_rows(part))].sum() - 10) <= 3
