"""Saccade: AutoML for images. The best classifier that a time limit can buy.

>>> import saccade as ag
>>> space = {"model": ag.Categorical("resnet18", "mobilenetv3_small_100"), "lr": ag.Real(1e-4, 1e-1, log=True)}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saccade import errors, space
from saccade._version import __version__
from saccade.errors import SaccadeError, missing_attributes
from saccade.space import Bool, Categorical, Dict, Int, List, Real

if TYPE_CHECKING:
    from saccade import scheduler, searcher
    from saccade.data.dataset import ImageDataset
    from saccade.predictor import ImagePredictor
    from saccade.predictor.estimators import ImageClassifier, ImageRegressor
    from saccade.report.compare import compare
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
    "compare",
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
    "compare": "saccade.report.compare",
    "scheduler": "saccade.scheduler",
    "searcher": "saccade.searcher",
    "tune": "saccade.tuning",
}
__getattr__ = missing_attributes(__name__, __all__, _LAZY)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
