from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from saccade.data.store.on_demand import OnDemandImages


def test_images_are_decoded_when_asked_and_bad_ones_are_noted() -> None:
    images = OnDemandImages([Image.new("RGB", (40, 20), (9, 8, 7)), b"no image"], 10)
    assert images[0].shape == (10, 20, 3)
    assert (images[0] == (9, 8, 7)).all()
    assert not images.errors
    assert images[1].dtype == np.uint8
    assert list(images.errors) == [1]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_have_the_channels_that_are_asked_for(channels: int) -> None:
    images = OnDemandImages([Image.new("RGBA", (40, 20), (9, 9, 9, 0)), b"no image"], 10, channels)
    assert images[0].shape == (10, 20, channels)
    assert images[1].shape[2] == channels
