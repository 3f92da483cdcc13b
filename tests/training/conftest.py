"""A tiny task for training tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from saccade.data.examples import read_labelled_examples
from saccade.training.metrics import make_metric
from saccade.training.preparation import prepare_data
from saccade.training.task import ImageTask


@pytest.fixture
def make_task(tmp_path: Path, make_colours: Callable[..., pd.DataFrame]) -> Callable[..., ImageTask]:
    """Return a task of telling colours apart."""

    def make(frame: pd.DataFrame | None = None, **changes: Any) -> ImageTask:
        frame = make_colours(10) if frame is None else frame
        data = prepare_data(
            read_labelled_examples(frame, "label"),
            None,
            None,
            folder=tmp_path / f"store_{len(list(tmp_path.glob('store_*')))}",
            shorter_side=36,
            holdout_frac=0.3,
            random_state=0,
            seconds_left=None,
            tell=lambda event: None,
        )
        return ImageTask(data.store, data.train, data.val, data.problem, make_metric(None, data.problem), **changes)

    return make
