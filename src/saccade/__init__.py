"""Saccade: AutoML for images. The best classifier that a time limit can buy.

>>> import saccade as ag
>>> space = {"model": ag.Categorical("resnet18", "mobilenetv3_small_100"), "lr": ag.Real(1e-4, 1e-1, log=True)}
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from saccade import errors, space
from saccade._version import __version__
from saccade.errors import SaccadeError, missing_attributes
from saccade.space import Bool, Categorical, Dict, Int, List, Real

if TYPE_CHECKING:
    from saccade import scheduler, searcher
    from saccade.data.dataset import ImageDataset
    from saccade.predictor import ImagePredictor
    from saccade.predictor.estimators import ImageClassifier, ImageRegressor
    from saccade.tuning import TuneResult, tune

__all__ = [
    "Bool",
    "Categorical",
    "Dict",
    "ImageClassifier",
    "ImageDataset",
    "ImagePredictor",
    "ImageRegressor",
    "Int",
    "List",
    "Real",
    "SaccadeError",
    "TuneResult",
    "__version__",
    "errors",
    "scheduler",
    "searcher",
    "space",
    "tune",
]

# Importing pandas or torch costs more than all the rest, so it waits until a name is used that needs it.
_LAZY = {
    "ImageClassifier": "saccade.predictor.estimators",
    "ImageDataset": "saccade.data.dataset",
    "ImagePredictor": "saccade.predictor.predictor",
    "ImageRegressor": "saccade.predictor.estimators",
    "TuneResult": "saccade.tuning",
    "tune": "saccade.tuning",
}
_LAZY_ROOMS = ("scheduler", "searcher")
_missing = missing_attributes(__name__, __all__)


def __getattr__(name: str) -> Any:
    if name in _LAZY_ROOMS:
        return importlib.import_module(f"saccade.{name}")
    if name not in _LAZY:
        _missing(name)
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_LAZY_ROOMS})
