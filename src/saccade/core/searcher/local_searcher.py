"""The path ``autogluon.core.searcher.local_searcher``; see `saccade.searcher`."""

from saccade.searcher import LocalSearcher

__all__ = ["LocalSearcher"]
