from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from saccade.data.augmentation import (
    Augmentation,
    as_tensor,
    evaluation_transform,
    normalise,
    own_transform,
    policy,
    training_transform,
)
from saccade.errors import HyperparameterError, UnknownNameError

SIDES = st.integers(1, 90)


@settings(max_examples=40)
@given(height=SIDES, width=SIDES, side=st.integers(8, 48), seed=st.integers(0, 9))
def test_images_of_any_shape_become_squares_of_bytes(height: int, width: int, side: int, seed: int) -> None:
    image = as_tensor(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    everything = Augmentation(vflip=0.5, color_jitter=0.4, auto_augment="rand-m9-n2", re_prob=1.0)
    for transform in (
        training_transform(everything, side, "bicubic"),
        training_transform(Augmentation(), side, "bilinear"),
        evaluation_transform(side, 0.875, "bicubic"),
        evaluation_transform(side, 1.15, "bicubic"),  # some of timm's networks want a border
    ):
        out = transform(image)
        assert out.shape == (3, side, side)
        assert out.dtype is torch.uint8


def test_the_same_seed_gives_the_same_image() -> None:
    image = as_tensor(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    transform = training_transform(Augmentation(auto_augment="trivialaugment", color_jitter=0.5), 24, "bilinear")
    torch.manual_seed(3)
    first = transform(image)
    second = transform(image)
    torch.manual_seed(3)
    assert torch.equal(transform(image), first)
    assert not torch.equal(first, second)


def test_evaluation_shows_the_central_square_upright() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 10:30, 0] = 255
    image[:10, 10:30, 1] = 255
    out = evaluation_transform(20, 1.0, "bilinear")(as_tensor(image))
    assert (out[0] == 255).all()
    assert (out[1, :10] == 255).all()
    assert (out[1, 10:] == 0).all()


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
def test_policies_are_known_by_name(name: str) -> None:
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
def test_an_own_transform_to_something_else_is_told(own: v2.Transform, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        own_transform(own, 16)(torch.zeros(3, 20, 30, dtype=torch.uint8))
