"""The paths of ``autogluon.core`` that old scripts import: ``import saccade.core as ag``."""

from saccade.core import scheduler, searcher, space
from saccade.space import Bool, Categorical, Dict, Int, List, Real

__all__ = ["Bool", "Categorical", "Dict", "Int", "List", "Real", "scheduler", "searcher", "space"]
