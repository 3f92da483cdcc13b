"""The path ``autogluon.core.space``; see `saccade.space`."""

from saccade.space import Bool, Categorical, Dict, Int, List, Real, Space

__all__ = ["Bool", "Categorical", "Dict", "Int", "List", "Real", "Space"]
