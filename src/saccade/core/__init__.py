"""The paths of ``autogluon.core`` that old scripts import: ``import saccade.core as ag``."""

from saccade.core import metrics, scheduler, searcher, space, utils
from saccade.core.utils import download, unzip
from saccade.errors import missing_attributes
from saccade.space import Bool, Categorical, Dict, Int, List, Real

__all__ = [
    "Bool",
    "Categorical",
    "Dict",
    "Int",
    "List",
    "Real",
    "download",
    "metrics",
    "scheduler",
    "searcher",
    "space",
    "unzip",
    "utils",
]

__getattr__ = missing_attributes(__name__, __all__)
