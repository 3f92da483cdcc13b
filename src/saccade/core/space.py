"""The path ``autogluon.core.space``; see `saccade.space`."""

from saccade.errors import missing_attributes
from saccade.space import Bool, Categorical, Dict, Int, List, Real, Space

__all__ = ["Bool", "Categorical", "Dict", "Int", "List", "Real", "Space"]

__getattr__ = missing_attributes(__name__, __all__)
