from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from saccade.errors import DivergedError
from saccade.events import EpochDone, Event, Warned


def test_every_kind_has_its_own_name():
    kinds = [cls.kind for cls in Event.__subclasses__()]
    assert sorted(kinds) == sorted(set(kinds))
    assert Event.kind not in kinds


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_score_is_finite(score):
    with pytest.raises(DivergedError, match=r"the score of epoch 3 is .*; a score is a finite number"):
        EpochDone(0, 3, score)


def test_events_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Warned("a").text = "b"
