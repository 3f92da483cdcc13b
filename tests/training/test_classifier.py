from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from saccade.training.classifier import LOOK_AT_BATCH, Classifier, new_classifier
from saccade.training.device import Numerics
from saccade.training.problem import Problem
from saccade.training.recipe import Recipe


class Photos:
    """Images that take a while each."""

    def __init__(self, decodes: bool, seconds: float) -> None:
        self.decodes, self.seconds = decodes, seconds

    def __getitem__(self, index: int, /) -> np.ndarray:
        time.sleep(self.seconds)
        return np.full((32, 32, 3), index, np.uint8)


@pytest.fixture
def classifier() -> Iterator[Classifier]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    recipe = Recipe.of({"model": "test_resnet", "pretrained": False, "img_size": 32})
    yield new_classifier(recipe, Problem.of(["cat", "dog"]), Numerics(torch.device("cpu")))
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("decodes", "seconds", "expected"), [(True, 0.2, 1), (True, 0.0, 2), (False, 0.1, 2)], ids=["slow", "fast", "not"]
)
def test_arithmetic_that_waits_for_decoding_leaves_it_the_cores(
    classifier: Classifier, decodes: bool, seconds: float, expected: int
) -> None:
    num_threads: list[int] = []

    def work(*_: object) -> None:
        num_threads.append(torch.get_num_threads())
        time.sleep(0.0 if seconds else 0.02)  # the network is the slower one

    classifier.outputs(classifier.batches(Photos(False, 0.0), np.arange(1)))  # the first time takes longer
    classifier.network.register_forward_hook(work)
    batches = classifier.batches(Photos(decodes, seconds), np.arange(2 * LOOK_AT_BATCH), batch_size=1)
    outputs = classifier.outputs(batches)
    assert len(outputs) == 2 * LOOK_AT_BATCH
    assert num_threads[: LOOK_AT_BATCH - 1] == [2] * (LOOK_AT_BATCH - 1)
    assert num_threads[-1] == expected
    assert torch.get_num_threads() == 2
