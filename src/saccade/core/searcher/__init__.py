"""The path ``autogluon.core.searcher``; see `saccade.searcher`."""

from saccade.core.searcher.local_searcher import LocalGridSearcher, LocalRandomSearcher, LocalSearcher
from saccade.errors import missing_attributes

__all__ = ["LocalGridSearcher", "LocalRandomSearcher", "LocalSearcher"]

__getattr__ = missing_attributes(__name__, __all__)
