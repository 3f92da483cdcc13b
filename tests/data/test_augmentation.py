from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from saccade.data.augmentation import (
    Augmentation,
    TrainingTransform,
    as_tensor,
    normalise,
    own_transform,
    policy,
    random_box,
)
from saccade.errors import HyperparameterError, UnknownNameError

SIDES = st.integers(1, 90)


EVERYTHING = Augmentation(vflip=0.5, color_jitter=0.4, auto_augment="rand-m9-n2", re_prob=1.0)


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    image.flags.writeable = False  # as those of a store
    return image


@settings(max_examples=40)
@given(height=SIDES, width=SIDES, side=st.integers(8, 48), seed=st.integers(0, 9))
def test_images_of_any_shape_become_squares_of_bytes(height: int, width: int, side: int, seed: int) -> None:
    image = noise(height, width, seed)
    made = [
        TrainingTransform(EVERYTHING, side, "bicubic")(image, np.random.default_rng(seed)),
        TrainingTransform(Augmentation(), side, "bilinear")(image, np.random.default_rng(seed)),
    ]
    for out in made:
        assert out.shape == (3, side, side)
        assert out.dtype is torch.uint8


@pytest.mark.parametrize("name", [None, "randaugment", "autoaugment", "trivialaugment", "augmix"])
def test_random_numbers_come_only_from_the_given_generator(name: str | None) -> None:
    image = noise(40, 50)
    transform = TrainingTransform(replace(EVERYTHING, auto_augment=name), 24, "bilinear")
    state = torch.get_rng_state()
    first = [transform(image, np.random.default_rng(seed)) for seed in range(8)]
    torch.rand(3)  # whoever else draws makes no difference
    assert all(torch.equal(transform(image, np.random.default_rng(seed)), first[seed]) for seed in range(8))
    assert len({out.numpy().tobytes() for out in first}) == 8
    torch.set_rng_state(state)
    [transform(image, np.random.default_rng(seed)) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), state)


@settings(max_examples=100)
@given(height=SIDES, width=SIDES, low=st.floats(0.01, 1), seed=st.integers(0, 9))
def test_a_random_crop_is_inside_and_has_the_requested_area_and_aspect(
    height: int, width: int, low: float, seed: int
) -> None:
    top, left, box_height, box_width = random_box(height, width, (low, 1.0), (0.75, 4 / 3), np.random.default_rng(seed))
    assert 0 <= top <= top + box_height <= height
    assert 0 <= left <= left + box_width <= width
    assert min(box_height, box_width) >= 1
    if 30 < height == width:
        assert box_height * box_width >= 0.85 * low * height * width  # sides are whole pixels
        assert 0.7 <= box_width / box_height <= 1.43 or box_height * box_width < 100


def test_crops_are_distributed_as_in_torchvision() -> None:
    ours = [random_box(100, 150, (0.35, 1.0), (0.75, 4 / 3), np.random.default_rng(seed)) for seed in range(4000)]
    torch.manual_seed(0)
    image = torch.zeros(3, 100, 150)
    theirs = [v2.RandomResizedCrop.make_params(v2.RandomResizedCrop(8, (0.35, 1.0)), [image]) for _ in range(4000)]
    keys = ("top", "left", "height", "width")
    for number, key in enumerate(keys):
        drawn, expected = [box[number] for box in ours], [box[key] for box in theirs]
        assert abs(np.mean(drawn) - np.mean(expected)) < 0.05 * np.std(expected) * 2
        assert 0.93 < np.std(drawn) / np.std(expected) < 1.07


def test_flips_and_erasing_have_the_requested_probabilities() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:10, :10] = 200
    whole = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.3, vflip=0.6)
    transform = TrainingTransform(whole, 40, "bilinear")
    made = [transform(image, np.random.default_rng(seed)) for seed in range(1000)]
    assert 0.25 < np.mean([bool(out[0, :, -5].any()) for out in made]) < 0.35
    assert 0.55 < np.mean([bool(out[0, -5, :].any()) for out in made]) < 0.65
    transform = TrainingTransform(replace(whole, hflip=0.0, vflip=0.0, re_prob=0.4), 40, "bilinear")
    white = np.full((40, 40, 3), 255, np.uint8)
    erased = [(transform(white, np.random.default_rng(seed)) == 0).float().mean().item() for seed in range(1000)]
    assert 0.35 < np.mean(np.array(erased) > 0) < 0.45
    assert max(erased) < 0.36
    assert (white == 255).all()  # the image itself is left alone


def test_normalised_values_are_those_of_the_formula() -> None:
    x = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (x.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    out = normalise(x, mean, std)
    assert torch.allclose(out, expected, atol=1e-5)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_as_tensor_copies_what_is_read_only() -> None:
    image = np.ones((4, 6, 3), np.uint8)
    image.flags.writeable = False
    assert as_tensor(image).shape == (3, 4, 6)


@pytest.mark.parametrize("name", ["randaugment", "rand-m7-n3-mstd0.5", "autoaugment", "trivialaugment", "augmix"])
def test_policies_are_found_by_name(name: str) -> None:
    assert policy(name)(torch.zeros(3, 16, 16, dtype=torch.uint8)).shape == (3, 16, 16)


def test_a_misspelt_policy_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="'autoaugment'"):
        policy("autoaugmnt")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_an_own_transform_gives_the_range_of_uint8(dtype: torch.dtype) -> None:
    own = v2.Compose([v2.ToImage(), v2.RandomCrop(16), v2.ToDtype(dtype, scale=True)])
    image = torch.full((3, 20, 30), 51, dtype=torch.uint8)
    transformed = own_transform(own, 16)(image)
    assert type(transformed) is torch.Tensor
    assert transformed.shape == (3, 16, 16)
    assert torch.allclose(transformed.float(), torch.tensor(51.0))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (v2.Resize((8, 9)), r"shape \(3, 8, 9\); expected a tensor of shape \(3, 16, 16\)"),
        (v2.ToPILImage(), "type Image; expected a tensor"),
    ],
)
def test_an_own_transform_with_another_result_is_an_error(own: v2.Transform, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        own_transform(own, 16)(torch.zeros(3, 20, 30, dtype=torch.uint8))
