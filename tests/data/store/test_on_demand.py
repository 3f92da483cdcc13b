from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from saccade.data.store.on_demand import OnDemandImages


def test_images_are_decoded_at_access_and_errors_are_recorded() -> None:
    images = OnDemandImages([Image.new("RGB", (40, 20), (9, 8, 7)), b"no image"], 10)
    assert images[0].shape == (10, 20, 3)
    assert (images[0] == (9, 8, 7)).all()
    assert not images.errors
    assert images[1].dtype == np.uint8
    assert list(images.errors) == [1]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_have_the_requested_number_of_channels(channels: int) -> None:
    images = OnDemandImages([Image.new("RGBA", (40, 20), (9, 9, 9, 0)), b"no image"], 10, channels)
    assert images[0].shape == (10, 20, channels)
    assert images[1].shape[2] == channels
