"""The path ``autogluon.core.searcher``; see `saccade.searcher`."""

from saccade.searcher import LocalGridSearcher, LocalRandomSearcher, LocalSearcher

__all__ = ["LocalGridSearcher", "LocalRandomSearcher", "LocalSearcher"]
